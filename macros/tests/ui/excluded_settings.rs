use kiln::Clustered;

#[derive(Clustered)]
struct Session {
    #[clustered(counter, lock = "cart")]
    a: i64,
    #[clustered(local, lock = "cart")]
    b: u64,
    #[clustered(local, counter)]
    c: i64,
    #[clustered(local, rename = "x")]
    d: u64,
    #[clustered(counter, default = 5)]
    e: i64,
    #[clustered(nested, archive = "x")]
    f: u64,
    #[clustered(nested, default = 5)]
    g: u64,
    #[clustered(nested, counter)]
    h: i64,
}

fn main() {}
