//! Page-table entries, bit for bit (Intel SDM vol. 3A, 4.5, tables 4-15 to 4-20).
#![forbid(unsafe_code)]

use core::fmt;

use x86_64::structures::paging::PageTableFlags as Flags;

/// Physical address bits of the simulated CPUs (MAXPHYADDR). Bits from here to 51 are reserved in every entry.
pub const PHYSICAL_BITS: u32 = 40;

const ADDRESS: u64 = ((1 << PHYSICAL_BITS) - 1) & !0xfff;
/// Bits that must be zero in an entry of any level.
const RESERVED: u64 = ((1 << 52) - 1) & !((1 << PHYSICAL_BITS) - 1);
/// In a 2 MiB leaf also bits 20:13, and our CPUs have no PAT to put in bit 12.
const RESERVED_2M: u64 = RESERVED | 0x1f_f000;

/// Of the bits that are ours (11:9), the one that says that a leaf owns the frame it maps.
const OWNER: Flags = Flags::BIT_9;

/// The four levels, named by what an entry of them maps or points to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Page table: entries are 4 KiB leaves.
    Table,
    /// Page directory: entries point to tables or are 2 MiB leaves.
    Directory,
    /// Page-directory-pointer table. No 1 GiB leaves on these CPUs.
    Pointers,
    /// The root, PML4.
    Root,
}

impl Level {
    /// The level below; `None` under the lowest.
    #[must_use]
    pub const fn below(self) -> Option<Level> {
        match self {
            Level::Table => None,
            Level::Directory => Some(Level::Table),
            Level::Pointers => Some(Level::Directory),
            Level::Root => Some(Level::Pointers),
        }
    }

    /// log2 of the bytes that one entry of this level covers.
    #[must_use]
    pub const fn shift(self) -> u32 {
        match self {
            Level::Table => 12,
            Level::Directory => 21,
            Level::Pointers => 30,
            Level::Root => 39,
        }
    }

    /// Which entry of a table of this level `va` selects.
    #[must_use]
    pub const fn index(self, va: u64) -> usize {
        (va >> self.shift() & 511) as usize
    }
}

/// One entry.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Entry(u64);

impl Entry {
    /// Nothing is mapped.
    pub const ABSENT: Entry = Entry(0);

    /// The entry with these bits.
    #[must_use]
    pub const fn from_bits(bits: u64) -> Self {
        Entry(bits)
    }

    /// An entry for frame `number`.
    #[must_use]
    pub const fn new(number: u64, flags: Flags) -> Self {
        Entry(number << 12 & ADDRESS | flags.bits())
    }

    /// All its bits.
    #[must_use]
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// Whether all of `flags` are set.
    #[inline]
    #[must_use]
    pub const fn has(self, flags: Flags) -> bool {
        self.0 & flags.bits() == flags.bits()
    }

    /// Whether the frame that it maps belongs to it: a bit that the hardware leaves to software.
    pub(crate) const fn is_owner(self) -> bool {
        self.has(OWNER)
    }

    pub(crate) const fn owning(self) -> Self {
        Entry(self.0 | OWNER.bits())
    }

    pub(crate) const fn not_owning(self) -> Self {
        Entry(self.0 & !OWNER.bits())
    }

    /// The frame that it points to.
    #[inline]
    #[must_use]
    pub const fn frame(self) -> u64 {
        (self.0 & ADDRESS) >> 12
    }

    /// Whether, in a table of this level, it is a leaf.
    #[must_use]
    pub const fn is_leaf(self, level: Level) -> bool {
        match level {
            Level::Table => true,
            Level::Directory => self.has(Flags::HUGE_PAGE),
            Level::Pointers | Level::Root => false,
        }
    }

    /// Whether a bit is set that must be zero in a table of this level. Such an entry faults when it is present.
    #[must_use]
    pub const fn is_malformed(self, level: Level) -> bool {
        let huge = self.has(Flags::HUGE_PAGE);
        let reserved = match level {
            Level::Table => RESERVED,
            Level::Directory if huge => RESERVED_2M,
            Level::Directory => RESERVED,
            Level::Pointers | Level::Root => RESERVED | Flags::HUGE_PAGE.bits(),
        };
        self.0 & reserved != 0
    }
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Entry({:#018x})", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reserved_bits_are_those_of_the_manual() {
        let present = Flags::PRESENT.bits();
        for bit in 0..64 {
            let entry = Entry::from_bits(present | 1 << bit);
            let above = (PHYSICAL_BITS..52).contains(&bit);
            assert_eq!(entry.is_malformed(Level::Table), above, "bit {bit}");
            assert_eq!(entry.is_malformed(Level::Directory), above, "bit {bit}");
            assert_eq!(
                entry.is_malformed(Level::Root),
                above || bit == 7,
                "bit {bit}"
            );
            let huge = Entry::from_bits(entry.bits() | Flags::HUGE_PAGE.bits());
            let low = (12..21).contains(&bit);
            assert_eq!(
                huge.is_malformed(Level::Directory),
                above || low,
                "bit {bit}"
            );
        }
    }
}
