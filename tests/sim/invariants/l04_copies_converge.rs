//! L4: once faults stop, all copies converge: the coordinator and every node have what was committed, and nothing else.

use crate::ledger::Ledger;
use crate::program::Field;
use crate::world::World;
use bytes::Bytes;
use kiln_engine::State;
use kiln_protocol::{ToCoordinator, ToNode, Write, Writes};

pub(crate) fn check(world: &World, ledger: &Ledger) {
    for (root, key, object) in ledger.sessions_there() {
        let key = Bytes::from(key);
        let answer = world.ask(|request| ToCoordinator::Peek { request, root, key: key.clone() });
        let ToNode::Fetched { record, .. } = answer else { unreachable!("L4: {key:?} of root {root}: {answer:?}") };
        assert_eq!(record.object, object, "L4: what is under {key:?}");
        for field in Field::ALL {
            let number = ledger.number(field);
            let stored = Writes::new(&record.writes).map(|write| write.expect("well-formed"));
            let stored = stored.filter(|write| Some(write.field()) == number).find_map(|write| match write {
                Write::Scalar { bits, .. } => Some(bits.cast_signed()),
                _ => None,
            });
            let stored = stored.unwrap_or_default();
            assert_eq!(stored, ledger.value(object, field), "L4: {field:?} of {key:?}");
            for process in world.processes() {
                let entry = process.node().cache.get(object);
                if let Some(entry) = entry.filter(|entry| entry.state() == State::Current) {
                    assert_eq!(field.of(&entry), stored, "L4: {field:?} of {key:?} on node {}", process.place);
                }
            }
        }
    }
    for process in world.processes() {
        for entry in process.node().cache.all() {
            assert!(!ledger.is_removed(entry.id()), "L4: node {} keeps {}, which is gone", process.place, entry.id());
            let key = ledger.objects.get(&entry.id()).map(|known| &known.key[..]);
            assert_eq!(key, Some(&*entry.key()), "L4: the key of {} on node {}", entry.id(), process.place);
        }
    }
}
