use kiln::Clustered;

#[derive(Clustered)]
enum Session {
    Guest,
    User(String),
}

fn main() {}
