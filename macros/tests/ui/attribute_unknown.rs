use kiln::Clustered;

#[derive(Clustered)]
#[clustered(lock = "session")]
struct Session {
    #[clustered(transient)]
    user: String,
    #[clustered(skip = true)]
    visits: u64,
}

fn main() {}
