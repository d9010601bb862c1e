//! Hazard: a page table is used again while some CPU still walks through it.

use alloc::sync::Arc;

use pageless_fault::MaySleep;
use pageless_fault::shootdown::PolicyKind;
use pageless_fault::sim::schedule::Program;
use pageless_fault::sim::{ScheduledBody, SimMachine};

use crate::world::{
    CHUNKS_OF_A_TABLE, assert_clean, attach, config, over_seeds, program, safe, touch,
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
                    touch(
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

#[test]
fn no_walk_goes_through_a_table_that_has_been_freed() {
    for policy in safe() {
        over_seeds(policy.name(), 200, || tables_that_come_and_go(policy));
    }
}
