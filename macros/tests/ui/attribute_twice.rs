use kiln::Clustered;

#[derive(Clustered)]
#[clustered(rename = "A", rename = "B")]
struct Session {
    #[clustered(counter)]
    #[clustered(counter)]
    clicks: i64,
}

fn main() {}
