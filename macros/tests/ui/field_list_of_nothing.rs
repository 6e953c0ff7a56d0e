use kiln::Clustered;

#[derive(Clustered)]
struct Session {
    ticks: Vec<()>,
}

fn main() {}
