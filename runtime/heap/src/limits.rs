//! Every limit of the heap. The unit is the last word of the name.

/// The arena of one heap: offsets are 32-bit numbers of 16-byte units.
pub const ARENA_BYTES_MAX: usize = 64 << 30;
/// The smallest arena worth mapping.
pub const ARENA_BYTES_MIN: usize = 64 << 10;
/// The arena when nothing else is asked for.
pub const ARENA_BYTES_DEFAULT: usize = 256 << 20;
/// Slots of one shape.
pub const SLOTS_MAX: usize = 65_000;
/// Lock groups of one shape: an index is one byte.
pub const GROUPS_MAX: usize = 256;
/// The key of one entry of a map slot.
pub const ENTRY_KEY_BYTES_MAX: usize = 1 << 10;
/// How deep an archive may nest: its check refuses this many levels and more.
pub const ARCHIVE_DEPTH_MAX: usize = 64;
