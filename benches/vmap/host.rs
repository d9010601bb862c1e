//! Memory and address space of this process, as the sections want them.

use alloc::sync::Arc;
use pageless_fault::MaySleep;
use pageless_fault::host::{HostFrames, HostRam, HostVspace};
use pageless_fault::{FrameMemory, WindowLen};
use pageless_pfn::{FrameCount, Pfn, PfnFlags, PfnRange, PfnT};

/// `count` frames, all of which have been written.
///
/// A kernel that maps a page that has been written for writing marks the entry as dirty, whether it is written again or
/// not, and that decides what unmapping costs.
pub(crate) fn ram(count: u64) -> Arc<HostRam> {
    let ram = untouched(count);
    for frame in ram.frames().iter() {
        ram.write(frame.phys(), &[1; 4096]).unwrap();
    }
    ram
}

/// `count` frames that take no memory until they are used.
pub(crate) fn untouched(count: u64) -> Arc<HostRam> {
    let start = Pfn::try_new(0x1_0000).unwrap();
    let frames = PfnRange::try_new(start, FrameCount::new(count)).unwrap();
    Arc::new(HostRam::new(frames).unwrap())
}

/// Address space for `pages` pages, that can show `ram`.
pub(crate) fn space(ram: &HostRam, pages: u64) -> HostVspace {
    let len = WindowLen::covering(pages * 4096).unwrap();
    HostVspace::reserve(HostFrames::of_ram(ram).unwrap(), len).unwrap()
}

/// The `n`-th list of `pages` frames of which no two are neighbours.
pub(crate) fn scattered(ram: &impl FrameMemory, n: u64, pages: u64) -> Vec<PfnT> {
    let all = ram.frames();
    let frame = |page| {
        let index = (n * pages + page) * 2 % all.count().get();
        PfnT::new(all.nth(index).unwrap(), PfnFlags::DEV)
    };
    (0..pages).map(frame).collect()
}

/// `pages` frames one behind the other.
pub(crate) fn in_a_row(ram: &impl FrameMemory, pages: u64) -> Vec<PfnT> {
    let frames = ram.frames().iter().take(pages as usize);
    frames
        .map(|frame| PfnT::new(frame, PfnFlags::DEV))
        .collect()
}

/// Benchmarks may sleep.
pub(crate) fn ctx() -> MaySleep {
    MaySleep::claim()
}
