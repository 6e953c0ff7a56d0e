#[derive(kiln::Value)]
union Number {
    a: u32,
    b: f32,
}

fn main() {}
