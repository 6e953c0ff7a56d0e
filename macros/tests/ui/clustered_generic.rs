use kiln::Clustered;

#[derive(Clustered)]
struct Session<T> {
    user: T,
}

#[derive(Clustered)]
struct Borrowed<'a> {
    user: &'a str,
}

fn main() {}
