//! Hazard: an interrupt is lost, and after a while its CPU is taken to have answered.

use alloc::sync::Arc;

use pageless_fault::shootdown::{PolicyKind, Processor};
use pageless_fault::sim::schedule::Program;
use pageless_fault::sim::{ScheduledBody, SimConfig, SimMachine};
use pageless_fault::{LEAF_TABLE_BYTES, MaySleep, UnmapError};
use pageless_memmap::{DetachError, GetError, Reclaimed, TryGetError};

use crate::world::{
    CHUNK, Stage, assert_clean, attach, chunk, config, on, over_seeds, pin, program, touch,
};

/// CPU 1 has a translation and never hears that it is gone; CPU 0 reclaims.
fn a_lost_interrupt(policy: PolicyKind) -> Program<'static> {
    let machine = SimMachine::new(SimConfig {
        patience: 50,
        ..config(2, policy)
    })
    .unwrap();
    let before = machine.memory().free_frames();
    let memmap = attach(&machine, 2, 2);
    let stage = Stage::default();
    let bodies: Vec<ScheduledBody<'static>> = vec![
        {
            let (memmap, stage, machine) = (Arc::clone(&memmap), stage.clone(), machine.clone());
            Box::new(move |cpu| {
                let ctx = MaySleep::claim();
                stage.wait(cpu, 1);
                let held = machine.memory().free_frames();
                machine.lose_interrupts(1);
                // While the other holds it there is nothing to take.
                let unproved = loop {
                    match memmap.reclaim(&ctx, 0) {
                        Ok(Reclaimed { chunks: 0, .. }) => cpu.relax(0),
                        other => break other,
                    }
                };
                assert!(
                    matches!(unproved, Err(UnmapError::Refused { errno: 110, .. })),
                    "a lost interrupt was taken for an answer: {unproved:?}"
                );
                assert_eq!(
                    machine.memory().free_frames(),
                    held,
                    "a frame went back although nobody answered for it"
                );
                // Whatever wants memory from here on gets other frames.
                touch(&memmap, &ctx, 600);
                stage.reach(2);
            })
        },
        {
            let (memmap, stage) = (Arc::clone(&memmap), stage.clone());
            Box::new(move |_| {
                let ctx = MaySleep::claim();
                pin(&memmap, &ctx, 0).set_private(0, 7);
                stage.reach(1);
                while stage.now() < 2 {
                    // Through the old translation, as long as it likes: it finds the frozen word.
                    match memmap.try_get(chunk(0)) {
                        Ok(page) => assert_eq!(page.private(0), 7),
                        Err(TryGetError::WouldBlock { .. }) => {}
                        Err(error) => panic!("{error}"),
                    }
                }
                let error = memmap.get(&ctx, chunk(0)).unwrap_err();
                assert!(matches!(error, GetError::Quarantined { .. }), "{error}");
            })
        },
    ];
    let checked = machine.clone();
    program(&machine, bodies, move || {
        assert_eq!(checked.counters().given_up, 1);
        assert_eq!((checked.stale_hits(), checked.stale_walks()), (0, 0));
        let counters = memmap.counters();
        assert_eq!(
            (counters.quarantined_bytes, counters.flush_failures),
            (CHUNK, 1)
        );
        assert_eq!(
            counters.used_bytes(),
            2 * (CHUNK + LEAF_TABLE_BYTES),
            "quarantined bytes count as used: {counters:?}"
        );
        memmap.self_check().unwrap();
        let detached = on(&checked, 0, |ctx| memmap.detach(ctx, || true));
        assert_eq!(detached, Err(DetachError::Quarantined { bytes: CHUNK }));
        // The window's own end has everything flushed by everybody: that is a proof.
        drop(memmap);
        assert_eq!(checked.memory().free_frames(), before);
        assert_clean(&checked);
    })
}

#[test]
fn a_lost_interrupt_ends_in_quarantine_and_not_in_reuse() {
    for policy in [
        PolicyKind::SyncIpi,
        PolicyKind::ConcurrentIpi,
        PolicyKind::KernelRange,
        PolicyKind::Resident,
    ] {
        over_seeds(policy.name(), 50, || a_lost_interrupt(policy));
    }
}
