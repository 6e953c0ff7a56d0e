use kiln::Clustered;

struct Line;

#[derive(Clustered)]
struct Session {
    cart: kiln::Map<String, Line>,
}

fn main() {}
