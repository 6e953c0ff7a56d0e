use kiln::{Value, rkyv};

#[derive(Value, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
#[rkyv(crate = kiln::rkyv)]
enum Level {
    Low = 1,
    High = 5,
}

fn main() {}
