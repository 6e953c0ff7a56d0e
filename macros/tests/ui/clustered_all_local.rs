use kiln::Clustered;

#[derive(Clustered)]
struct Session {
    #[clustered(local)]
    scratch: u64,
}

fn main() {}
