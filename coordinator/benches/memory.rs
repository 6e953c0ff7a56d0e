//! What an object costs: resident bytes for each of a million objects with one field of 1,000 bytes and a key of 20.
//!
//! Counted by the system, so that everything is in it: maps, indexes, the allocator's own, and the grant and interest of
//! the node that made the object. Then how long a snapshot of them keeps the engine from anything else, and what it takes to
//! read one back.

use kiln_coordinator::engine::{Effect, Engine, Event, Restore, SessionId, Settings};
use kiln_protocol::message::{Hello, Role, RootOptions};
use kiln_protocol::schema::{FieldDescription, FieldKind, TypeDescription};
use kiln_protocol::{Epoch, FieldId, RequestId, RootId, Secret, ToCoordinator, Write};
use std::time::{Duration, Instant};

const PAGE_BYTES: u64 = 4096;
const BLOB: [u8; 1000] = [7; 1000];
/// Bytes of one step of a snapshot, as the driver takes them.
const STEP_BYTES: usize = 128 << 10;
/// What Redis 7 takes for a string of 1,000 bytes under such a key.
const REDIS_BYTES: u64 = 1163;

fn resident_bytes() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = pages.split_whitespace().nth(1).and_then(|pages| pages.parse::<u64>().ok());
    pages.unwrap_or(0) * PAGE_BYTES
}

#[expect(clippy::disallowed_methods, reason = "a benchmark reads the clock")]
fn now() -> Instant {
    Instant::now()
}

fn handle(engine: &mut Engine, effects: &mut Vec<Effect>, event: Event) {
    engine.handle(Duration::ZERO, event, effects);
    effects.clear();
}

/// Reads the whole state in steps, and back into another engine.
#[expect(clippy::print_stdout, reason = "a benchmark says what it measured")]
fn snapshot(engine: &mut Engine) {
    let mut restore = Restore::new();
    let (mut longest, mut reading, mut restoring) = (Duration::ZERO, Duration::ZERO, Duration::ZERO);
    let mut pieces = Vec::new();
    let start = now();
    engine.begin_snapshot();
    let begin = start.elapsed();
    let mut more = true;
    while more {
        let start = now();
        more = engine.snapshot(STEP_BYTES, &mut pieces);
        let step = start.elapsed();
        longest = longest.max(step);
        reading += step;
        let start = now();
        for piece in pieces.drain(..) {
            restore.take(piece).expect("a piece of a snapshot of our own");
        }
        restoring += start.elapsed();
    }
    let start = now();
    let restored = restore.engine(Settings::new(Epoch::from_bits(2), "memory", "bench"));
    restoring += start.elapsed();
    let restored = restored.expect("a snapshot of our own").totals().objects;
    assert_eq!(restored, engine.totals().objects, "all of them are back");
    println!("snapshot: begun in {begin:?}, longest step {longest:?}, all steps {reading:?}; back in {restoring:?}");
}

#[expect(clippy::print_stdout, reason = "a benchmark says what it measured")]
fn main() {
    let mut engine = Engine::new(Settings::new(Epoch::from_bits(1), "memory", "bench"));
    let mut effects = Vec::new();
    let session = SessionId::from_bits(1);
    let hello = Hello::new("bench".to_owned(), Role::Node);
    let secret = Secret::from_bytes([0; 16]);
    handle(&mut engine, &mut effects, Event::Attached { session, hello, secret });
    let field = FieldDescription {
        name: "blob".to_owned(),
        kind: FieldKind::Block,
        structure: "bytes".to_owned(),
        group: String::new(),
    };
    let message = ToCoordinator::OpenRoot {
        request: RequestId::from_bits(0),
        name: "sessions".to_owned(),
        key: "string".to_owned(),
        type_description: TypeDescription { name: "Session".to_owned(), fields: vec![field] },
        options: RootOptions::default(),
    };
    handle(&mut engine, &mut effects, Event::Message { session, message });
    let mut writes = Vec::new();
    Write::Block { field: FieldId::from_bits(0), bytes: &BLOB }.encode(&mut writes);
    let before = resident_bytes();
    for number in 1..=1_u64 << 20 {
        // Scattered, as session ids are.
        let key = format!("{:020}", number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let message = ToCoordinator::Fetch {
            request: RequestId::from_bits(number),
            root: RootId::from_bits(1),
            key: key.into_bytes().into(),
            create: Some(writes.clone().into()),
        };
        handle(&mut engine, &mut effects, Event::Message { session, message });
        if number.is_power_of_two() && number >= 1 << 16 || number == 1_000_000 || number == 600_000 {
            let each = (resident_bytes() - before) / number;
            println!("{number} objects: {each} bytes each; Redis: {REDIS_BYTES}");
        }
    }
    snapshot(&mut engine);
}
