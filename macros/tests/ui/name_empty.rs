use kiln::Clustered;

#[derive(Clustered)]
#[clustered(rename = "")]
struct Session {
    #[clustered(rename = "")]
    a: u64,
    #[clustered(lock = "")]
    b: u64,
    #[clustered(archive = "")]
    c: u64,
}

fn main() {}
