use kiln::{Value, rkyv};

#[derive(Value, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
#[rkyv(crate = kiln::rkyv)]
struct Pair<T> {
    a: T,
    b: T,
}

fn main() {}
