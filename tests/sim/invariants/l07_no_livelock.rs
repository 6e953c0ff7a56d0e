//! L7: no reconnect livelock: once faults stop, a node needs a few attempts to be back, and stays.

use crate::world::World;

/// One to find that the lease has lapsed, one to join again, and some that began before the network was whole.
const ATTEMPTS_MAX: u64 = 8;

pub(crate) fn check(world: &World) {
    for process in world.processes() {
        let attempts = process.figures.attempts.get();
        assert!(attempts <= ATTEMPTS_MAX, "L7: node {} connected {attempts} times after faults stopped", process.place);
    }
}
