use kiln::Clustered;

use kiln::{Value, rkyv};

#[derive(Value, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
#[rkyv(crate = kiln::rkyv)]
enum Theme {
    Light,
    Dark,
}

#[derive(Clustered)]
struct Session {
    theme: Theme,
}

fn main() {}
