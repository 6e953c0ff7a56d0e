use kiln::Clustered;

#[derive(Clustered)]
union Session {
    visits: u64,
    clicks: i64,
}

fn main() {}
