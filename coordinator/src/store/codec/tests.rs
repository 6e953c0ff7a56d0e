use super::*;
use crate::engine::{Cut, LogSeq, QueuedEvent};
use kiln_protocol::message::{Change, ChangedSlot, Part, SlotChange};
use kiln_protocol::{CommitSeq, EventId, Token};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

fn bytes() -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..200).prop_map(Bytes::from)
}

fn stamp() -> impl Strategy<Value = u64> {
    prop_oneof![any::<u64>(), (0..3_u64, 0..300_u64).prop_map(|(epoch, number)| epoch << 44 | number)]
}

fn part() -> impl Strategy<Value = Part> {
    let group = prop_oneof![Just(0), Just(u8::MAX), any::<u8>()].prop_map(GroupId::from_bits);
    (any::<u64>(), group, stamp(), stamp(), bytes()).prop_map(|(object, group, token, version, writes)| Part {
        object: ObjectId::from_bits(object),
        group,
        token: if group == GroupId::COMMUTATIVE { Token::default() } else { Token::from_bits(token) },
        version: Version::from_bits(version),
        writes,
    })
}

fn field() -> impl Strategy<Value = RegisteredField> {
    let kind =
        prop_oneof![Just(FieldKind::Scalar), Just(FieldKind::Block), Just(FieldKind::Map), Just(FieldKind::Counter)];
    (any::<u16>(), any::<u8>(), ".{0,20}", kind, ".{0,200}", ".{0,10}").prop_map(
        |(id, group, name, kind, structure, group_name)| RegisteredField {
            id: FieldId::from_bits(id),
            group: GroupId::from_bits(group),
            description: FieldDescription { name, kind, structure, group: group_name },
        },
    )
}

fn role() -> impl Strategy<Value = Role> {
    prop_oneof![Just(Role::Node), Just(Role::Observer)]
}

fn incarnation() -> impl Strategy<Value = Incarnation> {
    (1..u64::MAX).prop_map(Incarnation::from_bits)
}

fn epoch() -> impl Strategy<Value = Epoch> {
    any::<u32>().prop_map(Epoch::from_bits)
}

fn commit() -> impl Strategy<Value = CommitSeq> {
    any::<u64>().prop_map(CommitSeq::from_bits)
}

fn object() -> impl Strategy<Value = ObjectId> {
    any::<u64>().prop_map(ObjectId::from_bits)
}

fn root() -> impl Strategy<Value = RootId> {
    any::<u32>().prop_map(RootId::from_bits)
}

fn time() -> impl Strategy<Value = LogTime> {
    any::<u64>().prop_map(LogTime::from_bits)
}

fn queue() -> impl Strategy<Value = QueueId> {
    any::<u32>().prop_map(QueueId::from_bits)
}

fn event_id() -> impl Strategy<Value = EventId> {
    any::<u64>().prop_map(EventId::from_bits)
}

fn queued_event() -> impl Strategy<Value = QueuedEvent> {
    let fields = vec(any::<u16>().prop_map(FieldId::from_bits), 0..4);
    let how = prop_oneof![Just(SlotChange::Added), Just(SlotChange::Changed), Just(SlotChange::Removed)];
    let slot = (any::<u16>(), option::of(bytes()), how).prop_map(|(field, entry, change)| ChangedSlot {
        field: FieldId::from_bits(field),
        entry,
        change,
    });
    let change = prop_oneof![
        Just(Change::Created),
        Just(Change::Removed),
        Just(Change::Expired),
        Just(Change::Gap),
        any::<u64>().prop_map(|events| Change::Missed { events }),
        bytes().prop_map(|to| Change::Renamed { to }),
        (any::<u8>(), stamp(), fields, vec(slot, 0..4)).prop_map(|(group, version, fields, slots)| Change::Updated {
            group: GroupId::from_bits(group),
            version: Version::from_bits(version),
            fields,
            slots,
            writes: None,
        }),
    ];
    (event_id(), object(), bytes(), option::of((incarnation(), ".{0,9}")), change)
        .prop_map(|(id, object, key, writer, change)| QueuedEvent { id, object, key, writer, change })
}

fn options() -> impl Strategy<Value = RootOptions> {
    let ms = || prop_oneof![Just(0), any::<u64>()];
    (any::<bool>(), ms(), ms(), ".{0,10}", any::<bool>()).prop_map(|options| {
        let (ephemeral, idle_timeout_ms, absolute_timeout_ms, locking, hashed_keys) = options;
        RootOptions { ephemeral, idle_timeout_ms, absolute_timeout_ms, locking, hashed_keys }
    })
}

fn type_id() -> impl Strategy<Value = TypeId> {
    any::<u32>().prop_map(TypeId::from_bits)
}

fn entry() -> impl Strategy<Value = Entry> {
    let by = || option::of(incarnation());
    prop_oneof![
        (epoch(), epoch(), any::<u64>()).prop_map(|(epoch, history, skipped)| Entry::Started {
            epoch,
            history,
            skipped
        }),
        (incarnation(), ".{0,30}", role(), any::<[u8; 32]>()).prop_map(|(incarnation, name, role, secret)| {
            Entry::Attached { incarnation, name, role, secret: SecretHash::from_bytes(secret) }
        }),
        (incarnation(), commit()).prop_map(|(incarnation, applied)| Entry::Gone { incarnation, applied }),
        (by(), type_id(), ".{0,30}").prop_map(|(by, id, name)| Entry::TypeAdded { by, id, name }),
        (by(), type_id(), vec(field(), 0..5)).prop_map(|(by, id, fields)| Entry::FieldsAdded { by, id, fields }),
        (by(), root(), ".{0,30}", ".{0,90}", type_id(), options()).prop_map(
            |(by, root, name, key, type_id, options)| Entry::RootAdded { by, root, name, key, type_id, options }
        ),
        (by(), object(), root(), bytes(), bytes()).prop_map(|(by, object, root, key, writes)| Entry::Created {
            by,
            object,
            root,
            key,
            writes
        }),
        (incarnation(), commit(), vec(part(), 0..4)).prop_map(|(writer, seq, parts)| Entry::Committed {
            writer,
            seq,
            parts: parts.into()
        }),
        (incarnation(), commit(), commit()).prop_map(|(writer, first, last)| Entry::Refused { writer, first, last }),
        (by(), object()).prop_map(|(by, object)| Entry::Removed { by, object }),
        (by(), object(), bytes()).prop_map(|(by, object, key)| Entry::Renamed { by, object, key }),
        object().prop_map(|object| Entry::Expired { object }),
        (by(), queue(), root(), ".{0,30}").prop_map(|(by, queue, root, name)| Entry::QueueAdded {
            by,
            queue,
            root,
            name
        }),
        (by(), queue()).prop_map(|(by, queue)| Entry::QueueRemoved { by, queue }),
        (queue(), vec(event_id(), 0..5)).prop_map(|(queue, events)| Entry::Heard { queue, events }),
        vec(object(), 0..5).prop_map(|objects| Entry::Used { objects }),
    ]
}

fn piece() -> impl Strategy<Value = Piece> {
    let versions = vec((any::<u8>(), stamp()), 0..6).prop_map(|versions| {
        versions.into_iter().map(|(group, bits)| (GroupId::from_bits(group), Version::from_bits(bits))).collect()
    });
    prop_oneof![
        (any::<[u64; 4]>(), epoch(), epoch()).prop_map(
            |([seq, time, last_incarnation, last_object], epoch, history)| {
                Piece::Start(Cut {
                    seq: LogSeq::from_bits(seq),
                    time: LogTime::from_bits(time),
                    epoch,
                    history,
                    last_incarnation: Incarnation::from_bits(last_incarnation),
                    last_object,
                })
            }
        ),
        (type_id(), ".{0,30}", vec(field(), 0..5)).prop_map(|(id, name, fields)| Piece::Type { id, name, fields }),
        (root(), ".{0,30}", ".{0,90}", type_id(), options())
            .prop_map(|(root, name, key, type_id, options)| Piece::Root { root, name, key, type_id, options }),
        (
            (incarnation(), ".{0,30}", role(), any::<[u8; 32]>(), any::<bool>()),
            (commit(), vec(commit(), 0..5), commit())
        )
            .prop_map(|((incarnation, name, role, secret, living), (applied, refused, forgotten))| {
                Piece::Life {
                    incarnation,
                    name,
                    role,
                    secret: SecretHash::from_bytes(secret),
                    living,
                    applied,
                    refused,
                    forgotten,
                }
            }),
        (queue(), root(), ".{0,30}", event_id()).prop_map(|(queue, root, name, last)| Piece::Queue {
            queue,
            root,
            name,
            last
        }),
        (queue(), queued_event()).prop_map(|(queue, event)| Piece::Event { queue, event: event.into() }),
        (object(), root(), bytes(), versions, option::of((time(), time())), bytes()).prop_map(
            |(object, root, key, versions, times, writes)| Piece::Object { object, root, key, versions, times, writes }
        ),
    ]
}

proptest! {
    #[test]
    fn an_entry_comes_back_and_no_part_of_it_is_one(entry in entry()) {
        let mut out = Vec::new();
        encode(&mut out, &entry);
        let out = Bytes::from(out);
        prop_assert_eq!(decode(&out), Ok(entry));
        for length in 0..out.len() {
            prop_assert!(decode(&out.slice(..length)).is_err(), "the first {} of {} bytes", length, out.len());
        }
        let longer = Bytes::from([&out[..], &[0]].concat());
        prop_assert_eq!(decode(&longer), Err(BadBytes::Trailing { bytes: 1 }));
    }

    #[test]
    fn a_piece_comes_back_and_no_part_of_it_is_one(piece in piece()) {
        let mut out = Vec::new();
        encode_piece(&mut out, &piece);
        let out = Bytes::from(out);
        prop_assert_eq!(decode_piece(&out), Ok(piece));
        for length in 0..out.len() {
            prop_assert!(decode_piece(&out.slice(..length)).is_err(), "the first {} of {} bytes", length, out.len());
        }
    }

    #[test]
    fn noise_is_an_entry_or_an_error(kind in 0..14_u8, noise in vec(any::<u8>(), 0..300)) {
        let bytes: Bytes = std::iter::once(kind).chain(noise).collect::<Vec<_>>().into();
        if let Ok(entry) = decode(&bytes) {
            let mut out = Vec::new();
            encode(&mut out, &entry);
            prop_assert_eq!(decode(&out.into()), Ok(entry));
        }
        if let Ok(piece) = decode_piece(&bytes) {
            let mut out = Vec::new();
            encode_piece(&mut out, &piece);
            prop_assert_eq!(decode_piece(&out.into()), Ok(piece));
        }
    }

    #[test]
    fn entries_of_a_record_come_back_with_their_times(entries in vec((0..1000_u64, entry()), 0..6), from in any::<u32>()) {
        let first = LogTime::from_bits(from.into());
        let mut body = Vec::new();
        let mut made = Vec::new();
        for (after, entry) in entries {
            let time = LogTime::from_bits(first.to_bits() + after);
            put_entry(&mut body, first, time, &entry);
            made.push((time, entry));
        }
        let mut body = Bytes::from(body);
        let mut read = Vec::new();
        while let Some(entry) = take_entry(&mut body, first).unwrap() {
            read.push(entry);
        }
        prop_assert_eq!(read, made);
    }
}
