//! Values outside of any object: for what is reported, not for what is served.

use crate::form::{EntryForm, Form};
use crate::value::{Slot, Value};
use kiln_heap::{Heap, Object, Options, Shape, SlotKind, SlotWrite};

/// What a heap needs beside its values.
const HEAP_BYTES: usize = 64 << 10;

/// The value of a field whose slot has these bits; `None` when fields of this type are no scalars.
#[must_use]
pub fn load_scalar<T: Value>(bits: u64) -> Option<T> {
    load(T::slot_kind(), SlotWrite::Scalar { slot: 0, bits }, 0)
}

/// The value of a field whose block has these bytes; `None` when they are none of this type.
#[must_use]
pub fn load_block<T: Value>(bytes: &[u8]) -> Option<T> {
    load(T::slot_kind(), SlotWrite::Block { slot: 0, bytes }, bytes.len())
}

/// The value of a map's entry; `None` when the bytes are none of this type.
#[must_use]
pub fn load_entry<T: Value>(bytes: &[u8]) -> Option<T> {
    let write = SlotWrite::MapPut { slot: 0, key: &[], value: bytes };
    let object = object(<T::Form as EntryForm<T>>::map_kind(), write, bytes.len())?;
    let pinned = object.pin();
    <T::Form as EntryForm<T>>::load_entry(pinned.map(0), &[])
}

fn load<T: Value>(kind: SlotKind, write: SlotWrite<'_>, bytes: usize) -> Option<T> {
    let object = object(kind, write, bytes)?;
    let pinned = object.pin();
    Some(<T::Form as Form<T>>::load(Slot::new(&pinned, 0)))
}

/// An object of one slot in a heap of its own, which checks the bytes.
fn object(kind: SlotKind, write: SlotWrite<'_>, bytes: usize) -> Option<Object> {
    let heap = Heap::new(Options { bytes_max: HEAP_BYTES + 4 * bytes }).ok()?;
    Object::new(&heap, &Shape::new([kind], 0).ok()?, &[write], &[]).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_read_as_what_it_is_or_not_at_all() {
        assert_eq!(load_scalar::<i32>((-7_i64).cast_unsigned()), Some(-7));
        assert_eq!(load_scalar::<String>(7), None);
        assert_eq!(load_block::<String>(b"ada"), Some("ada".to_owned()));
        assert_eq!(load_block::<String>(b"\xff"), None);
        assert_eq!(load_block::<Option<String>>(b"x"), None);
        assert_eq!(load_block::<u64>(&[0; 8]), None);
        assert_eq!(load_entry::<u64>(&7_u64.to_le_bytes()), Some(7));
        assert_eq!(load_entry::<Vec<u8>>(b""), Some(Vec::new()));
        let long = "long ".repeat(1 << 16);
        assert_eq!(load_block::<String>(long.as_bytes()), Some(long));
    }
}
