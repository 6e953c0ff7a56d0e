use kiln::Clustered;

#[derive(Clustered)]
struct Session {
    user: String,
    #[clustered(rename = "user")]
    owner: String,
}

fn main() {}
