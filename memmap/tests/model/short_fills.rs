//! Hazard: a fill that stops half-way leaks what it brought in, or unmaps it under somebody's feet.

use pageless_fault::MaySleep;
use pageless_memmap::{ChunkState, GetError};

use crate::races::{attach, pfn};

#[test]
fn what_a_short_fill_brought_in_is_kept_counted_and_finished_later() {
    let ctx = MaySleep::claim();
    let (memmap, control) = attach(16 << 10);
    *control.short_fill.lock().unwrap() = Some(8192);
    let error = memmap.get(&ctx, pfn(200)).unwrap_err();
    assert!(
        matches!(error, GetError::NoMemory(short) if short.done == 8192),
        "{error}"
    );

    // The first half is there: 128 descriptors.
    let info = memmap.chunk(pfn(0).pfn()).unwrap();
    assert_eq!(info.state, ChunkState::Present);
    let early = memmap.try_get(pfn(100)).unwrap();
    early.set_private(1, 11);
    assert_eq!(memmap.counters().chunks_populated, 0);
    assert_eq!(memmap.counters().live_bytes, 16 << 10);

    // The next one to need the rest finishes it, in the same generation, around the reference held.
    let late = memmap.get(&ctx, pfn(200)).unwrap();
    assert_eq!((early.private(1), late.private(1)), (11, 0));
    assert_eq!(
        memmap.chunk(pfn(0).pfn()).unwrap().generation,
        info.generation
    );
    assert_eq!(memmap.counters().chunks_populated, 1);
    drop((early, late));
    memmap.reclaim(&ctx, 0).unwrap();
    assert_eq!(memmap.counters().used_bytes(), 0);
    control.assert_clean();
    memmap.self_check().unwrap();
}

#[test]
fn a_fill_that_brought_nothing_in_gives_its_budget_back_by_reclaim() {
    let ctx = MaySleep::claim();
    let (memmap, control) = attach(16 << 10);
    *control.short_fill.lock().unwrap() = Some(0);
    memmap.get(&ctx, pfn(0)).unwrap_err();
    assert_eq!(memmap.counters().live_bytes, 16 << 10);
    memmap.reclaim(&ctx, 0).unwrap();
    assert_eq!(memmap.counters().used_bytes(), 0);
    drop(memmap.get(&ctx, pfn(0)).unwrap());
    control.assert_clean();
    memmap.self_check().unwrap();
}
