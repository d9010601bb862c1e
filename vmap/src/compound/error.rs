//! Why there is no block, or why it is not split.

use core::fmt;

use pageless_fault::{FrameMemory, UnmapError, Vspace, Window};
use pageless_memmap::{GetError, TryGetError};
use pageless_pfn::Pfn;

use super::page::Page;
use crate::area::MapAreaError;
use crate::frames::{AllocError, Order};

/// Why there is no block. Nothing remains of the attempt but what waits for a shootdown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AllocPagesError {
    /// No contiguous memory, and the caller would have nothing else: permit the fallback, or ask for less.
    #[error("no contiguous block")]
    Contiguous(#[source] AllocError),
    /// Not even single frames are left: give something back.
    #[error("{got} of {} single frames", .order.frames().get())]
    Frames {
        /// The order asked for.
        order: Order,
        /// Frames there were.
        got: u64,
        /// Why there is no other.
        #[source]
        source: AllocError,
    },
    /// A descriptor cannot be had.
    #[error("the descriptor of a page")]
    Descriptor(#[source] GetError),
    /// A descriptor cannot be had by somebody who must not wait: ask where one may sleep, or give the memmap a reserve.
    #[error("the descriptor of a page, for somebody who must not wait")]
    DescriptorNow(#[source] TryGetError),
    /// The frames are there, but nothing to see them together through: purge, or unmap something.
    #[error("no mapping for {} frames", .order.frames().get())]
    Mapping {
        /// The order asked for.
        order: Order,
        /// Why.
        #[source]
        source: MapAreaError,
    },
}

/// A block that was not split.
pub struct NotSplit<'p, M, S, W>
where
    M: FrameMemory + 'static,
    S: Vspace + 'static,
    W: Window + 'static,
{
    /// The reference that was given, to the whole block; `None` if the block is lost.
    pub block: Option<Page<'p, M, S, W>>,
    /// Why.
    pub why: SplitError,
}

// Not derived: that would ask `Debug` of the machine.
impl<M, S, W> fmt::Debug for NotSplit<'_, M, S, W>
where
    M: FrameMemory + 'static,
    S: Vspace + 'static,
    W: Window + 'static,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NotSplit")
            .field("block", &self.block)
            .field("why", &self.why)
            .finish()
    }
}

impl<M, S, W> fmt::Display for NotSplit<'_, M, S, W>
where
    M: FrameMemory + 'static,
    S: Vspace + 'static,
    W: Window + 'static,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.why.fmt(f)
    }
}

impl<M, S, W> core::error::Error for NotSplit<'_, M, S, W>
where
    M: FrameMemory + 'static,
    S: Vspace + 'static,
    W: Window + 'static,
{
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        self.why.source()
    }
}

/// Why a block is not split.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SplitError {
    /// Others refer to it as well: it can be split when they are gone.
    #[error(
        "the block of page {head} has {references} references: only one that has one can be split"
    )]
    Shared {
        /// Its head.
        head: Pfn,
        /// References to it.
        references: u32,
    },
    /// The machine did not take its mapping down: it is whole, as it was. Try again.
    #[error("the machine did not take the mapping of page {head} down")]
    Refused {
        /// Its head.
        head: Pfn,
        /// Why.
        #[source]
        source: UnmapError,
    },
    /// Its pages stood together through a mapping, whose shootdown could not be proved: they are lost.
    #[error(
        "the mapping of page {head} is gone, but not everybody is known to know: the block is lost"
    )]
    Unproved {
        /// Its head.
        head: Pfn,
        /// Why.
        #[source]
        source: UnmapError,
    },
}
