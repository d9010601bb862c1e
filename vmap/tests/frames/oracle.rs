//! Any sequence of steps, against a flag for each frame.
//!
//! The oracle knows which frames are out and nothing else. What is in the lists of CPUs counts as free, but does not merge: so after
//! they have been given back, the free blocks must be exactly the largest that the flags allow.

use pageless_fault::{FrameMemory, MaySleep};
use pageless_pfn::{FrameCount, PfnRange};
use pageless_vmap::frames::{AllocError, FrameConfig, Gfp, PageBlock, PerCpuPlan};
use proptest::prelude::*;

use crate::memory::run_on;
use crate::{Allocator, HeapMemory, bare, frames, order};

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
    dma: u64,
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

    fn free(&self) -> u64 {
        self.out.iter().filter(|&&out| !out).count() as u64
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

fn run(first: u64, count: u64, dma: u64, max_order: u8, percpu: PerCpuPlan, steps: Vec<Step>) {
    let ctx = MaySleep::claim();
    run_on(0);
    let config = FrameConfig {
        max_order: order(max_order),
        dma_frames: frames(dma),
        lowmem_reserve_ratio: 0,
        percpu,
        ..bare()
    };
    let memory = HeapMemory::new(first, count, 3);
    let allocator = Allocator::new(memory, config).unwrap();
    let mut oracle = Oracle {
        memory: allocator.memory().frames(),
        max_order,
        dma: dma.min(count),
        out: vec![false; count as usize],
    };
    let mut held: Vec<PageBlock> = Vec::new();
    for step in steps {
        match step {
            Step::Alloc {
                order: wanted,
                atomic,
                dma,
            } => {
                let gfp = if atomic {
                    Gfp::atomic()
                } else {
                    Gfp::kernel(&ctx)
                };
                let gfp = if dma { gfp.dma() } else { gfp };
                let end = if dma { oracle.dma } else { count };
                match allocator.alloc(&gfp, order(wanted)) {
                    Ok(block) => {
                        oracle.give(&block);
                        assert_eq!(block.order(), order(wanted));
                        assert!(block.pfn().get() < first + end);
                        held.push(block);
                    }
                    Err(AllocError::OrderTooLarge { .. }) => assert!(wanted > max_order),
                    // Who may not sleep cannot get at what the lists keep apart.
                    Err(error) if atomic && wanted > 0 => {
                        assert!(!matches!(error, AllocError::Injected { .. }));
                    }
                    Err(error) => {
                        let zones = [(0, oracle.dma), (oracle.dma, count)];
                        let searched = if dma { &zones[..1] } else { &zones };
                        let fits = searched.iter().any(|&(from, to)| {
                            oracle.blocks(from, to)[usize::from(wanted)..]
                                .iter()
                                .any(|&blocks| blocks > 0)
                        });
                        assert!(!fits, "{error}, but there is one");
                        if !dma {
                            let free = match error {
                                AllocError::NoMemory { free, .. }
                                | AllocError::Fragmented { free, .. } => free,
                                other => panic!("{other}"),
                            };
                            assert_eq!(free, FrameCount::new(oracle.free()));
                        }
                    }
                }
            }
            Step::Free(index) if !held.is_empty() => {
                let block = held.swap_remove(index.index(held.len()));
                oracle.take(&block);
                allocator.free(block);
            }
            Step::Split(index) if !held.is_empty() => {
                let block = held.swap_remove(index.index(held.len()));
                let whole = block.frames();
                let before = held.len();
                held.extend(allocator.split(block));
                let parts = held[before..].iter().map(PageBlock::pfn);
                assert!(parts.eq(whole), "not the frames of {whole}");
            }
            Step::Free(_) | Step::Split(_) => {}
            Step::RunOn(cpu) => run_on(cpu),
            Step::Drain => {
                allocator.drain_percpu();
                let statistics = allocator.statistics();
                for zone in &statistics.zones {
                    let from = zone.frames.start().get() - first;
                    let expected = oracle.blocks(from, from + zone.frames.count().get());
                    assert_eq!(zone.free.by_order(), expected, "{:?}", zone.kind);
                }
            }
        }
        allocator.self_check().unwrap();
        let statistics = allocator.statistics();
        assert_eq!(statistics.free(), frames(oracle.free()));
        assert_eq!(statistics.owned(), frames(count - oracle.free()));
    }
    for block in held {
        oracle.take(&block);
        allocator.free(block);
    }
    allocator.drain_percpu();
    allocator.self_check().unwrap();
    let whole = oracle.blocks(0, oracle.dma);
    let rest = oracle.blocks(oracle.dma, count);
    let expected: Vec<u64> = whole.iter().zip(&rest).map(|(a, b)| a + b).collect();
    assert_eq!(allocator.statistics().blocks().by_order(), expected);
    run_on(0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn no_frame_is_handed_out_twice_and_free_blocks_are_as_large_as_can_be(
        first in prop_oneof![Just(0_u64), 0..70_u64, Just(4096_u64)],
        count in 1..130_u64,
        dma in prop_oneof![Just(0_u64), 0..60_u64],
        max_order in prop_oneof![0..5_u8, Just(10_u8), Just(20_u8)],
        percpu in prop_oneof![
            Just(PerCpuPlan::None),
            Just(PerCpuPlan::BySize),
            (1..5_u64, 0..5_u64).prop_map(|(batch, more)| PerCpuPlan::Fixed {
                batch: FrameCount::new(batch),
                high: FrameCount::new(batch + more),
            }),
        ],
        steps in steps(),
    ) {
        run(first, count, dma, max_order, percpu, steps);
    }
}
