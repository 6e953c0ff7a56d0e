use kiln::Clustered;

#[derive(Clustered)]
struct Session {
    #[clustered(default = "light")]
    theme: String,
}

fn main() {}
