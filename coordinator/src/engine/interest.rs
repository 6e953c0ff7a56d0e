//! Which nodes hold an object: a small set, inline up to seven.

use super::nodes::NodeSlot;

const FEW: usize = 7;

/// A sorted set of nodes, in 16 bytes while it is small.
#[derive(Debug)]
pub(super) enum Interest {
    Few {
        len: u8,
        slots: [NodeSlot; FEW],
    },
    #[expect(clippy::box_collection, reason = "a bare Vec would make every object 16 bytes larger")]
    Many(Box<Vec<NodeSlot>>),
}

impl Default for Interest {
    fn default() -> Self {
        Self::Few { len: 0, slots: [NodeSlot::NONE; FEW] }
    }
}

impl Interest {
    pub(super) fn as_slice(&self) -> &[NodeSlot] {
        match self {
            Self::Few { len, slots } => &slots[..usize::from(*len)],
            Self::Many(slots) => slots,
        }
    }

    /// Adds a node. Returns whether it was not there before.
    pub(super) fn insert(&mut self, node: NodeSlot) -> bool {
        let Err(at) = self.as_slice().binary_search(&node) else {
            return false;
        };
        match self {
            Self::Few { len, slots } if usize::from(*len) < FEW => {
                slots.copy_within(at..usize::from(*len), at + 1);
                slots[at] = node;
                *len += 1;
            }
            Self::Few { slots, .. } => {
                let mut many = slots.to_vec();
                many.insert(at, node);
                *self = Self::Many(Box::new(many));
            }
            Self::Many(slots) => slots.insert(at, node),
        }
        true
    }

    /// Takes nodes out. Returns how many there were.
    pub(super) fn remove_if(&mut self, mut gone: impl FnMut(NodeSlot) -> bool) -> usize {
        let before = self.as_slice().len();
        match self {
            Self::Few { len, slots } => {
                let mut kept = 0;
                for at in 0..before {
                    if !gone(slots[at]) {
                        slots[kept] = slots[at];
                        kept += 1;
                    }
                }
                *len = u8::try_from(kept).unwrap_or_default();
            }
            Self::Many(slots) => {
                slots.retain(|node| !gone(*node));
                if slots.len() <= FEW {
                    let mut few = Self::default();
                    for node in slots.iter() {
                        few.insert(*node);
                    }
                    *self = few;
                }
            }
        }
        before - self.as_slice().len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn interest_is_a_sorted_set(steps in prop::collection::vec((0_u16..20, any::<bool>()), 0..200)) {
            let mut interest = Interest::default();
            let mut model = BTreeSet::new();
            for (node, add) in steps {
                let node = NodeSlot::from_bits(node);
                if add {
                    prop_assert_eq!(interest.insert(node), model.insert(node));
                } else {
                    prop_assert_eq!(interest.remove_if(|other| other == node) == 1, model.remove(&node));
                }
                prop_assert!(interest.as_slice().iter().eq(&model));
            }
        }
    }
}
