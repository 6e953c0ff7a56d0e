use kiln::Clustered;

#[derive(Clustered)]
struct Session {
    #[clustered(lock = "default")]
    visits: u64,
}

fn main() {}
