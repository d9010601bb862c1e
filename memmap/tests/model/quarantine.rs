//! Hazard: a flush that is never proved takes more with it than the chunks it was for, or is waited for.

use pageless_fault::{Completion, MaySleep};
use pageless_memmap::{DetachError, GetError};

use crate::races::{ModelMemmap, attach, attach_with, pfn};

/// One chunk, the only one of its leaf table, quarantined.
fn quarantine_one(memmap: &ModelMemmap, control: &crate::machine::Control) {
    let ctx = MaySleep::claim();
    drop(memmap.get(&ctx, pfn(5)).unwrap());
    *control.grade.lock().unwrap() = Some(Completion::Entered);
    memmap.reclaim(&ctx, 0).unwrap_err();
    memmap.self_check().unwrap();
}

#[test]
fn a_neighbour_whose_leaf_table_may_be_gone_is_refused_not_waited_for() {
    let ctx = MaySleep::claim();
    let (memmap, control) = attach(4096);
    quarantine_one(&memmap, &control);
    assert!(matches!(
        memmap.get(&ctx, pfn(64 * 7)),
        Err(GetError::Quarantined { .. })
    ));
    assert_eq!(memmap.counters().quarantined_bytes, 4096);
    control.assert_clean();
}

#[test]
fn a_neighbour_whose_leaf_table_stayed_is_served() {
    let ctx = MaySleep::claim();
    let (memmap, control) = attach(4096);
    let kept = memmap.get(&ctx, pfn(64)).unwrap();
    quarantine_one(&memmap, &control);
    drop(memmap.get(&ctx, pfn(64 * 7)).unwrap());
    drop(kept);
    control.assert_clean();
}

#[test]
fn a_full_budget_is_still_an_error_within_bounded_time() {
    let ctx = MaySleep::claim();
    // Three chunks and their table.
    let (memmap, control) = attach_with(4096, 4 * 4096, 0);
    let first = memmap.get(&ctx, pfn(64)).unwrap();
    quarantine_one(&memmap, &control);
    let second = memmap.get(&ctx, pfn(64 * 2)).unwrap();
    assert!(matches!(
        memmap.get(&ctx, pfn(64 * 3)),
        Err(GetError::BudgetPinned { .. })
    ));
    drop((first, second));
    control.assert_clean();
}

#[test]
fn detaching_ends_and_says_what_is_left() {
    let ctx = MaySleep::claim();
    let (memmap, control) = attach(4096);
    quarantine_one(&memmap, &control);
    assert_eq!(
        memmap.detach(&ctx, || false),
        Err(DetachError::Quarantined { bytes: 4096 })
    );
    assert_eq!(memmap.detach(&ctx, || false), Err(DetachError::Detached));
    assert_eq!(memmap.counters().quarantined_bytes, 4096);
}
