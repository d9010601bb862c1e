//! Hazard: time is taken for proof. A CPU whose timer is stopped never sweeps, however long one waits.

use alloc::sync::Arc;

use pageless_fault::shootdown::{CpuId, PolicyKind, Processor};
use pageless_fault::sim::schedule::{Program, Schedule};
use pageless_fault::sim::{ScheduledBody, SimConfig, SimMachine, Speculation};
use pageless_fault::{MaySleep, UnmapError};
use pageless_memmap::{Counters, Reclaimed};

use crate::world::{
    CHUNK, Stage, assert_clean, attach, chunk, config, over_seeds, pin, program, touch,
};

const NEVER_TICKS: CpuId = CpuId::new(1);

fn machine(policy: PolicyKind) -> SimMachine {
    SimMachine::new(SimConfig {
        tickless: Some(NEVER_TICKS),
        tick_every: 4,
        patience: 300,
        speculation: Speculation::Off,
        ..config(2, policy)
    })
    .unwrap()
}

/// CPU 1 uses chunk 0 all the time, without ticks; CPU 0 takes it away, tells `end` how that went, and asks for memory.
fn sweep<'a>(
    machine: &SimMachine,
    end: impl FnOnce(Result<(), UnmapError>) + 'a,
    check: impl FnOnce(Counters) + 'a,
) -> Program<'a> {
    let memmap = attach(machine, 3, 1);
    let stage = Stage::default();
    let bodies: Vec<ScheduledBody<'a>> = vec![
        {
            let (memmap, stage) = (Arc::clone(&memmap), stage.clone());
            Box::new(move |cpu| {
                let ctx = MaySleep::claim();
                stage.wait(cpu, 1);
                // Another chunk of the table stays: one that goes with its table is flushed by interrupt.
                let stays = pin(&memmap, &ctx, 1);
                end(loop {
                    match memmap.reclaim(&ctx, 0) {
                        // The other holds it just now.
                        Ok(Reclaimed { chunks: 0, .. }) => cpu.relax(0),
                        other => break other.map(drop),
                    }
                });
                touch(&memmap, &ctx, 2);
                drop(stays);
                stage.reach(2);
            })
        },
        {
            let (memmap, stage) = (Arc::clone(&memmap), stage.clone());
            Box::new(move |_| {
                touch(&memmap, &MaySleep::claim(), 0);
                stage.reach(1);
                while stage.now() < 2 {
                    drop(memmap.try_get(chunk(0)));
                }
                // Once more, when the frame may have another owner.
                drop(memmap.try_get(chunk(0)));
            })
        },
    ];
    program(machine, bodies, move || {
        let counters = memmap.counters();
        drop(memmap);
        check(counters);
    })
}

#[test]
fn a_sweep_that_a_tickless_cpu_never_makes_frees_nothing() {
    over_seeds("sweep", 100, || {
        let machine = machine(PolicyKind::Sweep);
        let (seen, checked) = (machine.clone(), machine.clone());
        let end = move |reclaimed| {
            assert!(
                matches!(reclaimed, Err(UnmapError::Refused { errno: 110, .. })),
                "time was taken for proof: {reclaimed:?}"
            );
            assert_eq!(seen.counters().given_up, 1);
        };
        sweep(&machine, end, move |counters| {
            assert_eq!(counters.quarantined_bytes, CHUNK);
            assert_clean(&checked);
        })
    });
}

#[test]
fn two_ticks_of_ones_own_are_not_a_sweep_of_others_and_the_detector_sees_it() {
    let mut caught = 0;
    for seed in 0..100 {
        let machine = machine(PolicyKind::SweepTimed);
        let end = |reclaimed: Result<(), UnmapError>| reclaimed.unwrap();
        // What CPU 1 reads out of another's frame may confuse anything: only the detector is asked.
        let _ = Schedule::random(seed)
            .steps_at_most(100_000)
            .run(sweep(&machine, end, |_| ()));
        caught += u32::from(machine.stale_hits() > 0);
    }
    assert!(caught > 50, "stale hits under {caught} of 100 schedules");
}
