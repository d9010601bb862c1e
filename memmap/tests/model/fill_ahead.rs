//! Hazard: filling ahead of a walk fills what is there, what nobody will want, or more than the budget.

use pageless_fault::MaySleep;
use pageless_memmap::GetError;

use crate::races::{attach_walking, pfn};

/// How far apart the descriptors of a walk are. Miri is in no hurry.
const STEP: usize = if cfg!(miri) { 16 } else { 1 };

#[test]
fn a_walk_takes_fewer_faults_and_every_chunk_once() {
    let ctx = MaySleep::claim();
    let (memmap, control) = attach_walking(4096, 1 << 20, 0, 8);
    for index in (0..41 * 64).step_by(STEP) {
        drop(memmap.get(&ctx, pfn(index)).unwrap());
    }
    let counters = memmap.counters();
    // The first two chunks make it a walk (one each), then eight at a time.
    assert_eq!((counters.faults, counters.chunks_populated), (6, 41));
    let order: Vec<u64> = memmap
        .chunks()
        .iter()
        .map(|chunk| chunk.first.get() / 64)
        .collect();
    assert!(order.is_sorted(), "{order:?}");
    control.assert_clean();
    memmap.self_check().unwrap();
}

#[test]
fn whoever_does_not_walk_gets_what_was_asked_for() {
    let ctx = MaySleep::claim();
    let (memmap, control) = attach_walking(4096, 1 << 20, 0, 8);
    for chunk in [5, 3, 20, 11, 9, 7, 30, 1] {
        drop(memmap.get(&ctx, pfn(chunk * 64)).unwrap());
    }
    assert_eq!(memmap.counters().chunks_populated, 8);
    control.assert_clean();
}

#[test]
fn a_run_stops_at_what_is_there_and_at_the_watermark() {
    let ctx = MaySleep::claim();
    let (memmap, control) = attach_walking(4096, 1 << 20, 0, 16);
    let there = memmap.get(&ctx, pfn(4 * 64)).unwrap();
    there.set_private(0, 7);
    drop(memmap.get(&ctx, pfn(0)).unwrap());
    drop(memmap.get(&ctx, pfn(64)).unwrap());
    // 0, then 1 to 3; 4 was there.
    assert_eq!(memmap.counters().chunks_populated, 5);
    assert_eq!(there.private(0), 7);

    // Ten chunks and their table: a walk never holds more, however far ahead it would like to fill.
    let (small, small_control) = attach_walking(4096, 11 * 4096, 0, 16);
    let chunks = if cfg!(miri) { 16 } else { 60 };
    for index in (0..chunks * 64).step_by(STEP) {
        drop(small.get(&ctx, pfn(index)).unwrap());
        assert!(small.counters().used_bytes() <= 11 * 4096);
    }
    assert!(small.counters().used_bytes_peak <= 11 * 4096);
    control.assert_clean();
    small_control.assert_clean();
}

#[test]
fn a_run_that_is_filled_short_is_finished_chunk_by_chunk() {
    let ctx = MaySleep::claim();
    let (memmap, control) = attach_walking(8192, 1 << 20, 0, 4);
    drop(memmap.get(&ctx, pfn(0)).unwrap());
    // The second chunk comes as a whole, the third by half, the fourth and fifth not at all.
    *control.short_fill.lock().unwrap() = Some(3 * 4096);
    let error = memmap.get(&ctx, pfn(128)).unwrap_err();
    assert!(matches!(error, GetError::NoMemory(short) if short.done == 3 * 4096));
    assert_eq!(memmap.counters().chunks_populated, 2);
    for index in (0..5 * 128).step_by(STEP) {
        let page = memmap.get(&ctx, pfn(index)).unwrap();
        assert_eq!(page.references(), 1);
    }
    assert_eq!(memmap.counters().chunks_populated, 5);
    memmap.reclaim(&ctx, 0).unwrap();
    assert_eq!(memmap.counters().used_bytes(), 0);
    control.assert_clean();
    memmap.self_check().unwrap();
}
