//! Hazard: a fault that arrives while a chunk's flush is under way gets the old frame again, with whatever CPUs that
//! have not flushed yet still write into it.

use alloc::sync::Arc;

use pageless_fault::MaySleep;
use pageless_fault::shootdown::PolicyKind;
use pageless_fault::sim::schedule::Program;
use pageless_fault::sim::{ScheduledBody, SimMachine};

use crate::world::{assert_clean, attach, config, on, over_seeds, pin, program, safe};

/// One CPU takes a chunk away, the other wants it all the time.
fn taken_and_wanted(policy: PolicyKind) -> Program<'static> {
    let machine = SimMachine::new(config(2, policy)).unwrap();
    let memmap = attach(&machine, 2, 1);
    on(&machine, 1, |ctx| {
        pin(&memmap, ctx, 0).set_private(0, 0xdead);
    });
    let (reclaimed, wanted) = (Arc::clone(&memmap), Arc::clone(&memmap));
    let bodies: Vec<ScheduledBody<'static>> = vec![
        Box::new(move |_| {
            reclaimed.reclaim(&MaySleep::claim(), 0).unwrap();
        }),
        Box::new(move |_| {
            let ctx = MaySleep::claim();
            let mut last = None;
            for _ in 0..3 {
                let page = pin(&wanted, &ctx, 0);
                let generation = wanted.chunk(page.pfn()).unwrap().generation;
                let kept = last.is_none_or(|last| last == generation);
                let found = page.private(0);
                assert_eq!(page.references(), 1);
                if last.is_none() {
                    // Which it is, the old one or a new one, only its contents say.
                    assert!(matches!(found, 0 | 0xdead), "{found:#x} in fresh memory");
                } else {
                    assert_eq!(
                        found,
                        if kept { 0xdead } else { 0 },
                        "the old frame is back"
                    );
                }
                page.set_private(0, 0xdead);
                last = Some(generation);
            }
        }),
    ];
    let checked = machine.clone();
    program(&machine, bodies, move || {
        memmap.self_check().unwrap();
        assert_clean(&checked);
    })
}

#[test]
fn a_fault_during_the_flush_never_gets_the_old_frame() {
    for policy in safe() {
        over_seeds(policy.name(), 100, || taken_and_wanted(policy));
    }
}
