//! Any sequence of steps, against a flag for each frame.
//!
//! The oracle knows which frames are out and nothing else. What is in the lists of CPUs counts as free, but does not merge: so after
//! they have been given back, the free blocks must be exactly the largest that the flags allow.

use pageless_fault::{FrameMemory, MaySleep};
use pageless_pfn::PfnRange;
use pageless_vmap::frames::{
    AllocError, FrameConfig, Gfp, PageBlock, PerCpuPlan, WatermarkPlan, Watermarks,
};
use proptest::prelude::*;

use crate::memory::run_on;
use crate::{Allocator, HeapMemory, frames, order};

#[derive(Debug, Clone)]
enum Step {
    Alloc { order: u8, atomic: bool, dma: bool },
    Free(prop::sample::Index),
    Split(prop::sample::Index),
    RunOn(u16),
    Drain,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        8 => (0..6_u8, any::<bool>(), prop::bool::weighted(0.2))
            .prop_map(|(order, atomic, dma)| Step::Alloc { order: order.saturating_sub(1), atomic, dma }),
        7 => any::<prop::sample::Index>().prop_map(Step::Free),
        1 => any::<prop::sample::Index>().prop_map(Step::Split),
        2 => (0..3_u16).prop_map(Step::RunOn),
        1 => Just(Step::Drain),
    ];
    prop::collection::vec(step, 1..120)
}

struct Oracle {
    memory: PfnRange,
    max_order: u8,
    out: Vec<bool>,
}

impl Oracle {
    /// Marks `block`, none of whose frames may be out.
    fn give(&mut self, block: &PageBlock) {
        assert_eq!(
            block.pfn().get() % block.order().frames().get(),
            0,
            "{block:?} is not aligned"
        );
        for pfn in block.frames() {
            let out = &mut self.out[self.memory.index_of(pfn).unwrap() as usize];
            assert!(!*out, "{pfn} of {block:?} is out already");
            *out = true;
        }
    }

    fn take(&mut self, block: &PageBlock) {
        for pfn in block.frames() {
            self.out[self.memory.index_of(pfn).unwrap() as usize] = false;
        }
    }

    /// Free frames in `from..to` of the memory.
    fn free(&self, from: u64, to: u64) -> u64 {
        let out = &self.out[from as usize..to as usize];
        out.iter().filter(|&&out| !out).count() as u64
    }

    /// Free blocks by order in frames `from..to` of the memory, as large as they can be, found the slow way.
    fn blocks(&self, from: u64, to: u64) -> Vec<u64> {
        let base = self.memory.start().get();
        let free = |at: u64| at >= base + from && at < base + to && !self.out[(at - base) as usize];
        let whole = |at: u64, order: u8| (at..at + (1 << order)).all(free);
        let mut blocks = vec![0; usize::from(self.max_order) + 1];
        let mut at = base + from;
        while at < base + to {
            let fits = (0..=self.max_order)
                .rev()
                .find(|&order| at.is_multiple_of(1 << order) && whole(at, order));
            match fits {
                Some(order) => {
                    blocks[usize::from(order)] += 1;
                    at += 1 << order;
                }
                None => at += 1,
            }
        }
        blocks
    }
}

/// What a run is on.
#[derive(Debug, Clone)]
struct Ground {
    first: u64,
    count: u64,
    dma: u64,
    max_order: u8,
    ratio: u64,
    marks: [Watermarks; 2],
    percpu: PerCpuPlan,
}

fn ground() -> impl Strategy<Value = Ground> {
    let marks = (0..12_u64, 0..4_u64, 0..4_u64).prop_map(|(min, low, high)| Watermarks {
        min: frames(min),
        low: frames(min + low),
        high: frames(min + low + high),
    });
    let marks = prop_oneof![Just(Watermarks::default()), marks];
    let percpu = prop_oneof![
        Just(PerCpuPlan::None),
        Just(PerCpuPlan::BySize),
        (1..5_u64, 0..5_u64).prop_map(|(batch, more)| PerCpuPlan::Fixed {
            batch: frames(batch),
            high: frames(batch + more),
        }),
    ];
    (
        prop_oneof![Just(0_u64), 0..70_u64, Just(4096_u64)],
        1..130_u64,
        prop_oneof![Just(0_u64), 0..60_u64],
        prop_oneof![0..5_u8, Just(10_u8), Just(20_u8)],
        prop_oneof![Just(0_u64), 4..40_u64],
        [marks.clone(), marks],
        percpu,
    )
        .prop_map(
            |(first, count, dma, max_order, ratio, marks, percpu)| Ground {
                first,
                count,
                dma: dma.min(count),
                max_order,
                ratio,
                marks,
                percpu,
            },
        )
}

impl Ground {
    /// From which frame to which, and how many stay free there when somebody asks for `dma` memory or not: the best zone first.
    fn zones(&self, dma: bool, atomic: bool) -> Vec<(u64, u64, u64)> {
        let keep = |marks: Watermarks| {
            let min = marks.min.get();
            if atomic {
                let half = min - min / 2;
                half - half / 4
            } else {
                min
            }
        };
        let reserve = match self.ratio {
            0 => 0,
            ratio => (self.count - self.dma) / ratio,
        };
        if dma {
            vec![(0, self.dma, keep(self.marks[0]))]
        } else {
            vec![
                (self.dma, self.count, keep(self.marks[1])),
                (0, self.dma, keep(self.marks[0]) + reserve),
            ]
        }
    }

    fn allocator(&self) -> Allocator {
        let config = FrameConfig {
            max_order: order(self.max_order),
            dma_frames: frames(self.dma),
            lowmem_reserve_ratio: self.ratio,
            watermarks: WatermarkPlan::Fixed {
                dma: self.marks[0],
                normal: self.marks[1],
            },
            percpu: self.percpu,
        };
        Allocator::new(HeapMemory::forgetful(self.first, self.count, 3), config).unwrap()
    }
}

struct Run {
    ground: Ground,
    allocator: Allocator,
    oracle: Oracle,
    held: Vec<PageBlock>,
}

impl Run {
    fn alloc(&mut self, ctx: &MaySleep, wanted: u8, atomic: bool, dma: bool) {
        let zones = self.ground.zones(dma, atomic);
        let before = self.allocator.statistics();
        // A block that exists and may be taken. Single frames are taken from any list, and whoever may sleep has the lists given back;
        // who may not, and wants more, has what is in no list.
        let possible = wanted <= self.ground.max_order
            && zones.iter().any(|&(from, to, keep)| {
                let merged = self.oracle.blocks(from, to);
                let base = self.ground.first + from;
                let zone = before
                    .zones
                    .iter()
                    .find(|z| z.frames.start().get() == base && to > from);
                let there = match zone {
                    Some(zone) if atomic && wanted > 0 => zone.free.by_order(),
                    _ => &merged,
                };
                let free: u64 = (0..)
                    .zip(&merged)
                    .map(|(order, blocks)| blocks << order)
                    .sum();
                let exists = there[usize::from(wanted)..]
                    .iter()
                    .any(|&blocks| blocks > 0);
                exists && free >= keep + (1 << wanted)
            });
        let gfp = if atomic {
            Gfp::atomic()
        } else {
            Gfp::kernel(ctx)
        };
        let gfp = if dma { gfp.dma() } else { gfp };
        match self.allocator.alloc(&gfp, order(wanted)) {
            Ok(block) => {
                assert!(possible, "{block:?}, which should stay");
                assert_eq!(block.order(), order(wanted));
                let at = block.pfn().get() - self.ground.first;
                assert!(zones.iter().any(|&(from, to, _)| from <= at && at < to));
                self.oracle.give(&block);
                self.held.push(block);
            }
            Err(error) => {
                assert!(!possible, "{error}, but there is one");
                let all: u64 = zones
                    .iter()
                    .map(|&(from, to, _)| self.oracle.free(from, to))
                    .sum();
                match error {
                    AllocError::OrderTooLarge { max, .. } => {
                        assert_eq!(max, order(self.ground.max_order));
                        assert!(wanted > self.ground.max_order);
                    }
                    AllocError::NoMemory { free, .. } => {
                        assert_eq!(free, frames(all));
                        assert!(all < 1 << wanted);
                    }
                    AllocError::Fragmented { free, largest, .. } => {
                        assert_eq!(free, frames(all));
                        assert!(all >= 1 << wanted && largest < order(wanted));
                    }
                    AllocError::BelowWatermark { free, keep, .. } => {
                        let zone = zones.iter().find(|&&(from, to, kept)| {
                            frames(self.oracle.free(from, to)) == free && frames(kept) == keep
                        });
                        assert!(zone.is_some(), "{error}");
                        assert!(free.get() < keep.get() + (1 << wanted));
                    }
                    other => panic!("{other}"),
                }
            }
        }
    }

    fn step(&mut self, ctx: &MaySleep, step: &Step) {
        match step {
            &Step::Alloc { order, atomic, dma } => self.alloc(ctx, order, atomic, dma),
            Step::Free(index) if !self.held.is_empty() => {
                let block = self.held.swap_remove(index.index(self.held.len()));
                self.oracle.take(&block);
                self.allocator.free(block);
            }
            Step::Split(index) if !self.held.is_empty() => {
                let block = self.held.swap_remove(index.index(self.held.len()));
                let whole = block.frames();
                let before = self.held.len();
                self.held.extend(self.allocator.split(block));
                let parts = self.held[before..].iter().map(PageBlock::pfn);
                assert!(parts.eq(whole), "not the frames of {whole}");
            }
            Step::Free(_) | Step::Split(_) => {}
            Step::RunOn(cpu) => run_on(*cpu),
            Step::Drain => {
                self.allocator.drain_percpu();
                self.check_merged();
            }
        }
        self.allocator.self_check().unwrap();
        let statistics = self.allocator.statistics();
        let free = self.oracle.free(0, self.ground.count);
        assert_eq!(statistics.free(), frames(free));
        assert_eq!(statistics.owned(), frames(self.ground.count - free));
    }

    /// The lists are empty: free blocks are as large as they can be.
    fn check_merged(&self) {
        for zone in &self.allocator.statistics().zones {
            let from = zone.frames.start().get() - self.ground.first;
            let expected = self.oracle.blocks(from, from + zone.frames.count().get());
            assert_eq!(zone.free.by_order(), expected, "{:?}", zone.kind);
        }
    }

    fn finish(mut self) {
        for block in core::mem::take(&mut self.held) {
            self.oracle.take(&block);
            self.allocator.free(block);
        }
        self.allocator.drain_percpu();
        self.allocator.self_check().unwrap();
        self.check_merged();
        assert_eq!(self.allocator.statistics().owned(), frames(0));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn no_frame_is_handed_out_twice_and_what_is_possible_succeeds(
        ground in ground(),
        steps in steps(),
    ) {
        let ctx = MaySleep::claim();
        run_on(0);
        let allocator = ground.allocator();
        let oracle = Oracle {
            memory: allocator.memory().frames(),
            max_order: ground.max_order,
            out: vec![false; ground.count as usize],
        };
        let mut run = Run { ground, allocator, oracle, held: Vec::new() };
        for step in &steps {
            run.step(&ctx, step);
        }
        run.finish();
        run_on(0);
    }
}
