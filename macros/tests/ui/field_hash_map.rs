use kiln::Clustered;

use std::collections::HashMap;

#[derive(Clustered)]
struct Session {
    cart: HashMap<String, u32>,
}

fn main() {}
