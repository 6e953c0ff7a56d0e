use kiln::{Value, rkyv};

#[derive(Value, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
#[rkyv(crate = kiln::rkyv)]
struct Line {
    #[rkyv(with = Niche)]
    next: Option<Box<u32>>,
}

fn main() {}
