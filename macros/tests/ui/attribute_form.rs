use kiln::Clustered;

#[derive(Clustered)]
struct Session {
    #[clustered]
    a: u64,
    #[clustered(rename("b"))]
    b: u64,
    #[clustered(rename)]
    c: u64,
    #[clustered(rename = d)]
    d: u64,
    #[clustered(counter = true)]
    e: i64,
    #[clustered(default)]
    f: u64,
    #[clustered(lock = 5)]
    g: u64,
}

fn main() {}
