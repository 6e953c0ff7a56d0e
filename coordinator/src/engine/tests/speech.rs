//! Messages in a few words, so that scenarios read like a record of what was said.

use super::cluster::{CART, CLICKS, THEME, VISITS};
use super::copy::Slots;
use bytes::Bytes;
use kiln_protocol::message::{Change, DeltaPart, Record};
use kiln_protocol::{FieldId, ToNode, Writes};

/// One message. `object` names objects.
pub(super) fn say(message: &ToNode, object: &dyn Fn(kiln_protocol::ObjectId) -> String) -> String {
    match message {
        ToNode::Welcome { incarnation, .. } => format!("welcome {incarnation}"),
        ToNode::Refused { failure } => format!("refused: {failure}"),
        ToNode::RootOpened { root, .. } => format!("root {root}"),
        ToNode::Fetched { record, created, grants, .. } => {
            let what = if *created { "created" } else { "fetched" };
            let grants: Vec<_> = grants.iter().map(|(group, token)| format!(" {group}#{}", token.number())).collect();
            format!("{what} {}{}", say_record(record, object), grants.concat())
        }
        ToNode::Absent { .. } => "absent".to_owned(),
        ToNode::Durable { seq } => format!("durable {seq}"),
        ToNode::Done { yes, .. } => if *yes { "yes" } else { "no" }.to_owned(),
        ToNode::Keys { keys, more, .. } => {
            let keys: Vec<_> = keys.iter().map(text).collect();
            format!("keys {}{}", keys.join(" "), if *more { " .." } else { "" })
        }
        ToNode::Failed { failure, .. } => format!("failed: {failure}"),
        ToNode::Grant { object: id, group, mode, token, cached, record, .. } => {
            let cached = if *cached { "" } else { " once" };
            let record = record.as_ref().map(|record| format!(" with {}", say_record(record, object)));
            let number = token.number();
            format!("grant {}/{group} {mode}#{number}{cached}{}", object(*id), record.unwrap_or_default())
        }
        ToNode::LockFailed { object: id, group, failure, .. } => format!("no lock {}/{group}: {failure}", object(*id)),
        ToNode::Recall { object: id, group, token, wanted } => {
            format!("recall {}/{group}#{} for {wanted}", object(*id), token.number())
        }
        ToNode::Ack { applied } => format!("ack {applied}"),
        ToNode::CommitRefused { seq, failure } => format!("refused {seq}: {failure}"),
        ToNode::EverywhereReached { seq } => format!("everywhere {seq}"),
        ToNode::Destroyed { object: id } => format!("destroyed {}", object(*id)),
        ToNode::Renamed { object: id, key } => format!("renamed {} {}", object(*id), text(key)),
        ToNode::Event { watch, key, writer, change, .. } => {
            let writer = writer.as_ref().map_or("the coordinator", |(_, name)| name);
            format!("event {watch}: {} {} by {writer}", text(key), say_change(change))
        }
        ToNode::Barrier { barrier } => format!("barrier {barrier}"),
        ToNode::Stopping => "stopping".to_owned(),
        ToNode::Goodbye => "goodbye".to_owned(),
        ToNode::Status { .. } => "status".to_owned(),
        ToNode::Roots { roots, .. } => format!("{} roots", roots.len()),
        ToNode::SnapshotGoesOn { .. } | ToNode::SnapshotTaken { .. } => unreachable!("the engine takes no snapshots"),
        ToNode::Locks { locks, left_out, .. } => format!("{} locks and {left_out}", locks.len()),
        ToNode::Heartbeat { number } => format!("heartbeat {number}"),
        ToNode::GrantLost { object: id, group, token } => {
            format!("lost {}/{group}#{}", object(*id), token.number())
        }
        ToNode::Outdated { object: id } => format!("outdated {}", object(*id)),
        ToNode::Resynced => "resynced".to_owned(),
        ToNode::Fate { fate, .. } => format!("fate {fate:?}"),
        ToNode::Member { name, joined, .. } => format!("{} {name}", if *joined { "joined" } else { "left" }),
        ToNode::CheckWait { object: id, group, wait, .. } => format!("still {wait} for {}/{group}?", object(*id)),
        ToNode::Deadlock { object: id, group, wait, cycle } => {
            let cycle: Vec<_> = cycle.iter().map(|edge| format!("{} {} {}", edge.node, edge.mode, edge.key)).collect();
            format!("deadlock {wait} for {}/{group}: {}", object(*id), cycle.join(", "))
        }
        ToNode::Notice { listener, event, redelivered, key, change, .. } => {
            let again = if *redelivered { " again" } else { "" };
            format!("notice {listener}: {event}{again}: {} {}", text(key), say_change(change))
        }
        ToNode::ListenerEnded { listener } => format!("listener {listener} ended"),
        ToNode::Delta(delta) => {
            let parts: Vec<_> = delta.parts.iter().map(|part| say_part(part, object)).collect();
            format!("delta {}", parts.join(", "))
        }
    }
}

fn text(bytes: &Bytes) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn say_record(record: &Record, object: &dyn Fn(kiln_protocol::ObjectId) -> String) -> String {
    let versions: Vec<_> =
        record.versions.iter().map(|(group, version)| format!(" {group}v{}", version.number())).collect();
    let slots = say_slots(&Slots::of(&record.writes));
    format!("{}{} [{slots}]", object(record.object), versions.concat())
}

fn say_part(part: &DeltaPart, object: &dyn Fn(kiln_protocol::ObjectId) -> String) -> String {
    let fields: Vec<_> = Writes::new(&part.writes).map(|write| name(write.unwrap().field())).collect();
    format!("{}/{}v{} {}", object(part.object), part.group, part.version.number(), fields.join(" "))
}

fn say_change(change: &Change) -> String {
    match change {
        Change::Created => "created".to_owned(),
        Change::Updated { group, version, fields, writes, .. } => {
            let fields: Vec<_> = fields.iter().map(|field| name(*field)).collect();
            let writes = if writes.is_some() { " with writes" } else { "" };
            format!("updated {group}v{} {}{writes}", version.number(), fields.join(" "))
        }
        Change::Removed => "removed".to_owned(),
        Change::Expired => "expired".to_owned(),
        Change::Missed { events } => format!("missed {events}"),
        Change::Renamed { to } => format!("renamed to {}", text(to)),
        Change::Gap => "gap".to_owned(),
    }
}

fn name(field: FieldId) -> String {
    match field {
        VISITS => "visits".to_owned(),
        THEME => "theme".to_owned(),
        CART => "cart".to_owned(),
        CLICKS => "clicks".to_owned(),
        other => format!("field {other}"),
    }
}

fn say_slots(slots: &Slots) -> String {
    let slots = slots.iter().map(|((field, key), value)| {
        let key = key.as_ref().map(|key| format!(".{}", String::from_utf8_lossy(key)));
        let value = match *field {
            VISITS | CLICKS => i64::from_le_bytes(value[..].try_into().unwrap()).to_string(),
            _ => String::from_utf8_lossy(value).into_owned(),
        };
        format!("{}{}={value}", name(*field), key.unwrap_or_default())
    });
    slots.collect::<Vec<_>>().join(" ")
}
