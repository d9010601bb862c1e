//! XFS as far as a directory needs it: superblock, inodes, extents, directory blocks, and the log.
//!
//! Written from the description of the on-disk format ("XFS Algorithms & Data Structures", the part about version 5). Every block is checked
//! before it is believed: magic number, checksum, whose it is and where it belongs. Nothing that a volume says makes this panic.

pub(crate) mod directory;
pub(crate) mod error;
pub(crate) mod fields;
pub(crate) mod inode;
pub(crate) mod log;
pub(crate) mod object;
pub(crate) mod volume;
