//! Small mappings (`vm_map_ram`) against areas (`vmap`): on the host, where a system call for each frame is nearly all of it, and the books
//! alone.

use super::books::Books;
use super::ratios::{Figure, Line, Report, Target};
use super::{cpus, host, turns};
use pageless_fault::{MaySleep, Protection, Vspace};
use pageless_pfn::PfnT;
use pageless_vmap::area::{NoDescriptors, Vmalloc, VmallocConfig};
use std::time::Instant;

struct Side<'a, S: Vspace> {
    vmalloc: Vmalloc<S, NoDescriptors>,
    ctx: MaySleep,
    frames: &'a [PfnT],
    rounds: u64,
}

impl<'a, S: Vspace> Side<'a, S> {
    fn new(space: S, frames: &'a [PfnT], rounds: u64) -> Self {
        let config = VmallocConfig::for_cpus(2);
        Side {
            vmalloc: Vmalloc::new(space, NoDescriptors, config),
            ctx: host::ctx(),
            frames,
            rounds,
        }
    }

    /// ns for each of some mappings and unmappings, with their share of a purge.
    fn small(&self) -> f64 {
        let begun = Instant::now();
        for _ in 0..self.rounds {
            let mapping = self
                .vmalloc
                .vm_map_ram(&self.ctx, self.frames, Protection::ReadWrite)
                .unwrap();
            let Ok(_aliased) = self.vmalloc.vm_unmap_ram(mapping, ()) else {
                panic!("a small mapping refused to go");
            };
        }
        self.ended(begun)
    }

    fn area(&self) -> f64 {
        let begun = Instant::now();
        for _ in 0..self.rounds {
            let address = self
                .vmalloc
                .vmap(&self.ctx, self.frames, Protection::ReadWrite)
                .unwrap();
            self.vmalloc.vunmap(&self.ctx, address).unwrap();
        }
        self.ended(begun)
    }

    fn ended(&self, begun: Instant) -> f64 {
        self.vmalloc.purge(&self.ctx).unwrap();
        begun.elapsed().as_nanos() as f64 / self.rounds as f64
    }
}

fn add<S: Vspace>(
    report: &mut Report,
    pairs: usize,
    machine: &str,
    space: impl Fn() -> S,
    frames: &[PfnT],
    target: Target,
) {
    // What waits stays below the cap, so that the purge is where it is counted.
    let rounds = 2048 / frames.len() as u64;
    let (ours, theirs) = (
        Side::new(space(), frames, rounds),
        Side::new(space(), frames, rounds),
    );
    let [taken] = turns::alternate(pairs, || [ours.small()], || [theirs.area()]);
    let pages = frames.len();
    let line = Line {
        name: &format!("vm_map_ram + vm_unmap_ram of {pages} frames, {machine}"),
        against: "vmap + vunmap",
        unit: "ns",
        figure: Figure::Cost,
        target,
    };
    report.add(&line, &taken);
}

/// Adds the lines of this section.
pub(crate) fn measure(report: &mut Report) {
    cpus::pin(0);
    let ram = host::ram(256);
    let (many, few) = (report.scaled(200, 40), report.scaled(40, 8));
    for pages in [1, 4, 16, 64] {
        let frames = host::scattered(&*ram, 0, pages);
        let books = || Books::new(2, 1 << 15);
        let target = Target::AtMost(0.333);
        add(
            report,
            many,
            "scattered, the books alone",
            books,
            &frames,
            target,
        );
        let space = || host::space(&ram, 1 << 15);
        add(report, few, "scattered, host", space, &frames, target);
        let frames = host::in_a_row(&*ram, pages);
        add(
            report,
            many,
            "in a row, the books alone",
            books,
            &frames,
            Target::Informs,
        );
        add(
            report,
            few,
            "in a row, host",
            space,
            &frames,
            Target::Informs,
        );
    }
}
