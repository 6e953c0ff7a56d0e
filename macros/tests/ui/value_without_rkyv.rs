#[derive(kiln::Value)]
struct Line {
    sku: String,
}

fn main() {}
