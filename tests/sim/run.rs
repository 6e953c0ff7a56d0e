//! One run: with faults for safety, then without for liveness.

use crate::clock::SECOND;
use crate::faults::SAFETY;
use crate::process::Stage;
use crate::report::Summary;
use crate::trace::Trace;
use crate::world::{NODES, World};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::{Mutex, PoisonError};

/// Steps of the phase with faults, at least.
const STEPS_MIN: u64 = 2_000;
/// Until everything is as it was: what is known of the dead has lapsed.
const RECOVERY: u64 = 9 * SECOND;
/// In this time everything that was begun must come to its end.
const SETTLING_MAX: u64 = 60 * SECOND;

/// Where the last panic was, and what it said.
static PANIC: Mutex<String> = Mutex::new(String::new());

/// Panics are kept for the report, and not printed.
pub(crate) fn keep_panics() {
    std::panic::set_hook(Box::new(|info| {
        let what = info.payload_as_str().unwrap_or("a panic without words");
        let at = info.location().map_or_else(String::new, |at| format!(" ({at})"));
        *PANIC.lock().unwrap_or_else(PoisonError::into_inner) = format!("{what}{at}");
    }));
}

/// Lines of a trace.
pub(crate) type Lines = Rc<RefCell<VecDeque<String>>>;

/// Runs a seed; or says why that failed.
pub(crate) fn seed(seed: u64, trace: Trace) -> Result<Summary, String> {
    let ran = catch_unwind(AssertUnwindSafe(|| world(seed, trace)));
    ran.map_err(|_panic| PANIC.lock().unwrap_or_else(PoisonError::into_inner).clone())
}

fn world(seed: u64, trace: Trace) -> Summary {
    let world = World::new(seed, trace);
    let end = Apart(Rc::clone(&world));
    while world.now() < SAFETY || world.steps.get() < STEPS_MIN {
        assert!(world.step(), "nothing happens any more");
    }
    let steps = world.steps.get();
    world.trace(|| "NO MORE FAULTS".to_owned());
    world.stop_faults();
    pass(&world, RECOVERY);
    world.stopping.set(true);
    settle(&world);
    pass(&world, 2 * SECOND);
    world.invariants.finish(&world);
    let summary = Summary {
        seed,
        hash: world.fingerprint(),
        steps,
        commits: world.invariants.commits(),
        faults: world.faults.counts(),
        reached: world.counts(),
    };
    drop(end);
    summary
}

fn pass(world: &World, span: u64) {
    let until = world.now() + span;
    while world.now() < until {
        assert!(world.step(), "nothing happens any more");
    }
}

/// What was begun comes to its end, and everybody is attached.
fn settle(world: &World) {
    let until = world.now() + SETTLING_MAX;
    while !is_settled(world) {
        assert!(world.step(), "nothing happens any more");
        assert!(world.now() < until, "L1: what was begun does not come to its end: {}", describe(world));
    }
}

fn is_settled(world: &World) -> bool {
    let processes = world.processes();
    processes.len() == NODES
        && processes.iter().all(|process| {
            matches!(process.stage.get(), Stage::Served(_))
                && process.node().link.is_synced()
                && process.node().outbox.unacknowledged().0 == 0
                && process.tasks.borrow().iter().all(Option::is_none)
        })
}

/// Who waits for what, for people.
pub(crate) fn describe(world: &World) -> String {
    let mut text = String::new();
    for process in world.processes() {
        text += &format!("\nnode {}: {:?}", process.place, process.stage.get());
        if !process.has_attached() {
            continue;
        }
        let busy: Vec<_> = (process.tasks.borrow().iter().zip(&*process.doing.borrow()))
            .filter_map(|(task, doing)| task.as_ref().map(|_| *doing))
            .collect();
        let node = process.node();
        let (unacknowledged, synced) = (node.outbox.unacknowledged().0, node.link.is_synced());
        let (used, all) = (node.heap.used_bytes(), node.heap.bytes_max());
        text +=
            &format!(", busy with {busy:?}, {unacknowledged} unacknowledged, synced: {synced}, heap {used} of {all}");
        for entry in node.cache.all() {
            let (state, uses, bytes) = (entry.state(), Arc::strong_count(&entry), entry.object.bytes());
            text += &format!("\n  {} {state:?}, {uses} uses, {bytes} bytes, {:?}", entry.id(), entry.locks());
        }
    }
    text
}

/// Tasks hold the world, and the world holds them: it is taken apart at the end.
struct Apart(Rc<World>);

impl Drop for Apart {
    fn drop(&mut self) {
        // What failed may be in any state: it stays where it is.
        if !std::thread::panicking() {
            for process in self.0.processes() {
                self.0.end_process(&process);
            }
        }
    }
}
