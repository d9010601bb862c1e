//! Hazard: filling ahead of a walk fills what is there, what nobody will want, or more than the budget.

use pageless_memmap::{Budget, ChunkSize, Config};

use crate::device::{MemmapOn, in_order, paged, pin, touch, try_attach};
use crate::rig::Rig;

/// How far apart the descriptors of a walk are. Miri is in no hurry.
const STEP: usize = if cfg!(miri) { 16 } else { 1 };

/// A memmap with chunks of 4 KiB that fills `ahead` of them when somebody walks.
fn attach_walking<R: Rig>(rig: &R, budget: u64, ahead: u64) -> MemmapOn<R> {
    let config = Config {
        chunk: ChunkSize::MIN,
        budget: Budget::new(budget, ChunkSize::MIN).unwrap(),
        reserve_chunks: 0,
        fill_ahead: ahead,
    };
    try_attach(rig, R::FRAMES, config).unwrap()
}

pub(crate) fn a_walk_takes_fewer_faults_and_every_chunk_once<R: Rig>(rig: &R) {
    let memmap = attach_walking(rig, 1 << 20, 8);
    rig.on_cpu(|ctx| {
        for index in (0..41 * 64).step_by(STEP) {
            drop(memmap.get(ctx, paged(index)).unwrap());
        }
    });
    let counters = memmap.counters();
    // The first two chunks make it a walk (one each), then eight at a time.
    assert_eq!((counters.faults, counters.chunks_populated), (6, 41));
    let order = in_order(&memmap);
    assert!(order.is_sorted(), "{order:?}");
    memmap.self_check().unwrap();
}

pub(crate) fn whoever_does_not_walk_gets_what_was_asked_for<R: Rig>(rig: &R) {
    let memmap = attach_walking(rig, 1 << 20, 8);
    rig.on_cpu(|ctx| {
        for chunk in [5, 3, 20, 11, 9, 7, 30, 1] {
            touch(&memmap, ctx, chunk);
        }
    });
    assert_eq!(memmap.counters().chunks_populated, 8);
}

pub(crate) fn a_run_stops_at_what_is_there_and_at_the_watermark<R: Rig>(rig: &R) {
    let memmap = attach_walking(rig, 1 << 20, 16);
    rig.on_cpu(|ctx| {
        let there = pin(&memmap, ctx, 4);
        there.set_private(0, 7);
        touch(&memmap, ctx, 0);
        touch(&memmap, ctx, 1);
        // 0, then 1 to 3; 4 was there.
        assert_eq!(memmap.counters().chunks_populated, 5);
        assert_eq!(there.private(0), 7);
    });

    // Ten chunks and their table: a walk never holds more, however far ahead it would like to fill.
    let small = attach_walking(rig, 11 * 4096, 16);
    let chunks = if cfg!(miri) { 16 } else { 60 };
    rig.on_cpu(|ctx| {
        for index in (0..chunks * 64).step_by(STEP) {
            drop(small.get(ctx, paged(index)).unwrap());
            assert!(small.counters().used_bytes() <= 11 * 4096);
        }
    });
    assert!(small.counters().used_bytes_peak <= 11 * 4096);
}
