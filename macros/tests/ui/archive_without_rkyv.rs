use kiln::Clustered;

#[derive(Default)]
struct Foreign(u32);

#[derive(Clustered)]
struct Session {
    #[clustered(archive = "foreign-1")]
    foreign: Foreign,
}

fn main() {}
