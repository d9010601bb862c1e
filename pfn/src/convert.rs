//! To and from the types of the `x86_64` crate.
//!
//! That crate's physical addresses have 52 bits, so its frames end at 2^40; ours go on to 2^52.
//! The way there is therefore fallible and the way back is not.

use thiserror::Error;
use x86_64::structures::paging::{PageSize, PhysFrame, Size4KiB};

use crate::frame::{PAGE_SIZE, Pfn};
use crate::phys::PhysAddr;

const _: () = assert!(Size4KiB::SIZE == PAGE_SIZE);

/// An address that no x86-64 processor can form: it has more than 52 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("physical address {addr} has more than the 52 bits of x86-64")]
pub struct BeyondX86 {
    /// The address.
    pub addr: PhysAddr,
}

impl TryFrom<PhysAddr> for x86_64::PhysAddr {
    type Error = BeyondX86;

    fn try_from(addr: PhysAddr) -> Result<Self, BeyondX86> {
        Self::try_new(addr.get()).map_err(|_| BeyondX86 { addr })
    }
}

impl From<x86_64::PhysAddr> for PhysAddr {
    fn from(addr: x86_64::PhysAddr) -> Self {
        Self::new(addr.as_u64())
    }
}

impl TryFrom<Pfn> for PhysFrame<Size4KiB> {
    type Error = BeyondX86;

    fn try_from(pfn: Pfn) -> Result<Self, BeyondX86> {
        x86_64::PhysAddr::try_from(pfn.phys()).map(Self::containing_address)
    }
}

impl From<PhysFrame<Size4KiB>> for Pfn {
    fn from(frame: PhysFrame<Size4KiB>) -> Self {
        PhysAddr::from(frame.start_address()).pfn()
    }
}
