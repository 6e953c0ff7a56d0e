//! L5: one slow node stalls nobody: with nothing wrong at a node's own machine, its commits are acknowledged within a round
//! trip, whatever is wrong at others. What the coordinator tells it before may wait for the log.

use crate::clock::{SECOND, nanos};
use crate::process::Process;
use crate::world::World;

/// After something was wrong, until all is as before.
const AFTERMATH: u64 = 6 * SECOND;

pub(crate) fn check(world: &World, process: &Process, since: u64, everywhere: bool) {
    let is_sound = world.sound_since(process.place).is_some_and(|sound| sound + AFTERMATH < since);
    if !everywhere && is_sound && process.served_since.get() + AFTERMATH < since {
        let most = nanos(world.round_trip_max()) + world.coordinator.sync_max();
        let took = world.now() - since;
        assert!(took <= most, "L5: a commit of node {} took {took} ns, a round trip {most}", process.place);
    }
}
