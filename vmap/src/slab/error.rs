//! Why there is no cache, no object, or why it does not go back.

use pageless_fault::VirtAddr;
use pageless_pfn::ByteLen;

use crate::compound::AllocPagesError;

/// Why there is no cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SlabConfigError {
    /// Objects of no bytes.
    #[error("objects of no bytes")]
    Empty,
    /// Not a power of two, or more than a page.
    #[error("objects aligned to {align}: it is a power of two, of a page at most")]
    Align {
        /// What was asked for.
        align: ByteLen,
    },
    /// Not one object fits into a slab: take a larger order.
    #[error("an object takes {object}, a slab has {slab}")]
    Large {
        /// What one takes, with all that lies behind it.
        object: ByteLen,
        /// Bytes of a slab.
        slab: ByteLen,
    },
    /// More objects in a slab than can be numbered: take a smaller order.
    #[error("{objects} objects in a slab: at most {} can be numbered", u32::MAX - 1)]
    Many {
        /// How many there would be.
        objects: u64,
    },
}

/// Why there is no object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SlabAllocError {
    /// All objects are out, and there is no memory for another slab.
    #[error("no memory for another slab")]
    Slab(#[source] AllocPagesError),
    /// A constructed object cannot be zeroed as well.
    #[error("objects that have a constructor cannot be asked for with zeroes in them")]
    ZeroedConstructed,
}

/// Why an address does not go back, or what was found when it did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SlabFreeError {
    /// It is not where an object of this cache begins. Nothing has changed.
    #[error("{address} is not where an object of this cache begins")]
    NotAnObject {
        /// What was given.
        address: VirtAddr,
    },
    /// The object is free. Nothing has changed.
    #[error("the object at {address} is free already")]
    AlreadyFree {
        /// What was given.
        address: VirtAddr,
    },
    /// Somebody wrote beyond its end. It has been taken back all the same; what was written is gone.
    #[error("the object at {address} was written beyond its end")]
    Overrun {
        /// What was given.
        address: VirtAddr,
    },
}
