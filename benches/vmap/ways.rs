//! What the host offers for taking many mappings away, each against what an eager purge does: one call for each area.
//!
//! The kernel interrupts other CPUs once for each call, and beside that once for each mapping with an entry that is dirty (mm/memory.c,
//! `zap_present_folio_ptes`: a dirty page's reverse mapping is given up only after a flush). So it counts how a frame was mapped: an entry
//! of a page that has ever been written is made dirty if it is made writable.

use super::host;
use super::peer::Peer;
use super::plain::{Plain, touch};
use super::ratios::{Figure, Line, Report, Target};
use super::{cpus, turns};
use alloc::sync::Arc;
use pageless_fault::Protection;
use pageless_pfn::PfnT;
use std::time::Instant;

const PAGES: usize = 16;
/// Areas that are taken away at once.
const AREAS: usize = 32;
/// From one area to the next: a guard page.
const STRIDE: usize = PAGES + 1;
const SPAN: usize = AREAS * STRIDE;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    /// The reservation over each area.
    Each,
    /// The reservation over all, guard pages included.
    Whole,
    /// No access to all first, then the same.
    ForbidFirst,
    /// No access to all, and no more: nobody can use it, but it is still mapped.
    Forbid,
    /// `MADV_DONTNEED` over all first.
    DiscardFirst,
    /// One `process_madvise(MADV_DONTNEED)` over the areas first.
    DiscardAllFirst,
    /// `munmap` of each page.
    Pages,
}

fn sample(
    way: Way,
    plain: &Plain,
    lists: &[Vec<PfnT>],
    protection: Protection,
    peer: &Peer,
) -> f64 {
    let starts: Vec<usize> = (0..AREAS).map(|area| area * STRIDE).collect();
    for (start, frames) in starts.iter().zip(lists) {
        plain.map(*start, frames, protection);
        touch(plain.at(*start).cast(), PAGES, protection);
    }
    peer.see();
    let begun = Instant::now();
    match way {
        Way::Each => starts
            .iter()
            .for_each(|start| plain.reserve_again(*start, PAGES)),
        Way::Whole => plain.reserve_again(0, SPAN),
        Way::ForbidFirst => {
            plain.forbid(0, SPAN);
            plain.reserve_again(0, SPAN);
        }
        Way::Forbid => plain.forbid(0, SPAN),
        Way::DiscardFirst => {
            plain.discard(0, SPAN);
            plain.reserve_again(0, SPAN);
        }
        Way::DiscardAllFirst => {
            plain.discard_all(&starts, PAGES);
            plain.reserve_again(0, SPAN);
        }
        Way::Pages => {
            for start in &starts {
                (0..PAGES).for_each(|page| plain.unmap(start + page, 1));
            }
        }
    }
    let taken = begun.elapsed();
    plain.reserve_again(0, SPAN);
    taken.as_nanos() as f64 / AREAS as f64
}

/// Adds the lines of this section.
pub(crate) fn measure(report: &mut Report) {
    let ram = host::ram(4096);
    let peer = Peer::start(Arc::clone(&ram));
    cpus::pin(0);
    let plain = Plain::new(Arc::clone(&ram), SPAN);
    let lists: Vec<_> = (0..AREAS as u64)
        .map(|n| host::scattered(&*ram, n, PAGES as u64))
        .collect();
    let pairs = report.scaled(60, 8);
    for (protection, how) in [
        (Protection::Read, "for reading"),
        (Protection::ReadWrite, "for writing"),
    ] {
        for (way, name) in [
            (Way::Whole, "one mmap over all 32"),
            (Way::ForbidFirst, "mprotect, then one mmap over all 32"),
            (
                Way::DiscardFirst,
                "MADV_DONTNEED, then one mmap over all 32",
            ),
            (
                Way::DiscardAllFirst,
                "process_madvise over 32 ranges, then one mmap over all",
            ),
            (Way::Pages, "munmap of each page"),
            (Way::Forbid, "mprotect over all 32, which stay mapped"),
        ] {
            peer.want(true);
            let [taken] = turns::alternate(
                pairs,
                || [sample(way, &plain, &lists, protection, &peer)],
                || [sample(Way::Each, &plain, &lists, protection, &peer)],
            );
            peer.want(false);
            let line = Line {
                name: &format!("{name}: areas of 16 frames, mapped {how}, a thread running beside"),
                against: "one mmap over each",
                unit: "ns",
                figure: Figure::Speed,
                target: Target::Informs,
            };
            report.add(&line, &taken);
        }
    }
}
