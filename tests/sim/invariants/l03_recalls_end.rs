//! L3: a recall completes, or its holder is fenced: when all is quiet, none is older than that takes.

use crate::clock::SECOND;
use crate::coordinator::free_after;
use crate::grants::Grants;
use crate::world::World;

pub(crate) fn check(world: &World, grants: &Grants) {
    let most = free_after(&world.coordinator.clock) + SECOND;
    for (lock, grant) in grants.all() {
        let since = grant.recalled.unwrap_or_else(|| world.now());
        assert!(world.now() - since < most, "L3: {lock:?} was wanted back from {} and is still held", grant.holder);
    }
}
