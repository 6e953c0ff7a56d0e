use kiln::Clustered;

#[derive(Clustered)]
struct Node {
    value: u64,
    #[clustered(nested)]
    next: Node,
}

fn main() {}
