//! The test device that all tests start from.

use pageless_fault::{MaySleep, Window};
use pageless_memmap::{AttachError, Budget, ChunkSize, Config, Memmap, PageRef};
use pageless_pfn::{FrameCount, PagedPfn, Pfn, PfnFlags, PfnRange, PfnT};

use crate::rig::Rig;

/// The memmap that a rig carries.
pub(crate) type MemmapOn<R> = Memmap<<R as Rig>::Window>;

/// Where the test device's frames begin.
const BASE: u64 = 1 << 30;

fn frames(count: u64) -> PfnRange {
    PfnRange::try_new(Pfn::try_new(BASE).unwrap(), FrameCount::new(count)).unwrap()
}

/// A memmap over the first `count` frames of the device.
pub(crate) fn try_attach<R: Rig>(
    rig: &R,
    count: u64,
    config: Config,
) -> Result<MemmapOn<R>, AttachError> {
    rig.on_cpu(move |_| Memmap::attach(rig.machine(), frames(count), config))
}

/// A memmap over the whole device with chunks of `chunk` bytes, both watermarks at the budget of `budget`
/// bytes.
pub(crate) fn attach<R: Rig>(rig: &R, chunk: u64, budget: u64) -> MemmapOn<R> {
    attach_with_reserve(rig, chunk, budget, 0)
}

pub(crate) fn attach_with_reserve<R: Rig>(
    rig: &R,
    chunk: u64,
    budget: u64,
    reserve_chunks: usize,
) -> MemmapOn<R> {
    let chunk = ChunkSize::try_new(chunk).unwrap();
    let config = Config {
        chunk,
        budget: Budget::with_watermarks(budget, budget, budget, chunk).unwrap(),
        reserve_chunks,
        fill_ahead: 1,
    };
    try_attach(rig, R::FRAMES, config).unwrap()
}

/// A memmap over the whole device with this budget and nothing special.
pub(crate) fn attach_within<R: Rig>(rig: &R, chunk: ChunkSize, budget: Budget) -> MemmapOn<R> {
    let config = Config {
        chunk,
        budget,
        reserve_chunks: 0,
        fill_ahead: 1,
    };
    try_attach(rig, R::FRAMES, config).unwrap()
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

/// How many chunks of 4 KiB the whole device has.
pub(crate) const fn small_chunks<R: Rig>() -> u64 {
    R::FRAMES / ChunkSize::MIN.descriptors()
}

/// The first pfn of a chunk.
pub(crate) fn chunk_pfn<W: Window>(memmap: &Memmap<W>, chunk: u64) -> PagedPfn {
    paged(chunk * memmap.chunk_size().descriptors())
}

/// A reference into a chunk.
pub(crate) fn pin<'m, W: Window>(
    memmap: &'m Memmap<W>,
    ctx: &MaySleep,
    chunk: u64,
) -> PageRef<'m, W> {
    memmap.get(ctx, chunk_pfn(memmap, chunk)).unwrap()
}

/// Makes a chunk present, and lets go of it.
pub(crate) fn touch<W: Window>(memmap: &Memmap<W>, ctx: &MaySleep, chunk: u64) {
    drop(pin(memmap, ctx, chunk));
}

/// The numbers of the chunks that have memory, in the order in which reclaim will consider them.
pub(crate) fn in_order<W: Window>(memmap: &Memmap<W>) -> Vec<u64> {
    memmap
        .chunks()
        .iter()
        .map(|chunk| (chunk.first.get() - BASE) / memmap.chunk_size().descriptors())
        .collect()
}
