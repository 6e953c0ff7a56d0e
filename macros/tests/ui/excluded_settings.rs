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
    #[clustered(counter, on_archive_failure = "leave_out")]
    i: i64,
    #[clustered(local, on_archive_failure = "leave_out")]
    j: u64,
    #[clustered(nested, on_archive_failure = "leave_out")]
    k: u64,
    #[clustered(on_archive_failure = "ignore")]
    l: u64,
}

fn main() {}
