//! Mapping and unmapping 16 scattered frames: ours lazily, ours eagerly, and plain system calls.
//!
//! A sample is [`AREAS`] times: map, touch each page (not timed), unmap; and at the end one purge of what waits, where it waits.
//! What an unmapping costs stands there twice: what its caller waits for, and all of it, with its share of the purge.

use super::host;
use super::peer::Peer;
use super::plain::{Plain, touch};
use super::ratios::{Figure, Line, Pairs, Report, Target};
use super::{cpus, turns};
use alloc::sync::Arc;
use core::time::Duration;
use pageless_fault::host::{HostRam, HostVspace};
use pageless_fault::{MaySleep, Protection};
use pageless_pfn::PfnT;
use pageless_vmap::area::{NoDescriptors, Vmalloc, VmallocConfig};
use std::time::Instant;

/// Frames of an area.
const PAGES: u64 = 16;
/// Areas of a sample: as many frames as are purged at once.
const AREAS: u64 = 64;

/// One way to map and unmap.
trait Side {
    /// Maps and answers the address of the first page.
    fn map(&mut self, n: usize, frames: &[PfnT], protection: Protection) -> u64;

    /// Unmaps what was mapped at `address`.
    fn unmap(&mut self, n: usize, address: u64);

    /// Whatever is still to be done, and belongs to the cost.
    fn purge(&mut self) {}

    /// Whatever is still to be done, and does not.
    fn tidy(&mut self) {}
}

struct Ours {
    vmalloc: Vmalloc<HostVspace, NoDescriptors>,
    ctx: MaySleep,
}

impl Ours {
    fn new(ram: &HostRam, config: VmallocConfig) -> Self {
        Ours {
            vmalloc: Vmalloc::new(host::space(ram, 1 << 16), NoDescriptors, config),
            ctx: host::ctx(),
        }
    }
}

impl Side for Ours {
    fn map(&mut self, _: usize, frames: &[PfnT], protection: Protection) -> u64 {
        let address = self.vmalloc.vmap(&self.ctx, frames, protection).unwrap();
        address.get()
    }

    fn unmap(&mut self, _: usize, address: u64) {
        let address = pageless_fault::VirtAddr::new(address);
        self.vmalloc.vunmap(&self.ctx, address).unwrap();
    }

    fn purge(&mut self) {
        self.vmalloc.purge(&self.ctx).unwrap();
    }
}

impl Side for Plain {
    fn map(&mut self, n: usize, frames: &[PfnT], protection: Protection) -> u64 {
        let page = place(n);
        Plain::map(self, page, frames, protection);
        self.at(page).addr() as u64
    }

    fn unmap(&mut self, n: usize, _: u64) {
        Plain::unmap(self, place(n), PAGES as usize);
    }

    fn tidy(&mut self) {
        self.reserve_again(0, AREAS as usize * (PAGES as usize + 1));
    }
}

/// The first page of the `n`-th area of the plain side: a page between two areas stays empty.
fn place(n: usize) -> usize {
    n * (PAGES as usize + 1)
}

/// The figures of a sample, in ns for each area.
const FIGURES: usize = 3;
const WHOLE: usize = 0;
const WAITS: usize = 1;
const ALL: usize = 2;

fn sample(
    side: &mut impl Side,
    lists: &[Vec<PfnT>],
    protection: Protection,
    peer: &Peer,
) -> [f64; FIGURES] {
    let (mut mapping, mut waiting) = (Duration::ZERO, Duration::ZERO);
    for (n, frames) in lists.iter().enumerate() {
        peer.see();
        let begun = Instant::now();
        let address = side.map(n, frames, protection);
        mapping += begun.elapsed();
        touch(
            core::ptr::with_exposed_provenance_mut(address as usize),
            frames.len(),
            protection,
        );
        peer.see();
        let begun = Instant::now();
        side.unmap(n, address);
        waiting += begun.elapsed();
    }
    peer.see();
    let begun = Instant::now();
    side.purge();
    let all = waiting + begun.elapsed();
    side.tidy();
    [mapping + all, waiting, all].map(|time| time.as_nanos() as f64 / lists.len() as f64)
}

/// Whether somebody has to be interrupted.
fn with_peer(
    peer: &Peer,
    running: bool,
    pairs: impl FnOnce() -> [Pairs; FIGURES],
) -> [Pairs; FIGURES] {
    peer.want(running);
    let taken = pairs();
    peer.want(false);
    taken
}

/// Adds the lines of this section.
pub(crate) fn measure(report: &mut Report) {
    let ram = host::ram(4096);
    let peer = Peer::start(Arc::clone(&ram));
    cpus::pin(0);
    let lists: Vec<_> = (0..AREAS)
        .map(|n| host::scattered(&*ram, n, PAGES))
        .collect();
    let config = VmallocConfig::for_cpus(2);
    let mut lazy = Ours::new(&ram, config);
    let mut eager = Ours::new(&ram, config.eager());
    let mut plain = Plain::new(Arc::clone(&ram), place(AREAS as usize));
    let pairs = report.scaled(60, 8);
    for running in [true, false] {
        let who = if running {
            "a thread running beside"
        } else {
            "alone"
        };
        for (protection, how) in [
            (Protection::Read, "for reading"),
            (Protection::ReadWrite, "for writing"),
        ] {
            let what = format!("16 frames, mapped {how}, {who}");
            let against_eager = with_peer(&peer, running, || {
                turns::alternate(
                    pairs,
                    || sample(&mut lazy, &lists, protection, &peer),
                    || sample(&mut eager, &lists, protection, &peer),
                )
            });
            // Alone nobody is told, and there is nothing to put off but the call.
            let judged = if running {
                Target::AtLeast(5.0)
            } else {
                Target::Informs
            };
            for (figure, name, target) in [
                (WAITS, "unmap, what its caller waits for", judged),
                (ALL, "unmap, with its share of the purge", judged),
                (
                    WHOLE,
                    "map + unmap, with its share of the purge",
                    Target::Informs,
                ),
            ] {
                add(
                    report,
                    &format!("{name}: {what}"),
                    "ours, eagerly",
                    target,
                    &against_eager[figure],
                );
            }
            let against_plain = with_peer(&peer, running, || {
                turns::alternate(
                    pairs,
                    || sample(&mut lazy, &lists, protection, &peer),
                    || sample(&mut plain, &lists, protection, &peer),
                )
            });
            for (figure, name) in [
                (WAITS, "unmap, what its caller waits for"),
                (WHOLE, "map + unmap, with its share of the purge"),
            ] {
                let against = "16 mmap, 1 munmap";
                add(
                    report,
                    &format!("{name}: {what}"),
                    against,
                    Target::Informs,
                    &against_plain[figure],
                );
            }
        }
    }
}

fn add(report: &mut Report, name: &str, against: &str, target: Target, pairs: &Pairs) {
    let line = Line {
        name,
        against,
        unit: "ns",
        figure: Figure::Speed,
        target,
    };
    report.add(&line, pairs);
}
