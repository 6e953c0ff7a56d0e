use kiln::Clustered;

#[derive(Clustered)]
struct Session {
    #[clustered(rename = "address.city")]
    city: String,
}

fn main() {}
