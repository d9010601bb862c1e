//! Hazard: anything at all. Several CPUs get, write, check and put while others reclaim, until everything is detached and
//! every frame is where it was.

use alloc::sync::Arc;

use pageless_fault::MaySleep;
use pageless_fault::shootdown::PolicyKind;
use pageless_fault::sim::schedule::Program;
use pageless_fault::sim::{Cpu, ScheduledBody, SimConfig, SimMachine};
use pageless_memmap::GetError;

use crate::world::{
    CHUNKS_OF_A_TABLE, SimMemmap, Stage, assert_clean, attach_with_reserve, chunk, config,
    over_seeds, program, safe, within,
};

/// What one CPU does.
fn weather(memmap: &SimMemmap, cpu: &Cpu, ctx: &MaySleep, operations: u32) {
    let mine = usize::from(cpu.id().get());
    let mut random = fastrand::Rng::with_seed(mine as u64);
    for _ in 0..operations {
        // Three chunks in one table, two in another.
        let n = match random.u64(..5) {
            n @ 0..3 => n,
            n => CHUNKS_OF_A_TABLE + n,
        };
        match random.u32(..16) {
            0..2 => {
                memmap.reclaim(ctx, 0).unwrap();
                continue;
            }
            2 => {
                cpu.idle(2);
                continue;
            }
            3 => {
                cpu.with_interrupts_off(|| drop(memmap.try_get(chunk(n))));
                continue;
            }
            _ => {}
        }
        // The first descriptor of the chunk, or one that is frozen later.
        let pfn = if random.bool() {
            chunk(n)
        } else {
            within(n, 40)
        };
        let page = match memmap.get(ctx, pfn) {
            Ok(page) => page,
            // The others hold it all.
            Err(GetError::BudgetPinned { .. }) => continue,
            Err(error) => panic!("{error}"),
        };
        let generation = memmap.chunk(page.pfn()).map(|info| info.generation);
        // This word is this CPU's own as long as it holds the page.
        let tag = random.u32(..);
        page.set_private(mine, tag);
        let second = page.try_clone().unwrap();
        drop(page);
        assert_eq!(second.private(mine), tag, "a word has changed its frame");
        assert_eq!(
            memmap.chunk(second.pfn()).map(|info| info.generation),
            generation,
            "filled again under a reference"
        );
    }
}

fn storm(config: SimConfig, operations: u32, reserve: usize) -> Program<'static> {
    let machine = SimMachine::new(config).unwrap();
    let before = machine.memory().free_frames();
    let of_reserve = reserve as u64;
    let memmap = attach_with_reserve(&machine, 3 + of_reserve, 2 + of_reserve, reserve);
    let left = Stage::default();
    let bodies = (0..config.cpus)
        .map(|n| -> ScheduledBody<'static> {
            let (memmap, left) = (Arc::clone(&memmap), left.clone());
            Box::new(move |cpu| {
                let ctx = MaySleep::claim();
                weather(&memmap, cpu, &ctx, operations);
                left.count();
                if n == 0 {
                    left.wait(cpu, u32::from(config.cpus));
                    memmap.detach(&ctx, || true).unwrap();
                }
            })
        })
        .collect();
    let checked = machine.clone();
    program(&machine, bodies, move || {
        memmap.self_check().unwrap();
        let counters = memmap.counters();
        let tables = counters.page_table_bytes;
        assert_eq!(counters.used_bytes(), tables, "{counters:?}");
        assert!(tables == 0 || !config.frees_leaf_tables);
        assert_eq!(counters.chunks_populated, counters.chunks_reclaimed);
        drop(memmap);
        assert_clean(&checked);
        assert_eq!(checked.memory().free_frames(), before, "frames are lost");
    })
}

#[test]
fn a_memmap_weathers_it_under_every_safe_policy_and_gives_every_frame_back() {
    for policy in safe() {
        for cpus in [2, 3, 5, 8] {
            let name = format!("{} on {cpus} cpus", policy.name());
            let config = config(cpus, policy);
            over_seeds(&name, 100, || storm(config, 40 / u32::from(cpus), 0));
        }
    }
}

#[test]
fn a_cpu_that_is_alone_needs_nobody_elses_flush() {
    let config = config(1, PolicyKind::LocalOnly);
    over_seeds("local-only", 50, || storm(config, 40, 1));
}

#[test]
fn with_tables_that_stay_every_frame_comes_back_with_the_window() {
    for policy in safe() {
        let config = SimConfig {
            frees_leaf_tables: false,
            ..config(3, policy)
        };
        over_seeds(policy.name(), 24, || storm(config, 12, 0));
    }
}

#[test]
fn with_a_reserve_for_lookups_that_cannot_wait_every_frame_comes_back() {
    for policy in safe() {
        let config = config(3, policy);
        over_seeds(policy.name(), 40, || storm(config, 16, 2));
    }
}
