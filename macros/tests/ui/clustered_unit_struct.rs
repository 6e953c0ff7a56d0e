use kiln::Clustered;

#[derive(Clustered)]
struct Session;

fn main() {}
