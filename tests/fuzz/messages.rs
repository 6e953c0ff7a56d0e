//! Messages of every encoding: those with one of their own, and some that go as postcard.

use bytes::Bytes;
use kiln_protocol::message::{Commit, Delta, DeltaPart, Hello, Mode, Part, Record, Role};
use kiln_protocol::{
    BarrierId, CommitSeq, Epoch, Failure, FieldId, GroupId, Incarnation, ObjectId, RequestId, RootId, ToCoordinator,
    ToNode, Token, TypeId, Version, Write,
};
use proptest::collection::vec;
use proptest::prelude::*;

fn bytes() -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..40).prop_map(Bytes::from)
}

/// In the connection's epoch or in another one.
fn stamp() -> impl Strategy<Value = u64> {
    (prop_oneof![Just(super::EPOCH), (0..=Epoch::MAX.to_bits()).prop_map(Epoch::from_bits)], 0..1_u64 << 44)
        .prop_map(|(epoch, number)| Token::new(epoch, number).unwrap().to_bits())
}

fn group() -> impl Strategy<Value = GroupId> {
    prop_oneof![Just(GroupId::DEFAULT), Just(GroupId::COMMUTATIVE), any::<u8>().prop_map(GroupId::from_bits)]
}

fn object() -> impl Strategy<Value = ObjectId> {
    any::<u64>().prop_map(ObjectId::from_bits)
}

fn writes() -> impl Strategy<Value = Bytes> {
    let write = (any::<u16>(), any::<u64>(), bytes(), bytes(), 0..7_u8);
    vec(write, 0..5).prop_map(|writes| {
        let mut out = Vec::new();
        for (field, bits, one, two, kind) in &writes {
            let field = FieldId::from_bits(*field);
            let write = match kind {
                0 => Write::Scalar { field, bits: *bits },
                1 => Write::Block { field, bytes: one },
                2 => Write::Unset { field },
                3 => Write::Add { field, amount: bits.cast_signed() },
                4 => Write::MapPut { field, key: one, value: two },
                5 => Write::MapRemove { field, key: one },
                _ => Write::MapClear { field },
            };
            write.encode(&mut out);
        }
        out.into()
    })
}

fn part() -> impl Strategy<Value = Part> {
    (object(), group(), stamp(), stamp(), writes()).prop_map(|(object, group, token, version, writes)| {
        // Adds have neither.
        let [token, version] = if group == GroupId::COMMUTATIVE { [0; 2] } else { [token, version] };
        Part { object, group, token: Token::from_bits(token), version: Version::from_bits(version), writes }
    })
}

fn delta_part() -> impl Strategy<Value = DeltaPart> {
    (object(), group(), stamp(), writes()).prop_map(|(object, group, version, writes)| DeltaPart {
        object,
        group,
        version: Version::from_bits(version),
        writes,
    })
}

pub(super) fn to_coordinator() -> impl Strategy<Value = ToCoordinator> {
    let request = || any::<u64>().prop_map(RequestId::from_bits);
    let mode = prop_oneof![Just(Mode::Read), Just(Mode::Write)];
    prop_oneof![
        4 => (any::<bool>(), any::<bool>(), vec(part(), 0..4))
            .prop_map(|(everywhere, durable, parts)| {
                ToCoordinator::Commit(Commit { everywhere, durable, parts: parts.into() })
            }),
        1 => (any::<u16>(), ".{0,20}")
            .prop_map(|(protocol, name)| ToCoordinator::Hello(Hello { protocol, name, role: Role::Node, resume: None })),
        1 => (request(), any::<u32>(), bytes(), proptest::option::of(writes())).prop_map(|(request, root, key, create)| {
            ToCoordinator::Fetch { request, root: RootId::from_bits(root), key, create }
        }),
        1 => (request(), object(), group(), mode, any::<bool>()).prop_map(|(request, object, group, mode, want_record)| {
            ToCoordinator::Acquire { request, object, group, mode, want_record }
        }),
        1 => (object(), group(), stamp(), any::<bool>()).prop_map(|(object, group, token, keep_read)| {
            ToCoordinator::Release { object, group, token: Token::from_bits(token), keep_read }
        }),
        1 => any::<u64>().prop_map(|barrier| ToCoordinator::Barrier { barrier: BarrierId::from_bits(barrier) }),
        1 => Just(ToCoordinator::Bye),
    ]
}

pub(super) fn to_node() -> impl Strategy<Value = ToNode> {
    let seq = || any::<u64>().prop_map(CommitSeq::from_bits);
    let record = (object(), any::<u32>(), vec((group(), stamp()), 0..4), writes(), seq());
    let record = record.prop_map(|(object, type_id, versions, writes, applied)| Record {
        object,
        type_id: TypeId::from_bits(type_id),
        versions: versions.into_iter().map(|(group, version)| (group, Version::from_bits(version))).collect(),
        writes,
        applied,
    });
    prop_oneof![
        4 => (any::<u64>(), vec(delta_part(), 0..4)).prop_map(|(writer, parts)| {
            ToNode::Delta(Delta { writer: Incarnation::from_bits(writer), parts: parts.into() })
        }),
        2 => seq().prop_map(|applied| ToNode::Ack { applied }),
        1 => seq().prop_map(|seq| ToNode::Durable { seq }),
        1 => (any::<u64>(), record, any::<bool>()).prop_map(|(request, record, created)| {
            ToNode::Fetched { request: RequestId::from_bits(request), record, created, grants: Vec::new() }
        }),
        1 => (seq(), object()).prop_map(|(seq, object)| {
            ToNode::CommitRefused { seq, failure: Failure::Destroyed { object } }
        }),
        1 => (object(), bytes()).prop_map(|(object, key)| ToNode::Renamed { object, key }),
        1 => Just(ToNode::Stopping),
    ]
}
