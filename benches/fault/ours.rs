//! The memmap itself, on this process's own MMU.

use super::{mapping::PAGE, places::WINDOW, side::Window};
use pageless_fault::{MaySleep, host::HostMachine};
use pageless_memmap::{Budget, Config, DESCRIPTOR_BYTES, HostMemmap};
use pageless_pfn::{FrameCount, PagedPfn, Pfn, PfnFlags, PfnRange, PfnT};
use std::{fs, time::Instant};

/// Descriptors in a page of the window.
const PER_PAGE: u64 = PAGE as u64 / DESCRIPTOR_BYTES;

/// Frames of a device of 1 PiB.
const PEBIBYTE: u64 = (1 << 50) / PAGE as u64;

/// A memmap with 4 KiB chunks, which reclaims when it is told to.
pub(crate) struct Ours {
    memmap: HostMemmap,
    ctx: MaySleep,
}

fn paged(pfn: u64) -> PagedPfn {
    let flags = PfnFlags::DEV | PfnFlags::MAP;
    PfnT::new(Pfn::try_new(pfn).unwrap(), flags)
        .paged()
        .unwrap()
}

fn frames(count: u64) -> PfnRange {
    PfnRange::try_new(Pfn::try_new(0).unwrap(), FrameCount::new(count)).unwrap()
}

impl Window for Ours {
    fn fresh() -> Self {
        let config = Config {
            budget: Budget::unlimited(),
            ..Config::default()
        };
        let machine = HostMachine::new().unwrap();
        let pfns = frames(WINDOW / DESCRIPTOR_BYTES);
        Self {
            memmap: HostMemmap::attach(&machine, pfns, config).unwrap(),
            ctx: MaySleep::claim(),
        }
    }

    fn touch(&self, page: u64) {
        drop(self.memmap.get(&self.ctx, paged(page * PER_PAGE)).unwrap());
    }
}

impl Ours {
    /// Reclaims the `chunks` oldest chunks.
    pub(crate) fn reclaim(&self, chunks: u64) {
        let used = self.memmap.counters().used_bytes();
        let down_to = used - chunks * PAGE as u64;
        let reclaimed = self.memmap.reclaim(&self.ctx, down_to).unwrap();
        assert_eq!(reclaimed.chunks, chunks, "reclaimed something else");
    }
}

/// Attaches 1 PiB: nanoseconds, and bytes by which this process grew.
pub(crate) fn attach() -> Vec<f64> {
    let machine = HostMachine::new().unwrap();
    resident();
    let before = resident();
    let start = Instant::now();
    let memmap = HostMemmap::attach(&machine, frames(PEBIBYTE), Config::default()).unwrap();
    let taken = start.elapsed();
    let after = resident();
    drop(memmap);
    vec![taken.as_nanos() as f64, after - before]
}

/// Bytes of this process that are in memory, page tables included.
fn resident() -> f64 {
    let stated = |file, key| {
        let text = fs::read_to_string(file).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(key));
        let kib = line.and_then(|rest| rest.trim().strip_suffix("kB"));
        kib.unwrap().trim().parse::<f64>().unwrap() * 1024.0
    };
    stated("/proc/self/smaps_rollup", "Rss:") + stated("/proc/self/status", "VmPTE:")
}
