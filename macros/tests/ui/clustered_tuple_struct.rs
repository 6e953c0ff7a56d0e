use kiln::Clustered;

#[derive(Clustered)]
struct Session(String, u64);

fn main() {}
