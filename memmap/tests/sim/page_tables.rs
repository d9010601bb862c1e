//! Hazard: a page table is used again while some CPU still walks through it.

use alloc::sync::Arc;

use pageless_fault::MaySleep;
use pageless_fault::shootdown::PolicyKind;
use pageless_fault::sim::schedule::{Program, explore};
use pageless_fault::sim::{ScheduledBody, SimConfig, SimMachine, Speculation};

use crate::world::{
    CHUNKS_OF_A_TABLE, assert_clean, attach, chunk, config, on, over_seeds, pin, program, safe,
    touch, visit,
};

/// Three CPUs under a budget of three chunks in a table each: every fault takes the last chunk of some table away, and the
/// table with it.
fn tables_that_come_and_go(policy: PolicyKind) -> Program<'static> {
    let machine = SimMachine::new(config(3, policy)).unwrap();
    let memmap = attach(&machine, 3, 3);
    let bodies = (0..3)
        .map(|n| -> ScheduledBody<'static> {
            let memmap = Arc::clone(&memmap);
            Box::new(move |_| {
                let ctx = MaySleep::claim();
                for round in 0..4 {
                    // The same page in each table: the one next to it is what speculation asks for.
                    visit(
                        &memmap,
                        &ctx,
                        (n + round) % 4 * CHUNKS_OF_A_TABLE + round % 2,
                    );
                }
            })
        })
        .collect();
    let checked = machine.clone();
    program(&machine, bodies, move || {
        assert!(memmap.counters().chunks_reclaimed > 0);
        memmap.self_check().unwrap();
        assert_clean(&checked);
        drop(memmap);
        assert_clean(&checked);
    })
}

/// One CPU takes the last chunk of a table away, the other fills the one beside it.
fn the_last_chunk_and_its_neighbour() -> Program<'static> {
    let machine = SimMachine::new(SimConfig {
        speculation: Speculation::Off,
        nmi_one_in: 0,
        ..config(2, PolicyKind::ConcurrentIpi)
    })
    .unwrap();
    let memmap = attach(&machine, 2, 1);
    on(&machine, 0, |ctx| touch(&memmap, ctx, 0));
    let (taken, filled) = (Arc::clone(&memmap), Arc::clone(&memmap));
    let bodies: Vec<ScheduledBody<'static>> = vec![
        Box::new(move |_| {
            taken.reclaim(&MaySleep::claim(), 0).unwrap();
        }),
        Box::new(move |cpu| {
            let ctx = MaySleep::claim();
            let page = pin(&filled, &ctx, 1);
            page.set_private(0, 7);
            cpu.pause();
            // A reference keeps its memory, whatever becomes of the neighbours.
            let again = filled.get(&ctx, chunk(1)).unwrap();
            assert_eq!((again.private(0), again.references()), (7, 2));
        }),
    ];
    let checked = machine.clone();
    program(&machine, bodies, move || {
        memmap.self_check().unwrap();
        drop(memmap);
        assert_clean(&checked);
    })
}

#[test]
fn a_fill_beside_the_last_chunk_of_a_table_waits_for_the_table_to_go() {
    let explored = explore(2, 1_000_000, the_last_chunk_and_its_neighbour);
    if let Some(failure) = explored.failure {
        panic!("{failure}");
    }
    println!("{} schedules", explored.schedules);
    assert!(explored.complete, "{} schedules", explored.schedules);
}

#[test]
fn no_walk_goes_through_a_table_that_has_been_freed() {
    for policy in safe() {
        over_seeds(policy.name(), 200, || tables_that_come_and_go(policy));
    }
}
