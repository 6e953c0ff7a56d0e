//! How many commits the engine takes, and how many lock hand-offs.
//!
//! `commits` is what one core does between sockets: `handle` alone, and with decoding before and encoding behind it.

use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use kiln_coordinator::engine::{Effect, Engine, Event, SessionId, Settings};
use kiln_protocol::codec::{FrameDecoder, decode_to_coordinator};
use kiln_protocol::message::{Commit, Hello, Mode, Part, Role, RootOptions};
use kiln_protocol::schema::{FieldDescription, FieldKind, TypeDescription};
use kiln_protocol::{
    Epoch, FieldId, GroupId, ObjectId, RequestId, RootId, Secret, ToCoordinator, ToNode, Token, Version, Write,
    encode_to_coordinator, encode_to_node,
};
use std::cell::{LazyCell, RefCell};
use std::time::Duration;

const EPOCH: Epoch = Epoch::from_bits(3);
const BATCH: u64 = 1000;

struct Bench {
    engine: Engine,
    effects: Vec<Effect>,
    objects: Vec<(ObjectId, Token, Version)>,
    next: usize,
}

fn session(number: u64) -> SessionId {
    SessionId::from_bits(number)
}

fn scalar(bits: u64) -> Bytes {
    let mut out = Vec::new();
    Write::Scalar { field: FieldId::from_bits(0), bits }.encode(&mut out);
    out.into()
}

impl Bench {
    fn new(objects: u64, holders: u64) -> Self {
        let mut bench = Self {
            engine: Engine::new(Settings::new(EPOCH, "memory", "bench")),
            effects: Vec::new(),
            objects: Vec::new(),
            next: 0,
        };
        for number in 1..=holders {
            bench.attach(session(number));
        }
        for number in 0..objects {
            for holder in 1..=holders {
                bench.send(
                    session(holder),
                    ToCoordinator::Fetch {
                        request: RequestId::from_bits(number),
                        root: RootId::from_bits(1),
                        key: format!("session-{number:012}").into_bytes().into(),
                        create: Some(scalar(0)),
                    },
                );
                let fetched = bench.effects.drain(..).find_map(|effect| match effect {
                    Effect::Send { message: ToNode::Fetched { record, grants, .. }, .. } if holder == 1 => {
                        Some((record.object, grants[0].1, Version::default()))
                    }
                    Effect::Send { .. } | Effect::Append { .. } | Effect::Close { .. } => None,
                });
                bench.objects.extend(fetched);
            }
        }
        bench
    }

    fn attach(&mut self, session: SessionId) {
        let hello = Hello::new("bench".to_owned(), Role::Node);
        let secret = Secret::from_bytes([0; 16]);
        let event = Event::Attached { session, hello, secret };
        self.engine.handle(Duration::ZERO, event, &mut self.effects);
        let field = FieldDescription {
            name: "visits".to_owned(),
            kind: FieldKind::Scalar,
            structure: "u64".to_owned(),
            group: String::new(),
        };
        self.send(
            session,
            ToCoordinator::OpenRoot {
                request: RequestId::from_bits(0),
                name: "sessions".to_owned(),
                key: "string".to_owned(),
                type_description: TypeDescription { name: "Session".to_owned(), fields: vec![field] },
                options: RootOptions::default(),
            },
        );
    }

    fn send(&mut self, session: SessionId, message: ToCoordinator) {
        self.engine.handle(Duration::ZERO, Event::Message { session, message }, &mut self.effects);
    }

    /// One-field commits, round the objects.
    fn commits(&mut self) -> Vec<ToCoordinator> {
        let commits = (0..BATCH).map(|bits| {
            self.next = (self.next + 1) % self.objects.len();
            let (object, token, version) = &mut self.objects[self.next];
            *version = version.next_in(EPOCH);
            let part = Part {
                object: *object,
                group: GroupId::DEFAULT,
                token: *token,
                version: *version,
                writes: scalar(bits),
            };
            ToCoordinator::Commit(Commit { everywhere: false, durable: false, parts: [part].into_iter().collect() })
        });
        commits.collect()
    }
}

fn commits(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("commits");
    group.throughput(Throughput::Elements(BATCH));
    for (name, objects, holders) in
        [("500 objects", 500, 1), ("500 objects, two holders", 500, 2), ("1 M objects", 1 << 20, 1)]
    {
        let bench = LazyCell::new(|| RefCell::new(Bench::new(objects, holders)));
        group.bench_function(name, |bencher| {
            bencher.iter_batched(
                || bench.borrow_mut().commits(),
                |commits| {
                    let mut bench = bench.borrow_mut();
                    let Bench { engine, effects, .. } = &mut *bench;
                    for message in commits {
                        let event = Event::Message { session: session(1), message };
                        engine.handle(Duration::ZERO, event, effects);
                    }
                    engine.flush(effects);
                    assert_eq!(engine.totals().commits_refused, 0);
                    effects.clear();
                },
                BatchSize::PerIteration,
            );
        });
    }
    let bench = LazyCell::new(|| RefCell::new(Bench::new(500, 1)));
    group.bench_function("500 objects, with decoding and encoding", |bencher| {
        bencher.iter_batched(
            || {
                let mut bytes = Vec::new();
                for message in bench.borrow_mut().commits() {
                    encode_to_coordinator(&mut bytes, EPOCH, &message);
                }
                bytes
            },
            |bytes| through_the_wire(&mut bench.borrow_mut(), &bytes),
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

fn through_the_wire(bench: &mut Bench, bytes: &[u8]) -> Vec<u8> {
    let mut decoder = FrameDecoder::default();
    decoder.push(bytes);
    while let Ok(Some(frame)) = decoder.next_frame() {
        if let Ok(message) = decode_to_coordinator(EPOCH, &frame) {
            bench.send(session(1), message);
        }
    }
    bench.engine.flush(&mut bench.effects);
    let mut out = Vec::new();
    for effect in bench.effects.drain(..) {
        if let Effect::Send { message, .. } = effect {
            encode_to_node(&mut out, EPOCH, &message);
        }
    }
    out
}

/// A turn: one node asks, the other is recalled and gives back, the first has the lock.
fn hand_offs(criterion: &mut Criterion) {
    let mut bench = Bench::new(1, 2);
    let object = bench.objects[0].0;
    let mut token = bench.objects[0].1;
    let mut holder = 1;
    let mut group = criterion.benchmark_group("locks");
    group.throughput(Throughput::Elements(1));
    group.bench_function("hand-off", |bencher| {
        bencher.iter(|| {
            let other = 3 - holder;
            bench.send(
                session(other),
                ToCoordinator::Acquire {
                    request: RequestId::from_bits(1),
                    object,
                    group: GroupId::DEFAULT,
                    mode: Mode::Write,
                    want_record: false,
                },
            );
            bench.send(
                session(holder),
                ToCoordinator::Release { object, group: GroupId::DEFAULT, token, keep_read: false },
            );
            for effect in bench.effects.drain(..) {
                if let Effect::Send { message: ToNode::Grant { token: given, .. }, .. } = effect {
                    token = given;
                }
            }
            holder = other;
        });
    });
    group.finish();
}

criterion_group!(benches, commits, hand_offs);
criterion_main!(benches);
