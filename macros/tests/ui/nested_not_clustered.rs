use kiln::Clustered;

#[derive(Default)]
struct Address {
    city: String,
}

#[derive(Clustered)]
struct Session {
    #[clustered(nested)]
    address: Address,
}

fn main() {}
