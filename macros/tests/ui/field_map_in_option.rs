use kiln::Clustered;

#[derive(Clustered)]
struct Session {
    cart: Option<kiln::Map<String, u32>>,
}

fn main() {}
