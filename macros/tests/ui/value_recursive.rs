use kiln::Value;

#[derive(Value)]
struct Node {
    value: u64,
    next: Option<Box<Node>>,
}

#[derive(Value)]
enum Tree {
    Leaf,
    Inner(Vec<Self>),
}

fn main() {}
