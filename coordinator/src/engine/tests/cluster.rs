//! A coordinator and its nodes, all in one step at a time: what scenarios and random operations are told in.

use super::super::{Effect, Engine, Entry, Event, LogSeq, LogTime, Restore, SessionId, Settings};
use super::copy::Slots;
pub(super) use super::peer::Peer;
use super::speech::say;
use bytes::Bytes;
use kiln_protocol::message::{Commit, Hello, Mode, Part, Role, RootOptions};
use kiln_protocol::schema::{FieldDescription, FieldKind, TypeDescription};
use kiln_protocol::{
    CommitSeq, Epoch, FieldId, GroupId, ObjectId, RequestId, RootId, Secret, ToCoordinator, ToNode, Token, Version,
    Write,
};
use std::collections::BTreeMap;
use std::time::Duration;

pub(super) const VISITS: FieldId = FieldId::from_bits(0);
pub(super) const THEME: FieldId = FieldId::from_bits(1);
pub(super) const CART: FieldId = FieldId::from_bits(2);
pub(super) const CLICKS: FieldId = FieldId::from_bits(3);
pub(super) const MAIN: GroupId = GroupId::DEFAULT;
pub(super) const CART_GROUP: GroupId = GroupId::from_bits(1);
pub(super) const SESSIONS: RootId = RootId::from_bits(1);
pub(super) const NAMED_LOCKS: RootId = RootId::from_bits(2);
pub(super) const EPOCH: Epoch = Epoch::from_bits(7);

pub(super) const SECRET: Secret = Secret::from_bytes([1; 16]);

/// A coordinator and its nodes.
#[derive(Debug)]
pub(super) struct Cluster {
    pub(super) engine: Engine,
    pub(super) now: Duration,
    pub(super) peers: BTreeMap<String, Peer>,
    pub(super) log: Vec<(LogTime, Entry)>,
    /// Of that log.
    pub(super) first_entry: LogSeq,
    /// Who was said to have joined or left, to whomever.
    pub(super) members: Vec<(String, bool)>,
    pub(super) names: BTreeMap<ObjectId, String>,
    pub(super) last_session: SessionId,
    last_request: RequestId,
}

pub(super) fn session_type() -> TypeDescription {
    let field = |name: &str, kind, structure: &str, group: &str| FieldDescription {
        name: name.to_owned(),
        kind,
        structure: structure.to_owned(),
        group: group.to_owned(),
    };
    TypeDescription {
        name: "Session".to_owned(),
        fields: vec![
            field("visits", FieldKind::Scalar, "u64", ""),
            field("theme", FieldKind::Block, "string", ""),
            field("cart", FieldKind::Map, "map<string, string>", "cart"),
            field("clicks", FieldKind::Counter, "counter", ""),
        ],
    }
}

pub(super) fn writes(writes: &[Write<'_>]) -> Bytes {
    let mut out = Vec::new();
    for write in writes {
        write.encode(&mut out);
    }
    out.into()
}

pub(super) fn visits(bits: u64) -> Bytes {
    writes(&[Write::Scalar { field: VISITS, bits }])
}

pub(super) fn theme(bytes: &str) -> Bytes {
    writes(&[Write::Block { field: THEME, bytes: bytes.as_bytes() }])
}

pub(super) fn put(key: &str, value: &str) -> Bytes {
    let (key, value) = (key.as_bytes(), value.as_bytes());
    writes(&[Write::MapPut { field: CART, key, value }])
}

pub(super) fn clicks(amount: i64) -> Bytes {
    writes(&[Write::Add { field: CLICKS, amount }])
}

pub(super) fn version(number: u64) -> Version {
    Version::new(EPOCH, number).unwrap()
}

impl Cluster {
    pub(super) fn new() -> Self {
        Self::with(Settings::new(EPOCH, "memory", "test"))
    }

    pub(super) fn with(settings: Settings) -> Self {
        Self::around(Engine::new(settings), LogSeq::from_bits(1))
    }

    /// The coordinator's next life; its nodes are not there yet.
    pub(super) fn restored(state: Restore, settings: Settings) -> Self {
        let first_entry = state.last().next();
        Self::around(state.engine(settings).unwrap(), first_entry)
    }

    fn around(engine: Engine, first_entry: LogSeq) -> Self {
        Self {
            engine,
            first_entry,
            now: Duration::ZERO,
            peers: BTreeMap::new(),
            log: Vec::new(),
            names: BTreeMap::new(),
            last_session: SessionId::from_bits(0),
            last_request: RequestId::from_bits(0),
            members: Vec::new(),
        }
    }

    /// A cluster whose nodes have opened the root of sessions and that of named locks, and heard the answers.
    pub(super) fn of(names: &[&str]) -> Self {
        let mut cluster = Self::new();
        cluster.join(names);
        cluster
    }

    /// The same with a log, all of which is safe.
    pub(super) fn logged(names: &[&str]) -> Self {
        let mut cluster = Self::with(Settings { durable: true, ..Settings::new(EPOCH, "log", "test") });
        cluster.join(names);
        cluster
    }

    pub(super) fn join(&mut self, names: &[&str]) {
        for name in names {
            self.attach(name, Role::Node);
            self.open_roots(name);
            self.sync();
            self.sent_to(name);
        }
    }

    /// The last entry of the log.
    pub(super) fn last_entry(&self) -> LogSeq {
        LogSeq::from_bits(self.first_entry.to_bits() + self.log.len() as u64 - 1)
    }

    /// All that was logged is safe.
    pub(super) fn sync(&mut self) {
        if self.engine.settings.durable {
            self.event(Event::Logged { seq: self.last_entry() });
        }
    }

    pub(super) fn attach(&mut self, name: &str, role: Role) {
        let hello = Hello::new(name.to_owned(), role);
        self.hello(name, hello);
    }

    pub(super) fn hello(&mut self, name: &str, hello: Hello) {
        self.last_session = self.last_session.next();
        let session = self.last_session;
        let peer = Peer::new(session, hello.role);
        self.peers.insert(name.to_owned(), peer);
        let secret = SECRET;
        self.event(Event::Attached { session, hello, secret });
    }

    pub(super) fn open_roots(&mut self, name: &str) {
        self.open(name, "sessions", session_type(), false);
        self.open(name, "locks", session_type(), true);
    }

    pub(super) fn open(&mut self, name: &str, root: &str, type_description: TypeDescription, ephemeral: bool) {
        self.open_with(name, root, type_description, RootOptions { ephemeral, ..RootOptions::default() });
    }

    pub(super) fn open_with(
        &mut self,
        name: &str,
        root: &str,
        type_description: TypeDescription,
        options: RootOptions,
    ) {
        let request = self.request();
        let message = ToCoordinator::OpenRoot {
            request,
            name: root.to_owned(),
            key: "string".to_owned(),
            type_description,
            options,
        };
        self.send(name, message);
    }

    pub(super) fn detach(&mut self, name: &str) {
        let session = self.peer(name).session;
        self.peers.remove(name);
        self.event(Event::Message { session, message: ToCoordinator::Bye });
        self.event(Event::Detached { session });
    }

    pub(super) fn request(&mut self) -> RequestId {
        self.last_request = self.last_request.next();
        self.last_request
    }

    pub(super) const fn last_request(&self) -> RequestId {
        self.last_request
    }

    pub(super) fn peer(&mut self, name: &str) -> &mut Peer {
        self.peers.get_mut(name).unwrap()
    }

    /// One message, and the end of its batch.
    pub(super) fn send(&mut self, name: &str, message: ToCoordinator) {
        self.batch(name, vec![message]);
    }

    /// Several messages that the coordinator takes in one batch.
    pub(super) fn batch(&mut self, name: &str, messages: Vec<ToCoordinator>) {
        let mut effects = Vec::new();
        for message in messages {
            let peer = self.peer(name);
            if let ToCoordinator::Commit(commit) = &message {
                peer.sent = peer.sent.next();
                peer.commits.push_back((peer.sent, commit.clone()));
            }
            let session = peer.session;
            self.engine.handle(self.now, Event::Message { session, message }, &mut effects);
        }
        self.carry_out(effects);
    }

    pub(super) fn event(&mut self, event: Event) {
        let mut effects = Vec::new();
        self.engine.handle(self.now, event, &mut effects);
        self.carry_out(effects);
    }

    fn carry_out(&mut self, mut effects: Vec<Effect>) {
        self.engine.flush(&mut effects);
        for effect in effects {
            match effect {
                Effect::Append { seq, time, entry } => {
                    assert_eq!(seq.to_bits(), self.first_entry.to_bits() + self.log.len() as u64);
                    self.log.push((time, entry));
                }
                // Told apart from the rest, so that scenarios need not repeat who is there.
                Effect::Send { message: ToNode::Member { name, joined, .. }, .. } => {
                    self.members.push((name, joined));
                }
                Effect::Send { session, message } => {
                    if let Some(peer) = self.peers.values_mut().find(|peer| peer.session == session) {
                        assert!(peer.closed.is_none(), "a message after the end: {message:?}");
                        peer.hear(&message);
                        peer.inbox.push_back(message);
                    }
                }
                Effect::Close { session, failure } => {
                    if let Some(peer) = self.peers.values_mut().find(|peer| peer.session == session) {
                        peer.closed = Some(failure);
                        peer.copies.clear();
                        peer.grants.clear();
                    }
                }
            }
        }
        super::invariants::check(self);
    }

    /// What a node was sent since it was last asked.
    pub(super) fn heard(&mut self, name: &str) -> Vec<ToNode> {
        self.peer(name).inbox.drain(..).collect()
    }

    /// The same in a few words.
    pub(super) fn sent_to(&mut self, name: &str) -> Vec<String> {
        let heard = self.heard(name);
        let names = &self.names;
        let object = |id: ObjectId| names.get(&id).cloned().unwrap_or_else(|| format!("object {id}"));
        heard.iter().map(|message| say(message, &object)).collect()
    }

    /// The commits of an attached node that the coordinator has acknowledged.
    pub(super) fn acked(&self, name: &str) -> CommitSeq {
        self.peers[name].acked
    }

    // What nodes do.

    pub(super) fn fetch(&mut self, name: &str, root: RootId, key: &str, create: Option<Bytes>) {
        let request = self.request();
        let key = Bytes::copy_from_slice(key.as_bytes());
        let message = ToCoordinator::Fetch { request, root, key, create };
        self.send(name, message);
    }

    /// Makes or faults in an object, and calls it by its key from now on.
    pub(super) fn get_or_create(&mut self, name: &str, key: &str) -> ObjectId {
        self.get_or_create_in(name, SESSIONS, key)
    }

    pub(super) fn get_or_create_in(&mut self, name: &str, root: RootId, key: &str) -> ObjectId {
        self.fetch(name, root, key, Some(visits(0)));
        self.sync();
        match self.heard(name).pop() {
            Some(ToNode::Fetched { record, .. }) => {
                self.names.insert(record.object, key.to_owned());
                record.object
            }
            other => panic!("{other:?}"),
        }
    }

    /// An object that exists, that `maker` made and forgot: nobody holds it or its locks.
    pub(super) fn lone(&mut self, maker: &str, key: &str) -> ObjectId {
        let object = self.get_or_create(maker, key);
        self.forget(maker, object);
        object
    }

    pub(super) fn call(&mut self, object: ObjectId, name: &str) {
        self.names.insert(object, name.to_owned());
    }

    pub(super) fn forget(&mut self, name: &str, object: ObjectId) {
        let last = self.last_request;
        let peer = self.peer(name);
        peer.forgot.insert(object, last);
        peer.copies.remove(&object);
        let given = peer.grants.extract_if(.., |(of, _), _| *of == object).map(|(_, (_, token))| token);
        peer.released.extend(given);
        self.send(name, ToCoordinator::Forget { object });
    }

    pub(super) fn acquire(&mut self, name: &str, object: ObjectId, group: GroupId, mode: Mode) -> RequestId {
        let request = self.request();
        let message = ToCoordinator::Acquire { request, object, group, mode, want_record: false };
        self.send(name, message);
        request
    }

    pub(super) fn write_lock(&mut self, name: &str, object: ObjectId) -> RequestId {
        self.acquire(name, object, MAIN, Mode::Write)
    }

    pub(super) fn read_lock(&mut self, name: &str, object: ObjectId) -> RequestId {
        self.acquire(name, object, MAIN, Mode::Read)
    }

    /// Gives back the grant that the node has.
    pub(super) fn release(&mut self, name: &str, object: ObjectId, group: GroupId, keep_read: bool) {
        let (_, token) = self.peer(name).grants[&(object, group)];
        self.release_token(name, object, group, token, keep_read);
    }

    pub(super) fn release_token(
        &mut self,
        name: &str,
        object: ObjectId,
        group: GroupId,
        token: Token,
        keep_read: bool,
    ) {
        self.peer(name).released.insert(token);
        let grants = &mut self.peer(name).grants;
        if let Some(grant) = grants.get_mut(&(object, group)).filter(|(_, held)| *held == token) {
            if keep_read {
                grant.0 = Mode::Read;
            } else {
                grants.remove(&(object, group));
            }
        }
        let message = ToCoordinator::Release { object, group, token, keep_read };
        self.send(name, message);
    }

    pub(super) fn withdraw(&mut self, name: &str, request: RequestId, object: ObjectId) {
        let group = MAIN;
        self.send(name, ToCoordinator::Withdraw { request, object, group });
    }

    /// A part under the grant that the node has, of the version that follows the node's.
    pub(super) fn part(&self, name: &str, object: ObjectId, group: GroupId, writes: Bytes) -> Part {
        let peer = &self.peers[name];
        let token = peer.grants.get(&(object, group)).map_or_else(Token::default, |(_, token)| *token);
        let pending = peer.commits.iter().flat_map(|(_, commit)| &commit.parts);
        let pending = pending.filter(|part| (part.object, part.group) == (object, group)).count() as u64;
        let held = peer.copies.get(&object).map_or(0, |copy| copy.version(group).number());
        Part { object, group, token, version: version(held + pending + 1), writes }
    }

    pub(super) fn commit_parts(&mut self, name: &str, everywhere: bool, parts: Vec<Part>) {
        let parts = parts.into();
        self.send(name, ToCoordinator::Commit(Commit { everywhere, durable: false, parts }));
    }

    pub(super) fn commit(&mut self, name: &str, object: ObjectId, group: GroupId, writes: Bytes) {
        let part = self.part(name, object, group, writes);
        self.commit_parts(name, false, vec![part]);
    }

    /// Also what goes on when that is safe.
    pub(super) fn sync_all(&mut self) {
        while self.engine.settings.durable && self.engine.logged < self.last_entry() {
            self.sync();
        }
    }

    /// A durable commit to one group of each of these objects.
    pub(super) fn commit_durable(&mut self, name: &str, objects: &[ObjectId], group: GroupId, writes: &Bytes) {
        let parts = objects.iter().map(|object| self.part(name, *object, group, writes.clone())).collect();
        self.send(name, ToCoordinator::Commit(Commit { everywhere: false, durable: true, parts }));
    }

    pub(super) fn commit_everywhere(&mut self, name: &str, object: ObjectId, group: GroupId, writes: Bytes) {
        let part = self.part(name, object, group, writes);
        self.commit_parts(name, true, vec![part]);
    }

    /// What the coordinator has of an object.
    pub(super) fn slots(&self, object: ObjectId) -> Option<Slots> {
        Some(Slots::of(&self.engine.state.objects.get(object)?.writes()))
    }

    pub(super) fn insert(&mut self, name: &str, key: &str, writes: Bytes) {
        let request = self.request();
        let message =
            ToCoordinator::Insert { request, root: SESSIONS, key: Bytes::copy_from_slice(key.as_bytes()), writes };
        self.send(name, message);
    }

    pub(super) fn remove(&mut self, name: &str, key: &str, everywhere: bool) {
        let request = self.request();
        let message =
            ToCoordinator::Remove { request, root: SESSIONS, key: Bytes::copy_from_slice(key.as_bytes()), everywhere };
        self.send(name, message);
    }

    pub(super) fn rename(&mut self, name: &str, from: &str, to: &str) {
        let request = self.request();
        let message = ToCoordinator::Rename {
            request,
            root: SESSIONS,
            from: Bytes::copy_from_slice(from.as_bytes()),
            to: Bytes::copy_from_slice(to.as_bytes()),
        };
        self.send(name, message);
    }
}
