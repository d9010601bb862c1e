//! Where a descriptor lies: from pfn to window offset, chunk and leaf-table group. Arithmetic only.

use core::fmt;

use pageless_fault::{LEAF_TABLE_SPAN, WindowLen, WindowOffset, WindowRange};
use pageless_pfn::{Pfn, PfnRange};

/// Bytes of one descriptor, as in Linux.
#[cfg(not(loom))]
pub const DESCRIPTOR_BYTES: u64 = 64;
/// Under loom the world shrinks: two descriptors to a chunk of 4 KiB.
#[cfg(loom)]
pub const DESCRIPTOR_BYTES: u64 = 2048;

const _: () = assert!(4096 % DESCRIPTOR_BYTES == 0);

/// What an eager memmap of `frames` would take, in bytes; `None` if that overflows.
///
/// ```
/// // 6 TiB of persistent memory: 96 GiB of descriptors.
/// assert_eq!(pageless_memmap::eager_bytes(6 << 28), Some(96 << 30));
/// ```
#[must_use]
pub const fn eager_bytes(frames: u64) -> Option<u64> {
    frames.checked_mul(DESCRIPTOR_BYTES)
}

/// The unit of population and reclaim: a power of two from 4 KiB to 2 MiB of descriptors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ChunkSize(u64);

/// Not a size that a chunk can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a chunk of {bytes} bytes: it must be a power of two from 4096 (4 KiB) to 2097152 (2 MiB)")]
pub struct ChunkSizeError {
    /// What was asked for.
    pub bytes: u64,
}

impl ChunkSize {
    /// 4 KiB: 64 descriptors, 256 KiB of pfns.
    pub const MIN: ChunkSize = ChunkSize(4 << 10);
    /// 2 MiB: 32768 descriptors, 128 MiB of pfns, which is Linux's section.
    pub const MAX: ChunkSize = ChunkSize(2 << 20);

    /// A chunk of `bytes` bytes of descriptors.
    ///
    /// # Errors
    ///
    /// Not a power of two, or outside [`MIN`](Self::MIN)..=[`MAX`](Self::MAX).
    pub const fn try_new(bytes: u64) -> Result<Self, ChunkSizeError> {
        if bytes.is_power_of_two() && bytes >= Self::MIN.0 && bytes <= Self::MAX.0 {
            Ok(ChunkSize(bytes))
        } else {
            Err(ChunkSizeError { bytes })
        }
    }

    /// In bytes of descriptors.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        self.0
    }

    /// How many descriptors it holds.
    #[must_use]
    pub const fn descriptors(self) -> u64 {
        self.0 / DESCRIPTOR_BYTES
    }
}

impl Default for ChunkSize {
    fn default() -> Self {
        Self::MIN
    }
}

impl fmt::Display for ChunkSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} KiB", self.0 >> 10)
    }
}

const _: () = assert!(ChunkSize::MAX.0 == LEAF_TABLE_SPAN);

/// A chunk's place in the window, counted in chunks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ChunkIndex(pub(crate) u64);

/// A leaf table's place in the window, counted in spans of [`LEAF_TABLE_SPAN`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct GroupIndex(pub(crate) u64);

/// The layout of one memmap.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Geometry {
    pub(crate) pfns: PfnRange,
    pub(crate) chunk: ChunkSize,
    pub(crate) window: WindowLen,
}

impl Geometry {
    /// `None` if the descriptors of `pfns` would overflow a window.
    pub(crate) fn new(pfns: PfnRange, chunk: ChunkSize) -> Option<Self> {
        let window = WindowLen::covering(eager_bytes(pfns.count().get())?)?;
        Some(Geometry {
            pfns,
            chunk,
            window,
        })
    }

    /// The window offset of the descriptor with this index.
    #[inline]
    #[expect(clippy::unused_self, reason = "the layout is the geometry's business")]
    pub(crate) fn offset(&self, index: u64) -> WindowOffset {
        // Cannot overflow: `index` is below the count that `new` multiplied.
        WindowOffset::new(index * DESCRIPTOR_BYTES)
    }

    pub(crate) fn chunk_of(&self, index: u64) -> ChunkIndex {
        ChunkIndex(index / self.chunk.descriptors())
    }

    /// How many chunks there are.
    pub(crate) fn chunks(&self) -> u64 {
        self.pfns.count().get().div_ceil(self.chunk.descriptors())
    }

    pub(crate) fn group_of(&self, chunk: ChunkIndex) -> GroupIndex {
        GroupIndex(chunk.0 / (LEAF_TABLE_SPAN / self.chunk.bytes()))
    }

    /// The index of the chunk's first descriptor.
    pub(crate) fn first_of(&self, chunk: ChunkIndex) -> u64 {
        chunk.0 * self.chunk.descriptors()
    }

    pub(crate) fn pfn(&self, index: u64) -> Option<Pfn> {
        self.pfns.nth(index)
    }

    pub(crate) fn chunk_start(&self, chunk: ChunkIndex) -> u64 {
        chunk.0 * self.chunk.bytes()
    }

    pub(crate) fn chunk_range(&self, chunk: ChunkIndex) -> WindowRange {
        range(self.chunk_start(chunk), self.chunk.bytes())
    }
}

/// A range of whole pages that is known to be in order.
///
/// # Panics
///
/// If it is not: chunks and groups are multiples of 4 KiB inside a window whose length was checked.
pub(crate) fn range(start: u64, len: u64) -> WindowRange {
    match WindowRange::try_new(WindowOffset::new(start), len) {
        Some(range) => range,
        None => unreachable!("range of {len} bytes at {start}"),
    }
}
