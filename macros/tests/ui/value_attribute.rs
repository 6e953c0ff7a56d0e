use kiln::Value;

#[derive(Value)]
#[value(name = "L")]
struct Line {
    #[value(rename = "x", rename = "y")]
    a: u32,
    #[value(rename = "")]
    b: u32,
}

#[derive(Value)]
struct Twice {
    a: u32,
    #[value(rename = "a")]
    b: u32,
}

#[derive(Value)]
enum Same {
    A,
    #[value(rename = "A")]
    B,
}

fn main() {}
