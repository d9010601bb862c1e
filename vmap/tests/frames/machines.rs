//! The same on the machines there are: what is in a frame is its owner's, whichever CPU asks.

use alloc::sync::Arc;

use pageless_fault::host::HostRam;
use pageless_fault::shootdown::CpuId;
use pageless_fault::sim::schedule::Schedule;
use pageless_fault::sim::{ScheduledBody, SimConfig, SimMachine, SimRam};
use pageless_fault::{FrameMemory, MaySleep};
use pageless_pfn::{FrameCount, Pfn, PfnRange};
use pageless_vmap::frames::{FrameAllocator, FrameConfig, Gfp, PageBlock, PerCpuPlan};

use crate::{bare, frames, order};

const FRAMES: u64 = 64;

fn config() -> FrameConfig {
    FrameConfig {
        percpu: PerCpuPlan::Fixed {
            batch: frames(3),
            high: frames(5),
        },
        ..bare()
    }
}

fn host() -> HostRam {
    let start = Pfn::try_new(0x1_0000).unwrap();
    HostRam::new(PfnRange::try_new(start, frames(FRAMES)).unwrap()).unwrap()
}

fn sim(cpus: u16) -> SimMachine {
    SimMachine::new(SimConfig {
        cpus,
        ..SimConfig::default()
    })
    .unwrap()
}

/// Takes blocks, signs their frames, and reads the signature before it gives them back.
fn sign<M: FrameMemory>(allocator: &FrameAllocator<M>, who: u64, rounds: u32) {
    let ctx = MaySleep::claim();
    let mut rng = fastrand::Rng::with_seed(who);
    let mut held: Vec<PageBlock> = Vec::new();
    let memory = allocator.memory();
    let signature = |pfn: Pfn| (who << 32 | pfn.get()).to_le_bytes();
    let release = |block: PageBlock| {
        for pfn in block.frames() {
            let mut read = [0; 8];
            memory.read(pfn.phys(), &mut read).unwrap();
            assert_eq!(read, signature(pfn), "{pfn} was written by somebody else");
        }
        allocator.free(block);
    };
    for _ in 0..rounds {
        if held.is_empty() || rng.u8(..8) < 5 {
            let zeroed = rng.bool();
            let gfp = if rng.bool() {
                Gfp::atomic()
            } else {
                Gfp::kernel(&ctx)
            };
            let gfp = if zeroed { gfp.zeroed() } else { gfp };
            let Ok(block) = allocator.alloc(&gfp, order(rng.u8(..4))) else {
                continue;
            };
            for pfn in block.frames() {
                if zeroed {
                    let mut read = [1; 8];
                    memory.read(pfn.phys(), &mut read).unwrap();
                    assert_eq!(read, [0; 8], "{pfn} is not zero");
                }
                memory.write(pfn.phys(), &signature(pfn)).unwrap();
            }
            held.push(block);
        } else {
            release(held.swap_remove(rng.usize(..held.len())));
        }
    }
    held.into_iter().for_each(release);
}

fn all_is_free<M: FrameMemory>(allocator: &FrameAllocator<M>) {
    allocator.self_check().unwrap();
    allocator.drain_percpu();
    let statistics = allocator.statistics();
    assert_eq!(statistics.free(), FrameCount::new(FRAMES));
    let free = statistics.zones[0].frames;
    // Blocks are where their own size says: how many there are depends on where the memory begins.
    let whole = FrameAllocator::new(allocator.memory().clone(), config()).unwrap();
    assert_eq!(statistics.blocks(), whole.statistics().blocks(), "{free}");
}

#[test]
fn on_the_host_with_threads() {
    let allocator = FrameAllocator::new(Arc::new(host()), config()).unwrap();
    std::thread::scope(|scope| {
        for who in 1..=3 {
            let allocator = &allocator;
            scope.spawn(move || sign(allocator, who, 1000));
        }
    });
    all_is_free(&allocator);
}

#[test]
fn on_the_modelled_machine_under_many_schedules() {
    let mut used = [0; 3];
    for seed in 0..40 {
        let machine = sim(3);
        let ram: SimRam = machine.ram(frames(FRAMES)).unwrap();
        let allocator = FrameAllocator::new(Arc::new(ram), config()).unwrap();
        let bodies = (0..3_u64).map(|cpu| {
            let allocator = &allocator;
            let body: ScheduledBody<'_> = Box::new(move |_| sign(allocator, seed * 8 + cpu, 30));
            body
        });
        let tasks = machine.tasks(bodies.collect()).unwrap();
        let run = Schedule::random(seed).run(tasks);
        assert!(run.is_ok(), "seed {seed}: {}", run.unwrap_err());
        assert_eq!(machine.stale_hits(), 0, "{:?}", machine.incidents());
        all_is_free(&allocator);
        for (used, list) in used.iter_mut().zip(&allocator.statistics().zones[0].lists) {
            *used += u32::from(list.counts.taken > 0);
        }
    }
    // Each CPU had a list of its own.
    assert!(used.iter().all(|&runs| runs > 20), "{used:?}");
}

#[test]
fn the_modelled_machine_poisons_what_comes_back() {
    let machine = sim(1);
    let ram = Arc::new(machine.ram(frames(FRAMES)).unwrap());
    let allocator = FrameAllocator::new(ram, config()).unwrap();
    machine
        .run_on(CpuId::new(0), |_| {
            let block = allocator.alloc(&Gfp::atomic().zeroed(), order(2)).unwrap();
            let whole = block.frames();
            allocator.free(block);
            for pfn in whole {
                let mut read = [0; 8];
                allocator.memory().read(pfn.phys(), &mut read).unwrap();
                assert_ne!(read, [0; 8], "{pfn} has not been retired");
            }
        })
        .unwrap();
}
