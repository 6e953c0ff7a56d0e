use kiln::{Value, rkyv};

#[derive(Value, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
#[rkyv(crate = kiln::rkyv)]
struct Order {
    lines: Vec<Line>,
}

#[derive(Value, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
#[rkyv(crate = kiln::rkyv)]
struct Line {
    parts: Vec<Order>,
}

fn main() {}
