//! How long a start takes with many objects: from a snapshot, and from the log.

use bytes::Bytes;
use kiln_coordinator::engine::{Entry, LogSeq, LogTime, Restore, Settings};
use kiln_coordinator::store::{Directory, DurableLog, Log, LogId, LogOptions, Medium, SyncPolicy};
use kiln_protocol::message::RootOptions;
use kiln_protocol::schema::{FieldDescription, FieldKind, RegisteredField};
use kiln_protocol::{Epoch, FieldId, GroupId, ObjectId, Partition, RootId, TypeId, Write};
use std::sync::Arc;
use std::time::Instant;

const OBJECTS: u64 = 1_000_000;
const BLOB_BYTES: usize = 1000;

struct Writer {
    log: DurableLog,
    last: u64,
}

impl Writer {
    fn append(&mut self, entry: Entry) {
        self.last += 1;
        self.log.append(LogSeq::from_bits(self.last), LogTime::from_bits(self.last), entry);
        if self.last.is_multiple_of(256) {
            self.log.submit();
        }
    }
}

fn fill(writer: &mut Writer) {
    let (id, root) = (TypeId::default(), RootId::from_bits(1));
    let field = RegisteredField {
        id: FieldId::from_bits(0),
        group: GroupId::DEFAULT,
        description: FieldDescription {
            name: "data".into(),
            kind: FieldKind::Block,
            structure: "bytes".into(),
            group: String::new(),
        },
    };
    let epoch = Epoch::from_bits(1);
    writer.append(Entry::Started { epoch, history: epoch, skipped: 0 });
    writer.append(Entry::TypeAdded { by: None, id, name: "Blob".into() });
    writer.append(Entry::FieldsAdded { by: None, id, fields: vec![field] });
    let (name, key) = ("blobs".to_owned(), "string".to_owned());
    writer.append(Entry::RootAdded { by: None, root, name, key, type_id: id, options: RootOptions::default() });
    let mut writes = Vec::new();
    Write::Block { field: FieldId::from_bits(0), bytes: &[0x5a; BLOB_BYTES] }.encode(&mut writes);
    let writes = Bytes::from(writes);
    for number in 1..=OBJECTS {
        let key = Bytes::from(format!("blob-{number:011}"));
        let object = ObjectId::new(number, Partition::of("blobs", &key));
        writer.append(Entry::Created { by: None, object, root, key, writes: writes.clone() });
    }
    writer.log.submit();
}

#[expect(clippy::print_stdout, reason = "a benchmark says what it measured")]
fn open(medium: &Arc<dyn Medium>, what: &str) -> (Restore, Writer) {
    let (started, cpu) = (now(), cpu_ms());
    let mut restore = Restore::new();
    let options = LogOptions { sync: SyncPolicy::Never, ..LogOptions::default() };
    let id = LogId::from_bytes([7; 16]);
    let (log, found) = DurableLog::open(Arc::clone(medium), id, &options, &mut restore).expect("a log that opens");
    let (took, cpu) = (started.elapsed(), cpu_ms() - cpu);
    let (objects, log_mb) = (restore.objects(), found.bytes >> 20);
    println!("{what}: {took:?}, {cpu} ms of them on a CPU, for {objects} objects, {log_mb} MB of log");
    (restore, Writer { log, last: found.last.to_bits() })
}

/// What this thread has run: on a busy machine it waits for a CPU most of the time.
fn cpu_ms() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    text.split_whitespace().next().and_then(|ran| ran.parse::<u64>().ok()).unwrap_or_default() / 1_000_000
}

#[expect(clippy::disallowed_methods, reason = "a benchmark reads the clock")]
fn now() -> Instant {
    Instant::now()
}

#[expect(clippy::print_stdout, reason = "a benchmark says what it measured")]
fn main() {
    let directory = tempfile::tempdir_in(".").expect("a directory");
    let medium: Arc<dyn Medium> = Arc::new(Directory::open(&directory.path().join("log")).expect("a directory"));
    let (_, mut writer) = open(&medium, "nothing");
    let started = now();
    fill(&mut writer);
    drop(writer);
    println!("written in {:?}", started.elapsed());
    let (restore, writer) = open(&medium, "from the log");
    let mut engine = restore.engine(Settings::new(Epoch::from_bits(2), "disk", "bench")).expect("a later epoch");
    let started = now();
    let seq = engine.begin_snapshot();
    let mut snapshot = writer.log.snapshots().begin(seq, engine.time()).expect("a snapshot");
    let mut pieces = Vec::new();
    let mut more = true;
    while more {
        more = engine.snapshot(128 << 10, &mut pieces);
        pieces.drain(..).for_each(|piece| snapshot.push(&piece).expect("it is written"));
    }
    snapshot.finish().expect("it is in place");
    println!("snapshot in {:?}", started.elapsed());
    drop((writer, engine));
    drop(open(&medium, "from the snapshot"));
}
