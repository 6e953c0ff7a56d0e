use kiln::Clustered;

#[derive(Clustered)]
struct Session {
    cart: kiln::Map<f64, u32>,
    pairs: kiln::Map<(String, u32), u32>,
}

fn main() {}
