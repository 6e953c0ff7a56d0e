use kiln::Clustered;

use std::rc::Rc;
use std::sync::Arc;

#[derive(Clustered)]
struct Session {
    user: Arc<String>,
    other: Rc<u64>,
}

fn main() {}
