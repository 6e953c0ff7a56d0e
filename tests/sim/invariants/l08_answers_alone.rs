//! L8: a cut-off node answers from its near cache: at once, so within any deadline, and says that it cannot vouch for it.

use crate::process::{Process, Stage};
use crate::program::Field;
use crate::sometimes::Sometimes;
use crate::world::World;
use kiln_engine::State;

/// A node loses its connection, and nothing of its near cache.
pub(crate) fn cut_off(process: &Process) {
    let resident = || process.node().cache.all().iter().map(|entry| entry.id()).collect::<Vec<_>>();
    let before = resident();
    process.node().disconnected();
    assert_eq!(resident(), before, "L8: what node {} has when it is cut off", process.place);
}

pub(crate) fn check(world: &World, process: &Process) {
    let is_cut_off = !matches!(process.stage.get(), Stage::Served(_)) && !process.is_paused(world.now());
    if !is_cut_off || process.node().ended().is_some() {
        return;
    }
    assert!(!process.node().link.is_synced(), "L8: node {} is cut off and takes its copies for current", process.place);
    let roots = process.roots.borrow();
    for root in roots.iter().flatten() {
        for key in ["a", "b", "x", "y"] {
            if let Some(entry) = root.get(key.as_bytes()) {
                let _shown = Field::Visits.of(&entry);
                assert_ne!(entry.state(), State::Destroyed, "L8: {key} is under its key, and gone");
                world.reached(Sometimes::AnsweredCutOff);
            }
        }
    }
}
