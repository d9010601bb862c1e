//! Physical byte addresses and byte lengths.
//!
//! Addresses have no operators: every step is a checked method, so that an overflow is a `None`
//! somebody has to look at and not a wrapped address.

use core::fmt;

use thiserror::Error;

use crate::frame::{PAGE_SHIFT, PAGE_SIZE, Pfn};

/// A physical byte address, any 64-bit value.
///
/// ```
/// use pageless_pfn::{ByteLen, PhysAddr};
/// let addr = PhysAddr::new(0x1_2345);
/// assert_eq!(addr.pfn().get(), 0x12);
/// assert_eq!(addr.frame_offset().get(), 0x345);
/// assert_eq!(PhysAddr::new(u64::MAX).checked_add(ByteLen::new(1)), None);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct PhysAddr(u64);

impl PhysAddr {
    /// The address with this number.
    #[inline]
    pub const fn new(addr: u64) -> Self {
        Self(addr)
    }

    /// The address in bytes.
    #[inline]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The frame that holds this byte.
    #[inline]
    pub const fn pfn(self) -> Pfn {
        Pfn::from_addr_bits(self.0 >> PAGE_SHIFT)
    }

    /// How far into its frame this byte lies.
    #[inline]
    pub const fn frame_offset(self) -> FrameOffset {
        FrameOffset((self.0 & (PAGE_SIZE - 1)) as u16)
    }

    /// The address `len` bytes further on, or `None` past the end of the address space.
    #[inline]
    pub const fn checked_add(self, len: ByteLen) -> Option<Self> {
        match self.0.checked_add(len.0) {
            Some(addr) => Some(Self(addr)),
            None => None,
        }
    }

    /// How many bytes `self` lies after `base`, or `None` if it lies before.
    #[inline]
    pub const fn checked_offset_from(self, base: Self) -> Option<ByteLen> {
        match self.0.checked_sub(base.0) {
            Some(len) => Some(ByteLen(len)),
            None => None,
        }
    }
}

impl fmt::Debug for PhysAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PhysAddr({:#x})", self.0)
    }
}

impl fmt::Display for PhysAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

/// A number of bytes.
///
/// ```
/// use pageless_pfn::ByteLen;
/// let six_tib = ByteLen::new(6 << 40);
/// assert_eq!(six_tib.frames_exact().unwrap().get(), 6 << 28);
/// assert_eq!(ByteLen::new(513).frames_exact(), None);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[repr(transparent)]
pub struct ByteLen(u64);

impl ByteLen {
    /// No bytes.
    pub const ZERO: Self = Self(0);

    /// This many bytes.
    #[inline]
    pub const fn new(bytes: u64) -> Self {
        Self(bytes)
    }

    /// The number of bytes.
    #[inline]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// Whether there is nothing.
    #[inline]
    pub const fn is_zero(self) -> bool {
        self.0 == 0
    }

    /// The sum, or `None` on overflow.
    #[inline]
    pub const fn checked_add(self, other: Self) -> Option<Self> {
        match self.0.checked_add(other.0) {
            Some(sum) => Some(Self(sum)),
            None => None,
        }
    }

    /// The difference, or `None` if `other` is longer.
    #[inline]
    pub const fn checked_sub(self, other: Self) -> Option<Self> {
        match self.0.checked_sub(other.0) {
            Some(rest) => Some(Self(rest)),
            None => None,
        }
    }

    /// The number of whole frames, or `None` if this is not a multiple of the frame size.
    #[inline]
    pub const fn frames_exact(self) -> Option<crate::FrameCount> {
        if self.0 & (PAGE_SIZE - 1) == 0 {
            Some(crate::FrameCount::new(self.0 >> PAGE_SHIFT))
        } else {
            None
        }
    }
}

impl fmt::Debug for ByteLen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ByteLen({})", self.0)
    }
}

impl fmt::Display for ByteLen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0)
    }
}

/// A byte's place within its frame, below [`PAGE_SIZE`].
///
/// ```
/// use pageless_pfn::FrameOffset;
/// assert_eq!(FrameOffset::try_new(4095).unwrap().get(), 4095);
/// assert!(FrameOffset::try_new(4096).is_err());
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[repr(transparent)]
pub struct FrameOffset(u16);

impl FrameOffset {
    /// The first byte of a frame.
    pub const ZERO: Self = Self(0);

    /// The byte at `offset`.
    ///
    /// # Errors
    /// [`OffsetOutOfRange`] if `offset` is not below [`PAGE_SIZE`].
    #[inline]
    pub const fn try_new(offset: u64) -> Result<Self, OffsetOutOfRange> {
        if offset < PAGE_SIZE {
            Ok(Self(offset as u16))
        } else {
            Err(OffsetOutOfRange { offset })
        }
    }

    /// The offset in bytes.
    #[inline]
    pub const fn get(self) -> u64 {
        self.0 as u64
    }
}

impl fmt::Debug for FrameOffset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FrameOffset({:#x})", self.0)
    }
}

/// An offset that does not lie within one frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("offset {offset} does not lie within a frame of {PAGE_SIZE} bytes")]
pub struct OffsetOutOfRange {
    /// The offset asked for, in bytes.
    pub offset: u64,
}
