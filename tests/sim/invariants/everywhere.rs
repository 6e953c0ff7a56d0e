//! After a commit that is everywhere, no other node shows an older value, as long as it takes its copies for current (section 6
//! of the design). A paused node may show what it likes: nobody looks.

use crate::process::Process;
use crate::program::Field;
use crate::world::World;
use kiln_engine::State;
use kiln_protocol::ObjectId;

pub(crate) fn check(
    world: &World,
    is_concerned: impl Fn(&Process) -> bool,
    object: ObjectId,
    field: Field,
    committed: i64,
) {
    for process in world.processes().iter().filter(|process| process.is_in_step(world.now())) {
        let node = process.node();
        let entry = node.cache.get(object).filter(|entry| entry.state() == State::Current);
        if let Some(entry) = entry.filter(|_| is_concerned(process)) {
            let shown = field.of(&entry);
            assert!(shown >= committed, "{field:?} of {object}: {shown} is shown after {committed} was everywhere");
        }
    }
}
