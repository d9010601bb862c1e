//! Places and lengths inside a window, in bytes. A window offset is not an address.

use core::fmt;

/// Bytes of window that one leaf page table maps: 512 entries of 4 KiB.
pub const LEAF_TABLE_SPAN: u64 = 2 << 20;
/// Bytes of memory that one leaf page table takes.
pub const LEAF_TABLE_BYTES: u64 = 4096;

const _: () = assert!(LEAF_TABLE_SPAN == 512 * 4096);

/// A byte offset from the start of a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WindowOffset(u64);

impl WindowOffset {
    /// The offset of byte `bytes`.
    #[inline]
    #[must_use]
    pub const fn new(bytes: u64) -> Self {
        WindowOffset(bytes)
    }

    /// In bytes from the start of the window.
    #[inline]
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// `self + bytes`, unless that overflows.
    #[inline]
    #[must_use]
    pub const fn checked_add(self, bytes: u64) -> Option<Self> {
        match self.0.checked_add(bytes) {
            Some(sum) => Some(WindowOffset(sum)),
            None => None,
        }
    }
}

/// The length of a window, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WindowLen(u64);

impl WindowLen {
    /// `bytes` rounded up to whole leaf tables, so that a window never shares a page-table page
    /// with its neighbours; `None` if that overflows.
    #[must_use]
    pub const fn covering(bytes: u64) -> Option<Self> {
        match bytes.checked_next_multiple_of(LEAF_TABLE_SPAN) {
            Some(len) => Some(WindowLen(len)),
            None => None,
        }
    }

    /// In bytes, a multiple of [`LEAF_TABLE_SPAN`].
    #[inline]
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for WindowLen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0)
    }
}

/// A page-aligned part of a window. Never empty, never overflowing.
///
/// ```
/// use pageless_fault::{WindowOffset, WindowRange};
/// let r = WindowRange::try_new(WindowOffset::new(8192), 4096).unwrap();
/// assert_eq!(r.end().get(), 12288);
/// assert!(WindowRange::try_new(WindowOffset::new(1), 4096).is_none());
/// assert!(WindowRange::try_new(WindowOffset::new(0), 0).is_none());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct WindowRange {
    start: WindowOffset,
    len: u64,
}

impl WindowRange {
    /// `len` bytes from `start`; `None` unless both are multiples of 4096, `len` is not 0 and the
    /// end does not overflow.
    #[must_use]
    pub const fn try_new(start: WindowOffset, len: u64) -> Option<Self> {
        if len == 0 || !start.0.is_multiple_of(4096) || !len.is_multiple_of(4096) {
            return None;
        }
        match start.0.checked_add(len) {
            Some(_) => Some(WindowRange { start, len }),
            None => None,
        }
    }

    /// First byte.
    #[inline]
    #[must_use]
    pub const fn start(self) -> WindowOffset {
        self.start
    }

    /// One past the last byte.
    #[inline]
    #[must_use]
    pub const fn end(self) -> WindowOffset {
        WindowOffset(self.start.0 + self.len)
    }

    /// In bytes.
    #[inline]
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a range is never empty")]
    pub const fn len(self) -> u64 {
        self.len
    }
}
