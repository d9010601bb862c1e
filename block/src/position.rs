//! Places on a device: sectors and bytes.

use core::fmt;

use pageless_pfn::ByteLen;

/// Bytes in a sector, whatever the device's logical block is.
pub const SECTOR_SIZE: u64 = 512;

/// A place on a device in units of [`SECTOR_SIZE`].
///
/// ```
/// use pageless_block::Sector;
/// assert_eq!(Sector::new(8).position().unwrap().get(), 4096);
/// assert_eq!(Sector::new(u64::MAX).position(), None);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[repr(transparent)]
pub struct Sector(u64);

impl Sector {
    /// The `number`-th sector, counted from 0.
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// Its number.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// Where it begins, or `None` where that does not fit in 64 bits.
    pub const fn position(self) -> Option<BytePos> {
        match self.0.checked_mul(SECTOR_SIZE) {
            Some(bytes) => Some(BytePos(bytes)),
            None => None,
        }
    }
}

impl fmt::Debug for Sector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sector({})", self.0)
    }
}

impl fmt::Display for Sector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sector {}", self.0)
    }
}

/// A place on a device in bytes from its start.
///
/// ```
/// use pageless_block::BytePos;
/// use pageless_pfn::ByteLen;
/// let at = BytePos::new(4096);
/// assert_eq!(at.sector().unwrap().get(), 8);
/// assert_eq!(at.checked_add(ByteLen::new(1)).unwrap().sector(), None);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[repr(transparent)]
pub struct BytePos(u64);

impl BytePos {
    /// The byte at `bytes` from the start.
    pub const fn new(bytes: u64) -> Self {
        Self(bytes)
    }

    /// Bytes from the start.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The place `len` bytes further on, or `None` on overflow.
    pub const fn checked_add(self, len: ByteLen) -> Option<Self> {
        match self.0.checked_add(len.get()) {
            Some(at) => Some(Self(at)),
            None => None,
        }
    }

    /// How many bytes `self` lies after `base`, or `None` if it lies before.
    pub const fn checked_offset_from(self, base: Self) -> Option<ByteLen> {
        match self.0.checked_sub(base.0) {
            Some(len) => Some(ByteLen::new(len)),
            None => None,
        }
    }

    /// The sector that begins here, or `None` if none does.
    pub const fn sector(self) -> Option<Sector> {
        if self.0.is_multiple_of(SECTOR_SIZE) {
            Some(Sector(self.0 / SECTOR_SIZE))
        } else {
            None
        }
    }
}

impl fmt::Debug for BytePos {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BytePos({:#x})", self.0)
    }
}

impl fmt::Display for BytePos {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "byte {:#x}", self.0)
    }
}
