//! What can be wrong with a volume, and where.

use core::fmt;

use pageless_block::BytePos;
use pageless_pfn::ByteLen;
use thiserror::Error;

/// Where something was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// On the device.
    Device {
        /// What should be there.
        what: &'static str,
        /// Its first byte.
        at: BytePos,
    },
    /// In an inode's record.
    Inode {
        /// Whose.
        inode: u64,
        /// The record's first byte.
        at: BytePos,
    },
    /// In the tree of an inode's extents.
    ExtentTree {
        /// Whose.
        inode: u64,
        /// The tree block's first byte.
        at: BytePos,
    },
    /// In a directory.
    Directory {
        /// Its inode.
        inode: u64,
        /// The directory block's number, in file-system blocks of the directory's own space.
        block: u32,
    },
    /// In the log.
    Log {
        /// Bytes from its start.
        at: u64,
    },
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Device { what, at } => write!(f, "{what} at {at}"),
            Place::Inode { inode, at } => write!(f, "inode {inode} at {at}"),
            Place::ExtentTree { inode, at } => write!(f, "extent tree of inode {inode} at {at}"),
            Place::Directory { inode, block } => {
                write!(f, "block {block:#x} of directory {inode}")
            }
            Place::Log { at } => write!(f, "byte {at:#x} of the log"),
        }
    }
}

/// Why a directory cannot be read. Every number is as it was found.
#[derive(Debug, Error)]
pub(crate) enum XfsError {
    /// The device did not deliver.
    #[error("reading {len} at {at}: {reason}")]
    Read {
        /// Where.
        at: BytePos,
        /// How much.
        len: ByteLen,
        /// What the device said.
        reason: Box<str>,
    },
    /// Something lies past the end of the device: it has been cut off, or the number is wrong.
    #[error("{place}: {len} at {at} reach past the device, which has {capacity}")]
    BeyondDevice {
        /// What names it.
        place: Place,
        /// Where it begins.
        at: BytePos,
        /// How long it is.
        len: ByteLen,
        /// The size of the device.
        capacity: ByteLen,
    },
    /// Something else is there.
    #[error("{place}: magic number {found:#x}, not {expected:#x}")]
    Magic {
        /// Where.
        place: Place,
        /// What should be there.
        expected: u32,
        /// What is.
        found: u32,
    },
    /// Its bytes are not the ones that were written.
    #[error("{place}: checksum {stored:#010x}, and {computed:#010x} of its bytes")]
    Checksum {
        /// Where.
        place: Place,
        /// What is written there.
        stored: u32,
        /// What it should be.
        computed: u32,
    },
    /// A value that makes no sense.
    #[error("{place}: {field} is {value:#x}: {rule}")]
    Value {
        /// Where.
        place: Place,
        /// Which one.
        field: &'static str,
        /// What it is.
        value: u64,
        /// What is wrong with it.
        rule: &'static str,
    },
    /// A structure ends before something in it.
    #[error("{place}: {len} bytes at byte {offset}, of {size}")]
    Outside {
        /// Where.
        place: Place,
        /// Where in it.
        offset: usize,
        /// How many bytes.
        len: usize,
        /// Its size.
        size: usize,
    },
    /// A tree that leads back to itself.
    #[error("{place}: reached twice, from {from:#x} the second time")]
    Cycle {
        /// Where to.
        place: Place,
        /// The block that leads there.
        from: u32,
    },
    /// A directory block of which no or not all blocks are there.
    #[error("{place}: no extent holds its file-system block {missing:#x}")]
    Hole {
        /// The directory block.
        place: Place,
        /// Which of its blocks.
        missing: u64,
    },
    /// The volume is sound, for all that is known, and has something that is not read here.
    #[error("{place}: {field} {value:#x} is not supported: {why}")]
    Unsupported {
        /// Where.
        place: Place,
        /// What it has.
        field: &'static str,
        /// What that says.
        value: u64,
        /// Why not.
        why: &'static str,
    },
    /// A path goes through something that is no directory.
    #[error("inode {inode} is not a directory: mode {mode:#o}")]
    NotADirectory {
        /// Which.
        inode: u64,
        /// Its mode.
        mode: u16,
    },
    /// A name that a directory does not have.
    #[error("directory {inode} has no entry {name:?}")]
    NotFound {
        /// Which directory.
        inode: u64,
        /// The name.
        name: Box<str>,
    },
    /// The frames of a directory block cannot be made one object.
    #[error("{place}: mapping {frames} frames as one object: {reason}")]
    Map {
        /// The block.
        place: Place,
        /// Its frames.
        frames: usize,
        /// What the machine said.
        reason: Box<str>,
    },
}

const _: () = assert!(size_of::<XfsError>() < 128);
