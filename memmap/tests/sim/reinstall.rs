//! Hazard: a fault that arrives while a chunk's flush is under way gets the old frame again, with whatever CPUs that
//! have not flushed yet still write into it.

use alloc::sync::Arc;

use pageless_fault::shootdown::{PolicyKind, SpaceId};
use pageless_fault::sim::schedule::Program;
use pageless_fault::sim::{Level, ScheduledBody, SimMachine};
use pageless_fault::{Machine, MaySleep, Window, WindowLen, WindowOffset, WindowRange};

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

/// The frame of a page that is cleared and not proved flushed belongs to the flush. Under a memmap nobody fills the page meanwhile;
/// whoever does without one gets another frame.
#[test]
fn a_page_that_is_filled_during_its_flush_gets_another_frame() {
    let page = WindowRange::try_new(WindowOffset::new(0), 4096).unwrap();
    for policy in safe() {
        let machine = SimMachine::new(config(2, policy)).unwrap();
        let window = machine.reserve(WindowLen::covering(4096).unwrap(), 4096);
        let window = window.unwrap();
        let mapped = || machine.entry(SpaceId::EVERY, window.base(), Level::Table);
        on(&machine, 0, |ctx| {
            window.populate(page, ctx).unwrap();
            let old = mapped().frame();
            let debt = window.unmap(&[page], ()).map_err(|(_, error)| error);
            window.populate(page, ctx).unwrap();
            assert_ne!(mapped().frame(), old, "{policy:?}: the old frame is back");
            let settled = debt.unwrap().settle(ctx);
            settled.map_err(|(_, error)| error).unwrap();
        });
        drop(window);
        assert_clean(&machine);
    }
}
