use super::*;
use kiln_protocol::limits::USES_MAX;

/// A node whose objects expire, and that has said so far what it has used.
fn timed() -> Alone {
    let mut alone = Alone::attached_with(&RootOptions { idle_timeout_ms: 1000, ..RootOptions::default() });
    alone.node.handle(ToNode::Resynced).unwrap();
    alone.node.heartbeat(1);
    alone.node.handle(ToNode::Heartbeat { number: 1 }).unwrap();
    alone.hear();
    alone
}

fn used(said: &ToCoordinator) -> Option<Vec<ObjectId>> {
    match said {
        ToCoordinator::Used { objects } => Some(objects.clone()),
        _ => None,
    }
}

#[test]
fn what_was_used_while_the_connection_was_lost_is_said_before_all_else_is_known_again() {
    let mut alone = timed();
    alone.page(1).note_use();
    alone.node.heartbeat(10);
    assert!(alone.hear().iter().filter_map(used).eq([vec![object(1)]]));
    // Its answer never comes.
    alone.node.disconnected();
    alone.page(2).note_use();
    alone.node.heartbeat(20);
    assert_eq!(alone.hear().iter().find_map(used), None, "there is nobody to say it to");
    let applied = alone.node.outbox.last();
    assert!(alone.node.resume().is_some() && alone.node.resumed(EPOCH, applied, 30));
    let said = alone.hear();
    let at = said.iter().position(|said| used(said) == Some(vec![object(1), object(2)])).unwrap();
    assert!(at < said.iter().position(|said| matches!(said, ToCoordinator::Resynced)).unwrap());
    alone.node.handle(ToNode::Resynced).unwrap();
    alone.node.heartbeat(40);
    assert_eq!(alone.hear().iter().find_map(used), None, "it was said just now");
}

#[test]
fn all_that_was_used_is_said_at_once() {
    let mut alone = timed();
    let count = USES_MAX * 2 + 1;
    let uses = &alone.node.uses;
    for number in 0..count {
        crate::uses::Noted::new(Arc::clone(uses)).note(|| object(number as u64));
    }
    alone.node.heartbeat(10);
    let lengths: Vec<_> = alone.hear().iter().filter_map(used).map(|objects| objects.len()).collect();
    assert_eq!(lengths, [USES_MAX, USES_MAX, 1]);
}
