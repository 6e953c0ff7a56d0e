//! What coordinator and nodes say to each other, and what the coordinator decides: looked at as it is said.

use super::{
    Invariants, s01_one_writer, s02_current_token, s04_sees_all, s05_gapless, s06_same_bytes, s08_applied_once,
    s10_no_resurrection, s11_all_or_nothing, s14_fenced,
};
use crate::process::Process;
use crate::sometimes::Sometimes;
use crate::world::World;
use kiln_coordinator::engine::{Effect, Entry, Event, SessionId};
use kiln_protocol::message::Mode;
use kiln_protocol::{CommitSeq, Failure, Incarnation, ToCoordinator, ToNode};

impl Invariants {
    /// The coordinator is about to be told something.
    pub(crate) fn before(&self, world: &World, event: &Event) {
        self.dead.check_goodbye(world, &self.ledger.borrow());
        self.skew.begin(event);
        self.in_tick.set(matches!(event, Event::Tick));
        match event {
            Event::Message { session, message } => {
                let from = self.ledger.borrow().sessions.get(session).copied();
                if let Some(from) = from {
                    self.says(world, *session, from, message);
                }
            }
            Event::Attached { hello, .. } => {
                let ledger = self.ledger.borrow();
                if hello.resume.is_some_and(|resume| ledger.sessions.values().any(|of| *of == resume.incarnation)) {
                    world.reached(Sometimes::ResumedUnnoticed);
                }
            }
            Event::Detached { session } => drop(self.ledger.borrow_mut().sessions.remove(session)),
            Event::Behind { .. }
            | Event::CaughtUp { .. }
            | Event::Logged { .. }
            | Event::LogFull
            | Event::LogHasRoom
            | Event::Tick
            | Event::Stop => {}
        }
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "the others say nothing of grants")]
    fn says(&self, world: &World, session: SessionId, from: Incarnation, message: &ToCoordinator) {
        let mut grants = self.grants.borrow_mut();
        let note = |reached: bool, what| {
            if reached {
                world.reached(what);
            }
        };
        match message {
            ToCoordinator::Release { object, group, token, keep_read } => {
                let released = grants.release((*object, *group), from, *token, *keep_read);
                note(released && *keep_read, Sometimes::Downgraded);
                if released && !keep_read {
                    self.released.borrow_mut().note(*token);
                }
            }
            ToCoordinator::Forget { object } => {
                grants.retain(|(of, _), grant| of != *object || grant.holder != from);
            }
            ToCoordinator::Reassert { object, group, token, mode } => {
                let kept = grants.reassert((*object, *group), from, session, (*token, *mode));
                note(kept, Sometimes::ReassertionKept);
            }
            ToCoordinator::Resynced => grants.resynced(from, session),
            ToCoordinator::Withdraw { request, object, group } => {
                let own = grants.own((*object, *group), from);
                note(own.is_some_and(|grant| grant.request == *request), Sometimes::GrantMetWithdraw);
            }
            ToCoordinator::Bye => self.dead.says_goodbye(from),
            _ => {}
        }
    }

    /// The coordinator decided or said something.
    pub(crate) fn after(&self, world: &World, effect: &Effect) {
        self.skew.check(effect);
        match effect {
            Effect::Send { session, message } => self.is_told(world, *session, message),
            Effect::Append { entry, .. } => self.decided(world, entry),
            Effect::Close { session, .. } => drop(self.ledger.borrow_mut().sessions.remove(session)),
        }
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "the others are looked at where they arrive")]
    fn is_told(&self, world: &World, session: SessionId, message: &ToNode) {
        if let ToNode::Welcome { incarnation, .. } = message {
            let mut ledger = self.ledger.borrow_mut();
            ledger.sessions.insert(session, *incarnation);
            let before = s10_no_resurrection::Before::now(&ledger);
            self.before.borrow_mut().insert(session, before);
        }
        let Some(to) = self.ledger.borrow().sessions.get(&session).copied() else { return };
        match message {
            ToNode::Grant { request, object, group, mode, token, cached, .. } => {
                s10_no_resurrection::check(&self.ledger.borrow(), *object, "granted");
                if !cached {
                    world.reached(Sometimes::Uncached);
                }
                let mut grants = self.grants.borrow_mut();
                self.tokens.borrow_mut().check(&grants, (*object, *group), to, (*token, *mode));
                grants.give((*object, *group), to, session, (*request, *token, *mode));
                s01_one_writer::check(&grants, (*object, *group));
            }
            ToNode::Fetched { request, record, grants, .. } => {
                // It may have been decided before the removal, and told only now that it is safe. The removal is told next.
                if !world.coordinator.told_late(record.object) {
                    s10_no_resurrection::check(&self.ledger.borrow(), record.object, "fetched");
                }
                for (group, token) in grants {
                    let lock = (record.object, *group);
                    let mut known = self.grants.borrow_mut();
                    self.tokens.borrow_mut().check(&known, lock, to, (*token, Mode::Write));
                    known.give(lock, to, session, (*request, *token, Mode::Write));
                    s01_one_writer::check(&known, lock);
                }
            }
            ToNode::Recall { object, group, .. } => {
                self.grants.borrow_mut().recall((*object, *group), to, world.now());
            }
            ToNode::GrantLost { .. } => world.reached(Sometimes::ReassertionRefused),
            ToNode::Deadlock { cycle, .. } => {
                self.owners.check(world.now(), cycle);
                world.reached(Sometimes::Deadlock);
                if cycle.iter().any(|edge| edge.incarnation != cycle[0].incarnation) {
                    world.reached(Sometimes::DeadlockAcross);
                }
            }
            ToNode::CheckWait { .. } => world.reached(Sometimes::CycleChecked),
            ToNode::CommitRefused { failure: Failure::Fenced { .. }, .. } => world.reached(Sometimes::FencedCommit),
            ToNode::Outdated { .. } => world.reached(Sometimes::Outdated),
            _ => {}
        }
    }

    fn decided(&self, world: &World, entry: &Entry) {
        let mut ledger = self.ledger.borrow_mut();
        let mut of = None;
        match entry {
            Entry::Committed { writer, seq, parts } => {
                s14_fenced::check(&ledger, *writer);
                s08_applied_once::check(&ledger, *writer, *seq);
                for part in parts {
                    s10_no_resurrection::check(&ledger, part.object, "committed to");
                    // What the log has lost is sent again, perhaps after its lock was given back: no lock changes hands
                    // before all of that has come.
                    let is_sent_again = part.token.epoch() < world.coordinator.epoch() && self.is_unsettled(world);
                    if !is_sent_again {
                        s02_current_token::check(&self.grants.borrow(), *writer, part);
                        self.released.borrow().check(part);
                    }
                    s05_gapless::check(&ledger, part);
                }
                of = Some((*writer, *seq));
            }
            Entry::Refused { writer, first, .. } => {
                s08_applied_once::check(&ledger, *writer, *first);
            }
            Entry::Gone { incarnation, .. } => {
                self.grants.borrow_mut().retain(|_, grant| grant.holder != *incarnation);
                ledger.sessions.retain(|_, of| of != incarnation);
                if self.in_tick.get() {
                    world.reached(Sometimes::LapsedAtCoordinator);
                }
            }
            Entry::Removed { object, .. } | Entry::Expired { object } => {
                s10_no_resurrection::removed(&self.grants.borrow(), *object);
                self.grants.borrow_mut().retain(|(of, _), _| of != *object);
            }
            Entry::Created { object, .. } => s10_no_resurrection::created(&ledger, *object),
            Entry::Started { .. }
            | Entry::Attached { .. }
            | Entry::TypeAdded { .. }
            | Entry::FieldsAdded { .. }
            | Entry::RootAdded { .. }
            | Entry::Used { .. }
            | Entry::QueueAdded { .. }
            | Entry::QueueRemoved { .. }
            | Entry::Heard { .. }
            | Entry::Renamed { .. } => {}
        }
        let steps = ledger.append(world.now(), entry);
        if let Some((writer, seq)) = of {
            let made = ledger.made.get(&(writer, seq)).cloned();
            let made = made.unwrap_or_else(|| unreachable!("S8: commit {seq} of {writer} was applied, and never made"));
            s04_sees_all::check_commit(&made, &steps);
            s11_all_or_nothing::check_commit(&made, &steps);
            Self::is_decided(world, writer, seq);
        }
    }

    fn is_decided(world: &World, writer: Incarnation, seq: CommitSeq) {
        for process in world.processes().iter().filter(|process| process.incarnation() == writer) {
            process.undecided.borrow_mut().remove(&seq);
        }
    }

    /// A node is about to take a message in.
    #[expect(clippy::wildcard_enum_match_arm, reason = "the others are checked where they are said")]
    pub(crate) fn heard(&self, world: &World, process: &Process, message: &ToNode) {
        if let ToNode::CommitRefused { failure: Failure::Destroyed { .. } | Failure::Forgotten, .. } = message {
            process.figures.refusals.set(process.figures.refusals.get() + 1);
        }
        // What a coordinator has said that died since may be lost.
        if !self.is_of_this_epoch(process) || process.node().link.epoch() != world.coordinator.epoch() {
            return;
        }
        match message {
            ToNode::Delta(delta) => {
                for part in &delta.parts {
                    s06_same_bytes::check_delta(&self.ledger.borrow(), part);
                }
            }
            ToNode::Grant { .. } => self.given.borrow_mut().note(process, message),
            // What it had published is undone now.
            ToNode::CommitRefused { seq, .. } => process.was_refused(*seq),
            ToNode::Recall { object, .. } => {
                let undecided = process.undecided.borrow();
                if undecided.values().flatten().any(|(of, _, _)| of == object) {
                    world.reached(Sometimes::RecallMetCommit);
                }
            }
            _ => {}
        }
    }

    /// A node has named all that it has, and was told what of that is not so.
    pub(crate) fn is_back(&self, process: &Process, session: SessionId) {
        if let Some(before) = self.before.borrow().get(&session) {
            before.check_back(&self.ledger.borrow(), process);
        }
    }
}
