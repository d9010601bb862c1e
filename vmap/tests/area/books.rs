//! Random calls, compared with books that are as simple as can be.

use alloc::collections::BTreeMap;

use pageless_fault::{MaySleep, Protection, VirtAddr};
use pageless_pfn::PfnT;
use pageless_vmap::area::{Aliased, AreaState, RamMapping, VmapError, VunmapError};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use crate::rig::{Rig, TestVmalloc, paged, small, special};

/// Pages of the space.
const PAGES: u64 = 1024;
/// Pages that may wait.
const CAP: u64 = 150;

#[derive(Debug, Clone)]
enum Op {
    /// So many frames from this one on, every so many of them with a descriptor, in this order.
    Vmap {
        first: u64,
        count: u64,
        step: u64,
    },
    /// The area that is this one of those in use.
    Vunmap {
        which: usize,
        atomic: bool,
    },
    /// An address that no area begins at.
    VunmapWrong {
        page: u64,
    },
    MapRam {
        first: u64,
        count: u64,
    },
    UnmapRam {
        which: usize,
    },
    Purge,
    Read {
        page: u64,
        pages: usize,
    },
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let op = prop_oneof![
        6 => (0..900_u64, 1..40_u64, 1..4_u64)
            .prop_map(|(first, count, step)| Op::Vmap { first, count, step }),
        1 => (0..800_u64, 100..200_u64).prop_map(|(first, count)| Op::Vmap { first, count, step: 1 }),
        6 => (any::<usize>(), any::<bool>()).prop_map(|(which, atomic)| Op::Vunmap { which, atomic }),
        1 => (0..PAGES).prop_map(|page| Op::VunmapWrong { page }),
        3 => (0..900_u64, 1..65_u64).prop_map(|(first, count)| Op::MapRam { first, count }),
        3 => any::<usize>().prop_map(|which| Op::UnmapRam { which }),
        1 => Just(Op::Purge),
        1 => (0..PAGES, 1..20_usize).prop_map(|(page, pages)| Op::Read { page, pages }),
    ];
    prop::collection::vec(op, 1..60)
}

/// What a naive observer knows: which page shows which frame, and what waits.
#[derive(Default)]
struct Oracle {
    /// By first address: the frames.
    areas: BTreeMap<u64, Vec<PfnT>>,
    /// Unmapped, and not known to be flushed: first page and pages, guard included.
    waiting: Vec<(u64, u64)>,
    ram: Vec<(RamMapping, Vec<PfnT>)>,
    aliased: Vec<(Aliased<usize>, u64)>,
    /// How often a descriptor is referenced, by frame.
    references: BTreeMap<u64, u32>,
    /// References that go with the next purge.
    going: Vec<u64>,
    /// References of areas that have been purged: each is given back by and by.
    returning: Vec<u64>,
}

struct World<'w, R: Rig> {
    rig: &'w R,
    vm: TestVmalloc<R>,
    base: u64,
    oracle: Oracle,
    purges: u64,
}

impl<R: Rig> World<'_, R> {
    fn page(&self, address: VirtAddr) -> u64 {
        (address.get() - self.base) / 4096
    }

    fn address(&self, page: u64) -> VirtAddr {
        VirtAddr::new(self.base + page * 4096)
    }

    /// A purge may have happened meanwhile: if so, nothing of before waits.
    fn follow(&mut self) {
        let purges = self.vm.counters().purges;
        if purges != self.purges {
            self.purges = purges;
            self.flushed();
        }
    }

    fn flushed(&mut self) {
        self.oracle.waiting.clear();
        for frame in &self.oracle.going {
            *self.oracle.references.get_mut(frame).unwrap() -= 1;
        }
        self.oracle.returning.append(&mut self.oracle.going);
        for (aliased, pages) in self.oracle.aliased.drain(..) {
            assert_eq!(self.vm.unaliased(aliased).unwrap() as u64, pages);
        }
    }

    fn step(&mut self, ctx: &MaySleep, op: &Op) {
        match *op {
            Op::Vmap { first, count, step } => {
                let frames: Vec<_> = (0..count)
                    .map(|n| {
                        let pfn = self.rig.frame((first + n * step) % 1024);
                        if n % 3 == 0 { paged(pfn) } else { special(pfn) }
                    })
                    .collect();
                let mapped = self.vm.vmap(ctx, &frames, Protection::Read);
                self.follow();
                match mapped {
                    Ok(at) => {
                        let page = self.page(at);
                        // Nobody else's, nor what waits.
                        for (other, frames) in &self.oracle.areas {
                            let end = other + frames.len() as u64 + 1;
                            assert!(page >= end || page + count < *other, "{at} is in use");
                        }
                        for (other, pages) in &self.oracle.waiting {
                            let apart = page >= other + pages || page + count < *other;
                            assert!(apart, "{at} is not flushed");
                        }
                        for frame in frames.iter().step_by(3) {
                            *self.oracle.references.entry(frame.pfn().get()).or_default() += 1;
                        }
                        self.oracle.areas.insert(page, frames);
                    }
                    Err(VmapError::Alloc(_)) => {
                        // Only if it is true: the largest hole that a naive observer sees is too small.
                        assert!(self.largest() <= count, "{mapped:?}");
                    }
                    Err(other) => panic!("{other:?}"),
                }
            }
            Op::Vunmap { which, atomic } => {
                let nth = which.checked_rem(self.oracle.areas.len());
                let Some((&page, _)) = nth.and_then(|n| self.oracle.areas.iter().nth(n)) else {
                    return;
                };
                let frames = self.oracle.areas.remove(&page).unwrap();
                let going = frames.iter().step_by(3).map(|frame| frame.pfn().get());
                // A purge of now may begin before it is unmapped, or after.
                self.oracle.going.extend(going);
                self.oracle.waiting.push((page, frames.len() as u64 + 1));
                let at = self.address(page);
                if atomic {
                    let _backlog = self.vm.vunmap_atomic(at).unwrap();
                } else {
                    self.vm.vunmap(ctx, at).unwrap();
                    assert!(self.vm.counters().lazy_pages <= CAP);
                }
                if atomic {
                    return;
                }
                self.follow_unmapped(page, frames);
            }
            Op::VunmapWrong { page } => {
                if !self.oracle.areas.contains_key(&page) {
                    let refused = self.vm.vunmap(ctx, self.address(page));
                    assert!(
                        matches!(
                            refused,
                            Err(VunmapError::NoSuchArea { .. }
                                | VunmapError::AlreadyUnmapped { .. }
                                | VunmapError::Held { .. })
                        ),
                        "{refused:?}"
                    );
                    self.follow();
                }
            }
            Op::MapRam { first, count } => {
                let frames: Vec<_> = (0..count)
                    .map(|n| special(self.rig.frame((first + n) % 1024)))
                    .collect();
                let mapped = self.vm.vm_map_ram(ctx, &frames, Protection::Read);
                self.follow();
                if let Ok(mapping) = mapped {
                    self.oracle.ram.push((mapping, frames));
                }
            }
            Op::UnmapRam { which } => {
                if let Some(nth) = which.checked_rem(self.oracle.ram.len()) {
                    let (mapping, frames) = self.oracle.ram.swap_remove(nth);
                    let aliased = self.vm.vm_unmap_ram(mapping, frames.len()).unwrap();
                    let aliased = self.vm.unaliased(aliased).unwrap_err();
                    self.oracle.aliased.push((aliased, frames.len() as u64));
                }
            }
            Op::Purge => {
                self.vm.purge(ctx).unwrap();
                self.purges = self.vm.counters().purges;
                self.flushed();
                assert_eq!(self.vm.counters().flushed_areas, 0);
            }
            Op::Read { page, pages } => {
                let mut bytes = vec![1; pages * 4096];
                let found = self.vm.vread(self.address(page), &mut bytes);
                let shown = (page..page + pages as u64)
                    .filter(|page| self.shown(*page).is_some())
                    .count();
                assert_eq!(found.read, shown * 4096);
                assert_eq!(found.zeroed, (pages - shown) * 4096);
            }
        }
    }

    /// After an unmapping that may have purged: before or behind it.
    fn follow_unmapped(&mut self, page: u64, frames: Vec<PfnT>) {
        let purges = self.vm.counters().purges;
        if purges == self.purges {
            return;
        }
        self.purges = purges;
        self.flushed();
        if self.vm.counters().lazy_pages > 0 {
            // It came first, and did not cover this area, which was the last.
            for frame in frames.iter().step_by(3).rev() {
                let frame = frame.pfn().get();
                *self.oracle.references.get_mut(&frame).unwrap() += 1;
                assert_eq!(self.oracle.returning.pop(), Some(frame));
                self.oracle.going.push(frame);
            }
            self.oracle.waiting.push((page, frames.len() as u64 + 1));
        }
    }

    /// What page `page` shows.
    fn shown(&self, page: u64) -> Option<PfnT> {
        let areas = self.oracle.areas.range(..=page).next_back();
        let in_area = areas.and_then(|(first, frames)| frames.get((page - first) as usize));
        in_area.copied().or_else(|| {
            self.oracle.ram.iter().find_map(|(mapping, frames)| {
                let first = self.page(mapping.address());
                frames.get(page.checked_sub(first)? as usize).copied()
            })
        })
    }

    /// The most pages in a row that show nothing and wait for nothing.
    fn largest(&self) -> u64 {
        let mut taken = vec![false; PAGES as usize];
        for info in self.vm.areas() {
            for page in self.page(info.start)..self.page(info.end) {
                taken[page as usize] = true;
            }
        }
        let runs = taken.split(|taken| *taken).map(<[bool]>::len);
        runs.max().unwrap_or(0) as u64
    }

    fn check(&mut self, ctx: &MaySleep, regions: &dyn Fn(&MaySleep, u64) -> u32) {
        self.vm.self_check().unwrap();
        if self.vm.counters().flushed_areas == 0 {
            self.oracle.returning.clear();
        }
        for page in 0..PAGES {
            let shown = self.vm.vmalloc_to_pfn(self.address(page));
            assert_eq!(
                shown,
                self.shown(page).map(|frame| frame.pfn()),
                "page {page}"
            );
        }
        for (frame, count) in &self.oracle.references {
            let returning = self.oracle.returning.iter().filter(|other| *other == frame);
            let most = *count + returning.count() as u32;
            let found = regions(ctx, *frame);
            assert!(
                (*count..=most).contains(&found),
                "{found} references of frame {frame}, not {count} to {most}"
            );
        }
        let busy: Vec<_> = self
            .vm
            .areas()
            .into_iter()
            .filter(|area| area.state == AreaState::Busy && area.referenced.get() > 0)
            .map(|area| self.page(area.start))
            .collect();
        assert!(busy.iter().eq(self.oracle.areas.keys()));
    }
}

pub(crate) fn the_books_agree_with_a_naive_oracle<R: Rig>(rig: &R) {
    let cases = R::rounds(300).max(8) as u32;
    let mut runner = TestRunner::new(Config {
        cases,
        failure_persistence: None,
        max_shrink_iters: 200,
        ..Config::default()
    });
    let regions = rig.regions();
    let end = runner.run(&ops(), |ops| {
        rig.on_cpu(|ctx| {
            let config = small(CAP).nodes(3);
            let vm = pageless_vmap::area::Vmalloc::new(rig.space(PAGES), regions.clone(), config);
            let base = pageless_fault::Vspace::base(vm.space()).get();
            let references = |ctx: &MaySleep, frame: u64| {
                let pfn = pageless_pfn::Pfn::try_new(frame).unwrap();
                crate::rig::references(&regions, ctx, pfn)
            };
            let mut world = World {
                rig,
                vm,
                base,
                oracle: Oracle::default(),
                purges: 0,
            };
            for op in &ops {
                world.step(ctx, op);
                world.check(ctx, &references);
            }
            // To the end: nothing remains but a block for small mappings at most.
            for page in world.oracle.areas.keys() {
                world.vm.vunmap(ctx, world.address(*page)).unwrap();
            }
            for (mapping, _) in world.oracle.ram.drain(..) {
                let _aliased = world.vm.vm_unmap_ram(mapping, ()).unwrap();
            }
            world.vm.purge(ctx).unwrap();
            world.vm.self_check().unwrap();
            assert!(
                world.vm.areas().len() <= usize::from(pageless_fault::Cpus::cpus(world.vm.space()))
            );
            assert_eq!(world.vm.counters().lazy_pages, 0);
            for frame in world.oracle.references.keys() {
                assert_eq!(references(ctx, *frame), 0);
            }
        });
        Ok(())
    });
    if let Err(error) = end {
        panic!("{error}");
    }
}
