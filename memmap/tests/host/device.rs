//! The test device that all host tests start from.

use pageless_fault::MaySleep;
use pageless_fault::host::{HostMachine, HostWindow};
use pageless_memmap::{Budget, ChunkSize, Config, HostMemmap, Memmap, PageRef};
use pageless_pfn::{FrameCount, PagedPfn, Pfn, PfnFlags, PfnRange, PfnT};

/// Where the test device's frames begin.
pub(crate) const BASE: u64 = 1 << 30;

pub(crate) fn frames(count: u64) -> PfnRange {
    PfnRange::try_new(Pfn::try_new(BASE).unwrap(), FrameCount::new(count)).unwrap()
}

/// A memmap over `count` frames with chunks of `chunk` bytes and a budget of `budget` bytes.
pub(crate) fn attach(count: u64, chunk: u64, budget: u64) -> HostMemmap {
    attach_with_reserve(count, chunk, budget, 0)
}

pub(crate) fn attach_with_reserve(
    count: u64,
    chunk: u64,
    budget: u64,
    reserve: usize,
) -> HostMemmap {
    let chunk = ChunkSize::try_new(chunk).unwrap();
    let config = Config {
        chunk,
        budget: Budget::with_watermarks(budget, budget, budget, chunk).unwrap(),
        reserve_chunks: reserve,
        fill_ahead: 1,
    };
    Memmap::attach(&HostMachine::new().unwrap(), frames(count), config).unwrap()
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

/// The first pfn of a chunk.
pub(crate) fn chunk_pfn(memmap: &HostMemmap, chunk: u64) -> PagedPfn {
    paged(chunk * memmap.chunk_size().descriptors())
}

/// A reference into a chunk.
pub(crate) fn pin<'m>(
    memmap: &'m HostMemmap,
    ctx: &MaySleep,
    chunk: u64,
) -> PageRef<'m, HostWindow> {
    memmap.get(ctx, chunk_pfn(memmap, chunk)).unwrap()
}
