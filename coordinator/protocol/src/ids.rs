//! Ids. Each is a newtype without public field and without arithmetic but `next`.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Bits of a packed version or token that hold the number; the epoch sits above them.
const NUMBER_BITS: u32 = 44;
const NUMBER_MASK: u64 = (1 << NUMBER_BITS) - 1;
const PARTITION_BITS: u32 = 12;

/// Declares an id: its documentation, its visibility, its name and the integer that it is.
#[macro_export]
macro_rules! id {
    ($(#[$meta:meta])* $visibility:vis $name:ident($int:ty)) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
        $visibility struct $name($int);

        impl $name {
            /// The id with these bits.
            #[must_use]
            $visibility const fn from_bits(bits: $int) -> Self {
                Self(bits)
            }

            /// The bits of this id.
            #[must_use]
            $visibility const fn to_bits(self) -> $int {
                self.0
            }

            /// The id that follows this one.
            ///
            /// # Panics
            /// When the ids of this kind are used up.
            #[must_use]
            $visibility const fn next(self) -> Self {
                Self(self.0.checked_add(1).expect("ids used up"))
            }
        }

        impl ::std::fmt::Display for $name {
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                ::std::fmt::Display::fmt(&self.0, f)
            }
        }
    };
}

/// An id that peers tell each other.
macro_rules! told_id {
    ($(#[$meta:meta])* $name:ident($int:ty)) => {
        id!(
            $(#[$meta])*
            #[derive(Serialize, Deserialize)]
            #[serde(transparent)]
            pub $name($int)
        );
    };
}

told_id!(
    /// A root: a named, keyed collection of objects.
    RootId(u32)
);
told_id!(
    /// A registered type.
    TypeId(u32)
);
told_id!(
    /// The number that the cluster's schema registry gave to a field name of a type.
    FieldId(u16)
);
told_id!(
    /// One life of the coordinator's ordering.
    Epoch(u32)
);
told_id!(
    /// One life of a node: given by the coordinator at each attach, never reused.
    Incarnation(u64)
);
told_id!(
    /// The place of a commit among the commits of its incarnation, from 1.
    CommitSeq(u64)
);
told_id!(
    /// A question of one node, unique among its incarnation's.
    RequestId(u64)
);
told_id!(
    /// A watch of one node, chosen by the node.
    WatchId(u32)
);
told_id!(
    /// A listener of one node, chosen by the node.
    ListenerId(u32)
);
told_id!(
    /// The place of an event among all those of its listener group, from 1.
    EventId(u64)
);
told_id!(
    /// A transaction of one node, chosen by the node: what owns locks in the wait-for graph.
    OwnerId(u64)
);
told_id!(
    /// A look of the coordinator at a cycle of waits. The default one is none.
    CheckId(u64)
);
told_id!(
    /// A barrier that the coordinator put into a node's stream.
    BarrierId(u64)
);

impl Epoch {
    /// The last epoch that fits beside a number in a version or token.
    pub const MAX: Self = Self((1 << (u64::BITS - NUMBER_BITS)) - 1);
}

/// A lock group of a type: fields that share a lock. Group 0 is the default one.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(transparent)]
pub struct GroupId(u8);

impl GroupId {
    /// Ungrouped fields.
    pub const DEFAULT: Self = Self(0);
    /// The commutative slots of an object. No lock guards them; only the coordinator numbers their versions.
    pub const COMMUTATIVE: Self = Self(u8::MAX);

    /// The group with this number.
    #[must_use]
    pub const fn from_bits(bits: u8) -> Self {
        Self(bits)
    }

    /// The number of this group.
    #[must_use]
    pub const fn to_bits(self) -> u8 {
        self.0
    }
}

impl fmt::Display for GroupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One of the 4,096 partitions that keys are hashed into.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Partition(u16);

impl Partition {
    /// How many partitions there are.
    pub const COUNT: u16 = 1 << PARTITION_BITS;

    /// The partition of a key, or of the placement tag that a root sets in its stead.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "twelve bits are kept")]
    pub fn of(root: &str, key: &[u8]) -> Self {
        let mut hash = crc32fast::Hasher::new();
        hash.update(root.as_bytes());
        hash.update(&[0]);
        hash.update(key);
        Self((hash.finalize() & u32::from(Self::COUNT - 1)) as u16)
    }

    /// The number of this partition, below [`Partition::COUNT`].
    #[must_use]
    pub const fn to_bits(self) -> u16 {
        self.0
    }
}

/// One object of the cluster. Carries its partition in the low 12 bits, so that ids of a young cluster stay short on
/// the wire. Never reused.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ObjectId(u64);

impl ObjectId {
    /// The id of the `sequence`-th object, in `partition`.
    ///
    /// # Panics
    /// When the sequence does not fit into 52 bits.
    #[must_use]
    pub const fn new(sequence: u64, partition: Partition) -> Self {
        assert!(sequence >> (u64::BITS - PARTITION_BITS) == 0, "object ids used up");
        Self((sequence << PARTITION_BITS) | partition.0 as u64)
    }

    /// The id with these bits.
    #[must_use]
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// The bits of this id.
    #[must_use]
    pub const fn to_bits(self) -> u64 {
        self.0
    }

    /// The partition of this object.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "twelve bits are kept")]
    pub const fn partition(self) -> Partition {
        Partition((self.0 & (Partition::COUNT as u64 - 1)) as u16)
    }

    /// The place of this object in the order of creation.
    #[must_use]
    pub const fn sequence(self) -> u64 {
        self.0 >> PARTITION_BITS
    }
}

impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.sequence(), self.partition().0)
    }
}

macro_rules! stamped {
    ($(#[$meta:meta])* $name:ident) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(u64);

        impl $name {
            /// Packs an epoch (20 bits) and a number (44 bits); `None` when either does not fit.
            #[must_use]
            pub const fn new(epoch: Epoch, number: u64) -> Option<Self> {
                if epoch.0 > Epoch::MAX.0 || number > NUMBER_MASK {
                    return None;
                }
                Some(Self(((epoch.0 as u64) << NUMBER_BITS) | number))
            }

            /// The value with these bits.
            #[must_use]
            pub const fn from_bits(bits: u64) -> Self {
                Self(bits)
            }

            /// The bits of this value; they order as the value does.
            #[must_use]
            pub const fn to_bits(self) -> u64 {
                self.0
            }

            /// The epoch this was given in.
            #[must_use]
            pub const fn epoch(self) -> Epoch {
                Epoch((self.0 >> NUMBER_BITS) as u32)
            }

            /// The number, which counts on across epochs.
            #[must_use]
            pub const fn number(self) -> u64 {
                self.0 & NUMBER_MASK
            }

            /// The value that follows this one, given in `epoch`.
            ///
            /// # Panics
            /// When numbers or epochs are used up.
            #[must_use]
            pub const fn next_in(self, epoch: Epoch) -> Self {
                Self::new(epoch, self.number() + 1).expect("versions used up")
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}:{}", self.epoch(), self.number())
            }
        }
    };
}

stamped!(
    /// How many commits an (object, group) has seen, and the epoch of the last one. `Version::default()` is the
    /// version of a group that was never committed to.
    Version
);
stamped!(
    /// The fencing token of a grant. Only grows.
    Token
);

/// What a node must show to resume, resend or re-assert in the name of its incarnation.
#[derive(Clone, Copy, Eq, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret([u8; 16]);

impl Secret {
    /// The secret with these random bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// Its bytes, for whoever hashes them.
    #[must_use]
    pub const fn to_bytes(self) -> [u8; 16] {
        self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn object_id_keeps_partition_and_sequence() {
        let partition = Partition::of("sessions", b"s-1");
        let id = ObjectId::new(77, partition);
        assert_eq!((id.sequence(), id.partition()), (77, partition));
    }

    #[test]
    fn versions_order_by_epoch_then_number() {
        let old = Version::new(Epoch::from_bits(1), 9).unwrap();
        let new = old.next_in(Epoch::from_bits(2));
        assert_eq!(new.number(), 10);
        assert!(new > old);
        assert!(Version::new(Epoch::from_bits(1 << 20), 0).is_none());
        assert!(Version::new(Epoch::from_bits(0), 1 << 44).is_none());
    }

    #[test]
    fn a_secret_is_never_printed() {
        assert_eq!(format!("{:?}", Secret::from_bytes([7; 16])), "Secret(..)");
    }
}
