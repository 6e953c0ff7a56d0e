use kiln::Clustered;

struct Handle;

#[derive(Clustered)]
struct Session {
    user: String,
    #[clustered(local)]
    handle: Handle,
}

fn main() {}
