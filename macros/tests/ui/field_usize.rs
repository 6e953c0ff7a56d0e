use kiln::Clustered;

#[derive(Clustered)]
struct Session {
    visits: usize,
}

fn main() {}
