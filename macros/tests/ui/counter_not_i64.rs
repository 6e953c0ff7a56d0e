use kiln::Clustered;

#[derive(Clustered)]
struct Session {
    #[clustered(counter)]
    clicks: u64,
}

fn main() {}
