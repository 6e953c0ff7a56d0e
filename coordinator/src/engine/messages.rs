//! What a node says, and which part of the engine it is for.

use super::nodes::NodeSlot;
use super::{Engine, SessionId};
use kiln_protocol::ToCoordinator;
use kiln_protocol::message::Role;

impl Engine {
    pub(super) fn message(&mut self, session: SessionId, message: ToCoordinator) {
        // A closed session's last messages may still arrive: this is where they end.
        let Some(node) = self.nodes.of(session) else { return };
        let Some(message) = self.stall(node, message) else { return };
        self.said(node, message);
    }

    /// Carries out what a node said.
    #[expect(clippy::wildcard_enum_match_arm, reason = "the other half is matched in `node_message`")]
    pub(super) fn said(&mut self, node: NodeSlot, message: ToCoordinator) {
        let observer = self.nodes.get(node).is_some_and(|node| node.role == Role::Observer);
        match message {
            ToCoordinator::Commit(commit) => self.commit(node, commit, observer),
            ToCoordinator::Hello(_) => {
                if let Some(session) = self.nodes.session(node) {
                    self.violation(session, "a second Hello");
                }
            }
            ToCoordinator::Bye => self.bye(node),
            ToCoordinator::Barrier { barrier } => self.barrier(node, barrier),
            ToCoordinator::Status { request } => self.status(node, request),
            ToCoordinator::Roots { request } => self.list_roots(node, request),
            ToCoordinator::Locks { request } => self.list_locks(node, request),
            ToCoordinator::Peek { request, root, key } => self.peek(node, request, root, &key),
            ToCoordinator::Contains { request, root, key } => self.contains(node, request, root, &key),
            ToCoordinator::Keys { request, root, after, limit } => {
                self.list_keys(node, request, root, after.as_deref(), limit);
            }
            ToCoordinator::Watch { request, watch, target, with_writes } => {
                self.watch(node, request, watch, target, with_writes);
            }
            ToCoordinator::Unwatch { watch } => self.unwatch(node, watch),
            ToCoordinator::Fate { request, incarnation, seq } => self.tell_fate(node, request, incarnation, seq),
            message if observer => self.refuse_observer(node, &message),
            message => self.node_message(node, message),
        }
    }

    /// What only nodes may send.
    #[expect(clippy::wildcard_enum_match_arm, reason = "the other half is matched in `said`")]
    fn node_message(&mut self, node: NodeSlot, message: ToCoordinator) {
        match message {
            ToCoordinator::Acquire { request, object, group, mode, want_record } => {
                self.acquire(node, request, object, group, mode, want_record);
            }
            ToCoordinator::Release { object, group, token, keep_read } => {
                self.release(node, object, group, token, keep_read);
            }
            ToCoordinator::Withdraw { request, object, group } => self.withdraw(node, request, object, group),
            ToCoordinator::OwnerWaits(wait) => self.owner_waits(node, wait),
            ToCoordinator::OwnerGoesOn { owner, wait } => self.owner_goes_on(node, owner, wait),
            ToCoordinator::Forget { object } => self.forget(node, object),
            ToCoordinator::Refetch { request, object } => self.refetch(node, request, object),
            ToCoordinator::Fetch { request, root, key, create } => self.fetch(node, request, root, key, create),
            ToCoordinator::OpenRoot { request, name, key, type_description, options } => {
                self.open_root(node, request, &name, &key, &type_description, &options);
            }
            ToCoordinator::Insert { request, root, key, writes } => self.insert(node, request, root, key, writes),
            ToCoordinator::Remove { request, root, key, everywhere } => {
                self.remove(node, request, root, key, everywhere);
            }
            ToCoordinator::Rename { request, root, from, to } => self.rename(node, request, root, from, to),
            ToCoordinator::GiveUp { request } => self.give_up(node, request),
            ToCoordinator::Heartbeat { number } => self.heartbeat(node, number),
            ToCoordinator::Reassert { object, group, token, mode } => self.reassert(node, object, group, token, mode),
            ToCoordinator::Revalidate { object, key, versions } => self.revalidate(node, object, &key, &versions),
            ToCoordinator::Resynced => self.resynced(node),
            ToCoordinator::Listen { request, listener, root, group } => {
                self.listen(node, request, listener, root, group);
            }
            ToCoordinator::Unlisten { listener } => self.unlisten(node, listener),
            ToCoordinator::Heard { listener, event } => self.heard(node, listener, event),
            ToCoordinator::EndListeners { request, root, group } => self.end_listeners(node, request, root, &group),
            ToCoordinator::Used { objects } => self.used(node, &objects),
            ToCoordinator::AwaitEverywhere { seq } => self.await_everywhere(node, seq),
            _ => {}
        }
    }
}
