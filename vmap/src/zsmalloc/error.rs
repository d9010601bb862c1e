//! Why something was refused.

use pageless_fault::NoSuchFrame;

use super::class::MAX_OBJECT;
use super::handle::Handle;
use super::table::NoRecord;

/// Why nothing was stored. The pool is as it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MallocError {
    /// An object has at least one byte.
    #[error("an object of no bytes")]
    Invalid,
    /// Larger than a frame: keep it elsewhere.
    #[error("an object of {size} bytes: at most {MAX_OBJECT} are possible")]
    TooLarge {
        /// Bytes asked for.
        size: usize,
    },
    /// Not enough frames: compact, free something, or ask in a context that may reclaim.
    #[error("{had} of {wanted} frames for a zspage")]
    NoFrame {
        /// How many there were; they have been given back.
        had: u8,
        /// How many it takes.
        wanted: u8,
    },
    /// The heap had no room for the pool's books.
    #[error("no {bytes} bytes of heap for the books of the pool")]
    NoHeap {
        /// Bytes asked for.
        bytes: usize,
    },
    /// All numbers are in use: free something, or use another pool.
    #[error("all {records} numbers for objects or zspages are in use")]
    Full {
        /// How many there are.
        records: u32,
    },
    /// The source handed out a frame that its memory does not have.
    #[error(transparent)]
    NoSuchFrame(#[from] NoSuchFrame),
}

impl From<NoRecord> for MallocError {
    fn from(error: NoRecord) -> Self {
        match error {
            NoRecord::Full { records } => MallocError::Full { records },
            NoRecord::Heap { bytes } => MallocError::NoHeap { bytes },
        }
    }
}

/// Why an object could not be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AccessError {
    /// The handle is another pool's.
    #[error("a handle of pool {theirs}, used on pool {ours}")]
    ForeignHandle {
        /// Whose it is.
        theirs: u32,
        /// Where it was used.
        ours: u32,
    },
    /// The object crosses a boundary and does not fit into the local buffer.
    #[error("an object of {object} bytes, and {local} bytes of room for a copy")]
    LocalTooShort {
        /// Bytes of the object.
        object: usize,
        /// Bytes of room.
        local: usize,
    },
    /// More than was asked for when the object was allocated.
    #[error("{len} bytes from byte {offset} of an object of {object}")]
    OutOfBounds {
        /// From where.
        offset: usize,
        /// How many.
        len: usize,
        /// Bytes of the object.
        object: usize,
    },
    /// The source handed out a frame that its memory does not have.
    #[error(transparent)]
    NoSuchFrame(#[from] NoSuchFrame),
}

/// An object that has not been freed, and its handle.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct NotFreed {
    /// The handle.
    pub handle: Handle,
    /// Why.
    pub why: FreeRefused,
}

/// Why an object was not freed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FreeRefused {
    /// The handle is another pool's: free it there.
    #[error("a handle of pool {theirs}, freed in pool {ours}")]
    ForeignHandle {
        /// Whose it is.
        theirs: u32,
        /// Where it was to be freed.
        ours: u32,
    },
    /// A mapping of it was forgotten, or could not be flushed: its frames can never be used again.
    #[error("a mapping of the object was never taken away")]
    Held,
}
