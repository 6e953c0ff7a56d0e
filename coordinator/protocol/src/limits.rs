//! Every limit on what a peer can send or make us keep. The unit is the last word of the name.

/// One frame: a message and its length.
pub const FRAME_BYTES_MAX: usize = 16 << 20;
/// The slot writes of one commit, and all slots of one record.
pub const RECORD_BYTES_MAX: usize = 15 << 20;
/// The key of an object.
pub const KEY_BYTES_MAX: usize = 1 << 10;
/// The key of one entry of a map field.
pub const ENTRY_KEY_BYTES_MAX: usize = 1 << 10;
/// A name: of a node, root, type, field or group.
pub const NAME_BYTES_MAX: usize = 255;
/// The structural description of a field.
pub const STRUCTURE_BYTES_MAX: usize = 16 << 10;
/// How deep a structural description may nest.
pub const STRUCTURE_DEPTH_MAX: usize = 64;
/// Fields of one type, over all versions of the program.
pub const FIELDS_MAX: usize = 1024;
/// Lock groups of one type, the default one included.
pub const GROUPS_MAX: usize = 64;
/// Parts of one commit.
pub const PARTS_MAX: usize = 4096;
/// Roots of a cluster.
pub const ROOTS_MAX: usize = 4096;
/// Types of a cluster.
pub const TYPES_MAX: usize = 4096;
/// Keys in one page.
pub const KEYS_PAGE_MAX: usize = 4096;
/// Key bytes in one page.
pub const KEYS_PAGE_BYTES_MAX: usize = 1 << 20;
/// Locks in one answer to `Locks`.
pub const LOCKS_PAGE_MAX: usize = 4096;
/// Watches of one node.
pub const WATCHES_MAX: usize = 4096;
/// Objects in one `Used`: a node says once in a heartbeat which it has used.
pub const USES_MAX: usize = 1 << 16;
/// Slots that an event names one by one.
pub const CHANGED_SLOTS_MAX: usize = 256;
/// Listeners of one node.
pub const LISTENERS_MAX: usize = 1024;
/// Listener groups of a cluster.
pub const LISTENER_GROUPS_MAX: usize = 256;
/// Requests of one node that the coordinator has not answered, lock requests included.
pub const REQUESTS_MAX: usize = 1 << 18;
/// Waits of one node's transactions that the coordinator keeps at once. More of them have only their deadlines.
pub const OWNER_WAITS_MAX: usize = 1 << 14;
/// Locks that one transaction holds.
pub const OWNER_LOCKS_MAX: usize = 4096;
/// Transactions in one cycle of waits. A longer one ends at its deadlines.
pub const CYCLE_WAITS_MAX: usize = 64;
/// Nodes attached at once.
pub const NODES_MAX: usize = 4096;
/// Bytes that wait to be sent to one node before it is cut off.
pub const OUTPUT_BYTES_MAX: usize = 256 << 20;
/// How deep an archive may nest: its check refuses this many levels and more.
pub const ARCHIVE_DEPTH_MAX: usize = 64;
/// Values in one rendered field: items of vectors, fields of structs and so on.
pub const RENDERED_VALUES_MAX: usize = 1 << 20;
