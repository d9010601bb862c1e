//! The test device that all host tests start from.

use pageless_pfn::{FrameCount, PagedPfn, Pfn, PfnFlags, PfnRange, PfnT};

/// Where the test device's frames begin.
const BASE: u64 = 1 << 30;

pub(crate) fn frames(count: u64) -> PfnRange {
    PfnRange::try_new(Pfn::try_new(BASE).unwrap(), FrameCount::new(count)).unwrap()
}

/// The `index`-th frame of the test device, as a driver with a dynamic memmap hands it out.
pub(crate) fn paged(index: u64) -> PagedPfn {
    PfnT::new(
        Pfn::try_new(BASE + index).unwrap(),
        PfnFlags::DEV | PfnFlags::MAP,
    )
    .paged()
    .unwrap()
}
