#[derive(kiln::Value)]
enum Never {}

fn main() {}
