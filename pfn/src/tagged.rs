//! A frame number with its flags, and the witness that it may have a descriptor.

use core::fmt;

use bitflags::bitflags;
use thiserror::Error;

use crate::frame::{PAGE_SHIFT, Pfn};
use crate::phys::PhysAddr;

/// The bits of a [`PfnT`] that are not frame number: 63..52.
const FLAGS_MASK: u64 = !0 << (64 - PAGE_SHIFT);

bitflags! {
    /// What is known about a frame without looking anything up. Claims, not facts: `MAP` says
    /// that a descriptor may be asked for, not that there is one.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct PfnFlags: u64 {
        /// The pfn locates the next scatter-gather table.
        const SG_CHAIN = 1 << 63;
        /// The last entry of a scatter-gather list.
        const SG_LAST = 1 << 62;
        /// Device memory, not covered by the system's memmap.
        const DEV = 1 << 61;
        /// A driver has set up a dynamic memmap for the frame.
        const MAP = 1 << 60;
        /// May be executed in place, but not pinned.
        const SPECIAL = 1 << 59;
    }
}

/// A frame number and its flags in 64 bits, laid out as in Linux's `pfn_t`.
///
/// ```
/// use pageless_pfn::{Pfn, PfnFlags, PfnT};
/// let pfn = Pfn::try_new(0x42).unwrap();
/// let device = PfnT::new(pfn, PfnFlags::DEV);
/// assert_eq!(device.bits(), 0x2000_0000_0000_0042);
/// assert!(!device.has_page());
/// assert!(PfnT::new(pfn, PfnFlags::DEV | PfnFlags::MAP).has_page());
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct PfnT(u64);

const _: () = assert!(size_of::<PfnT>() == 8);
const _: () = assert!(PfnFlags::all().bits() & !FLAGS_MASK == 0);

impl PfnT {
    /// `pfn` with `flags`. Bits of `flags` below 52 are not flags and are left out.
    #[inline]
    pub const fn new(pfn: Pfn, flags: PfnFlags) -> Self {
        Self(pfn.get() | (flags.bits() & FLAGS_MASK))
    }

    /// The value with exactly these bits. Every bit pattern is one; the reserved bits 58..52 are
    /// kept as they come.
    #[inline]
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// All 64 bits.
    #[inline]
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// The frame number.
    #[inline]
    pub const fn pfn(self) -> Pfn {
        Pfn::from_addr_bits(self.0)
    }

    /// The flags, reserved bits included.
    #[inline]
    pub const fn flags(self) -> PfnFlags {
        PfnFlags::from_bits_retain(self.0 & FLAGS_MASK)
    }

    /// The address of the frame's first byte.
    #[inline]
    pub const fn phys(self) -> PhysAddr {
        self.pfn().phys()
    }

    /// Whether a memmap may cover the frame: `MAP` is set, or `DEV` is not. Exactly Linux's
    /// `pfn_t_has_page`; see [`PfnT::paged`] for the stricter question.
    #[inline]
    pub const fn has_page(self) -> bool {
        self.flags().contains(PfnFlags::MAP) || !self.flags().contains(PfnFlags::DEV)
    }

    /// Whether this is device memory with a dynamic memmap: both `DEV` and `MAP`.
    #[inline]
    pub const fn is_devmap(self) -> bool {
        self.flags().contains(PfnFlags::DEV.union(PfnFlags::MAP))
    }

    /// The ticket for asking a memmap about this frame.
    ///
    /// Stricter than [`PfnT::has_page`] in two cases that Linux leaves to its callers. An
    /// `SG_CHAIN` entry locates a table and not data, so its frame must not be pinned as if it
    /// were a buffer; and `SPECIAL` means "never pinned" by definition. Both are refused, also
    /// where `has_page` answers yes.
    ///
    /// # Errors
    /// [`NoPage`] says which of the flags rules a descriptor out.
    ///
    /// ```
    /// use pageless_pfn::{NoPage, Pfn, PfnFlags, PfnT};
    /// let device_only = PfnT::new(Pfn::try_new(7).unwrap(), PfnFlags::DEV);
    /// assert!(matches!(device_only.paged(), Err(NoPage::Device { .. })));
    /// ```
    #[inline]
    pub const fn paged(self) -> Result<PagedPfn, NoPage> {
        let pfn = self.pfn();
        if self.flags().contains(PfnFlags::SG_CHAIN) {
            Err(NoPage::Chain { pfn })
        } else if self.flags().contains(PfnFlags::SPECIAL) {
            Err(NoPage::Special { pfn })
        } else if !self.has_page() {
            Err(NoPage::Device { pfn })
        } else {
            Ok(PagedPfn(pfn))
        }
    }
}

impl From<Pfn> for PfnT {
    /// An ordinary frame of RAM: no flags.
    fn from(pfn: Pfn) -> Self {
        Self::new(pfn, PfnFlags::empty())
    }
}

impl fmt::Debug for PfnT {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PfnT({self})")
    }
}

impl fmt::Display for PfnT {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.pfn().get())?;
        if !self.flags().is_empty() {
            f.write_str("|")?;
            bitflags::parser::to_writer(&self.flags(), &mut *f)?;
        }
        Ok(())
    }
}

/// A frame that may have a descriptor: the only thing a memmap takes.
///
/// Made by [`PfnT::paged`] alone, so that asking for the descriptor of a frame whose flags rule
/// one out does not compile:
///
/// ```compile_fail
/// use pageless_pfn::{PagedPfn, Pfn, PfnFlags, PfnT};
/// fn descriptor_of(_frame: PagedPfn) {}
/// let device_only = PfnT::new(Pfn::try_new(7).unwrap(), PfnFlags::DEV);
/// descriptor_of(device_only);
/// ```
///
/// The same with the question asked first:
///
/// ```
/// use pageless_pfn::{PagedPfn, Pfn, PfnFlags, PfnT};
/// fn descriptor_of(_frame: PagedPfn) {}
/// let mapped = PfnT::new(Pfn::try_new(7).unwrap(), PfnFlags::DEV | PfnFlags::MAP);
/// if let Ok(frame) = mapped.paged() {
///     descriptor_of(frame);
/// }
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct PagedPfn(Pfn);

impl PagedPfn {
    /// The frame number.
    #[inline]
    pub const fn pfn(self) -> Pfn {
        self.0
    }
}

impl fmt::Debug for PagedPfn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PagedPfn({:#x})", self.0.get())
    }
}

/// Why a frame has no descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum NoPage {
    /// Device memory without a memmap: do the I/O by frame number, or have the driver map it.
    #[error("frame {pfn} is device memory without a memmap (DEV without MAP)")]
    Device {
        /// The frame.
        pfn: Pfn,
    },
    /// The frame may not be pinned.
    #[error("frame {pfn} is special: it may not be pinned")]
    Special {
        /// The frame.
        pfn: Pfn,
    },
    /// The entry locates a scatter-gather table, not data: follow it.
    #[error("frame {pfn} holds a scatter-gather table, not data")]
    Chain {
        /// The frame that holds the table.
        pfn: Pfn,
    },
}
