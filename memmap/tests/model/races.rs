//! Hazard: get, freeze, flush and fill in the one order that breaks them.

use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::Mutex;

use pageless_fault::{Completion, MaySleep, UnmapError};
use pageless_memmap::{
    Budget, ChunkSize, ChunkState, Config, DetachError, GetError, Memmap, Pinned, TryGetError,
};
use pageless_pfn::{FrameCount, PagedPfn, Pfn, PfnFlags, PfnRange, PfnT};

use crate::machine::{Control, ModelMachine, ModelWindow, Step};

pub(crate) type ModelMemmap = Memmap<ModelWindow>;

pub(crate) fn pfn(index: u64) -> PagedPfn {
    PfnT::new(Pfn::try_new(index).unwrap(), PfnFlags::MAP)
        .paged()
        .unwrap()
}

/// A memmap of 64 Ki frames: two leaf tables of descriptors.
pub(crate) fn attach(chunk: u64) -> (Arc<ModelMemmap>, Arc<Control>) {
    attach_with(chunk, 1 << 20, 0)
}

pub(crate) fn attach_with(
    chunk: u64,
    budget: u64,
    reserve_chunks: usize,
) -> (Arc<ModelMemmap>, Arc<Control>) {
    attach_walking(chunk, budget, reserve_chunks, 1)
}

pub(crate) fn attach_walking(
    chunk: u64,
    budget: u64,
    reserve_chunks: usize,
    fill_ahead: u64,
) -> (Arc<ModelMemmap>, Arc<Control>) {
    let machine = ModelMachine::default();
    let chunk = ChunkSize::try_new(chunk).unwrap();
    let frames = if cfg!(miri) { 1 << 12 } else { 1 << 16 };
    let pfns = PfnRange::try_new(Pfn::try_new(0).unwrap(), FrameCount::new(frames)).unwrap();
    let config = Config {
        chunk,
        budget: Budget::new(budget, chunk).unwrap(),
        reserve_chunks,
        fill_ahead,
    };
    let memmap = Memmap::attach(&machine, pfns, config).unwrap();
    (Arc::new(memmap), machine.control)
}

/// Runs `lookup` in another thread while the flush is pending, until it has either come back or been
/// seen waiting. Returns what it found and the chunks that had been reclaimed by then, if it came back.
fn while_flushing(
    memmap: &Arc<ModelMemmap>,
    control: &Control,
    index: u64,
) -> Arc<Mutex<Option<u64>>> {
    let came_back = Arc::new(Mutex::new(None));
    let once = AtomicBool::new(false);
    let (memmap, result) = (Arc::clone(memmap), Arc::clone(&came_back));
    control.on(move |step| {
        if step != Step::Flush || once.swap(true, Ordering::Relaxed) {
            return;
        }
        let waits = memmap.counters().waits;
        let (other, result) = (Arc::clone(&memmap), Arc::clone(&result));
        let thread = std::thread::spawn(move || {
            let page = other.get(&MaySleep::claim(), pfn(index)).unwrap();
            *result.lock().unwrap() = Some(other.counters().chunks_reclaimed);
            drop(page);
        });
        // One of the two happens: it waits, as it must, or it comes back too early.
        while memmap.counters().waits == waits && !thread.is_finished() {
            std::thread::yield_now();
        }
    });
    came_back
}

fn reclaim_with_a_lookup_during_the_flush(stale: bool, index: u64) {
    let ctx = MaySleep::claim();
    let (memmap, control) = attach(4096);
    drop(memmap.get(&ctx, pfn(5)).unwrap());
    let old = memmap.chunk(pfn(5).pfn()).unwrap().generation;
    control.stale.store(stale, Ordering::Relaxed);
    let came_back = while_flushing(&memmap, &control, index);
    memmap.reclaim(&ctx, 0).unwrap();
    // The lookup ends after the flush, however long its thread takes.
    let reclaimed = loop {
        if let Some(reclaimed) = *came_back.lock().unwrap() {
            break reclaimed;
        }
        std::thread::yield_now();
    };
    control.off();
    assert_eq!(
        reclaimed, 1,
        "a lookup came back before the flush was proved"
    );
    let new = memmap.chunk(pfn(index).pfn()).unwrap().generation;
    assert!(new > old, "an old generation came back");
    assert_eq!(memmap.counters().chunks_populated, 2);
    assert_eq!(memmap.counters().limbo_bytes, 0);
    control.assert_clean();
    memmap.self_check().unwrap();
}

#[test]
fn a_second_fault_during_a_fill_waits_for_the_first() {
    let (memmap, control) = attach(4096);
    let fills = Arc::new(AtomicU32::new(0));
    let second: Arc<Mutex<Option<std::thread::JoinHandle<()>>>> = Arc::default();
    control.on({
        let (memmap, fills, second) =
            (Arc::clone(&memmap), Arc::clone(&fills), Arc::clone(&second));
        move |step| {
            if !matches!(step, Step::Populate(_)) || fills.fetch_add(1, Ordering::Relaxed) > 0 {
                return;
            }
            let waits = memmap.counters().waits;
            let other = Arc::clone(&memmap);
            let thread = std::thread::spawn(move || {
                drop(other.get(&MaySleep::claim(), pfn(7)).unwrap());
            });
            // One of the two happens: it waits, as it must, or it fills as well.
            while memmap.counters().waits == waits
                && fills.load(Ordering::Relaxed) == 1
                && !thread.is_finished()
            {
                std::thread::yield_now();
            }
            *second.lock().unwrap() = Some(thread);
        }
    });
    drop(memmap.get(&MaySleep::claim(), pfn(5)).unwrap());
    let thread = second.lock().unwrap().take().unwrap();
    thread.join().unwrap();
    control.off();
    assert_eq!(
        fills.load(Ordering::Relaxed),
        1,
        "a second filler was let in"
    );
    assert_eq!(memmap.counters().chunks_populated, 1);
    control.assert_clean();
    memmap.self_check().unwrap();
}

#[test]
fn a_fault_during_the_flush_waits_and_starts_a_new_generation() {
    reclaim_with_a_lookup_during_the_flush(false, 5);
}

#[test]
fn a_stale_translation_during_the_flush_finds_frozen_and_backs_off() {
    reclaim_with_a_lookup_during_the_flush(true, 5);
}

#[test]
fn a_fill_beside_the_last_chunk_of_a_leaf_table_waits_for_the_table_to_go() {
    // Another chunk of the same leaf table, which the whole-table unmap covers.
    reclaim_with_a_lookup_during_the_flush(false, 64 * 10);
}

#[test]
fn a_reference_that_arrives_during_the_freeze_thaws_what_was_frozen() {
    let ctx = MaySleep::claim();
    let (memmap, control) = attach(4096);
    drop(memmap.get(&ctx, pfn(0)).unwrap());
    let held: Arc<Mutex<Option<Pinned>>> = Arc::default();
    control.on({
        let (memmap, held) = (Arc::clone(&memmap), Arc::clone(&held));
        move |step| {
            // Twenty descriptors are frozen; somebody takes the fortieth.
            if step == Step::Freeze(20 * 64) {
                let page = memmap.try_get(pfn(40)).unwrap();
                *held.lock().unwrap() = Some(page.into_pinned());
            }
        }
    });
    memmap.reclaim(&ctx, 0).unwrap();
    control.off();
    let counters = memmap.counters();
    assert_eq!((counters.chunks_reclaimed, counters.passed_over), (0, 1));
    assert_eq!(
        memmap.chunk(pfn(0).pfn()).unwrap().state,
        ChunkState::Present
    );
    for index in 0..64 {
        let page = memmap
            .try_get(pfn(index))
            .unwrap_or_else(|error| panic!("descriptor {index} stayed frozen: {error}"));
        assert_eq!(page.references(), if index == 40 { 2 } else { 1 });
    }
    memmap.unpin(held.lock().unwrap().take().unwrap());
    memmap.reclaim(&ctx, 0).unwrap();
    assert_eq!(memmap.counters().chunks_reclaimed, 1);
    control.assert_clean();
}

#[test]
fn a_lookup_never_waits_for_a_freeze_where_it_must_not_sleep() {
    let ctx = MaySleep::claim();
    let (memmap, control) = attach(4096);
    drop(memmap.get(&ctx, pfn(0)).unwrap());
    let blocked = Arc::new(AtomicU32::new(0));
    control.on({
        let (memmap, blocked) = (Arc::clone(&memmap), Arc::clone(&blocked));
        move |step| {
            if matches!(step, Step::Clear | Step::Flush)
                && matches!(memmap.try_get(pfn(3)), Err(TryGetError::WouldBlock { .. }))
            {
                blocked.fetch_add(1, Ordering::Relaxed);
            }
        }
    });
    memmap.reclaim(&ctx, 0).unwrap();
    control.off();
    assert_eq!(blocked.load(Ordering::Relaxed), 2);
    assert_eq!(memmap.counters().chunks_reclaimed, 1);
}

#[test]
fn limbo_is_in_the_books_until_the_flush_is_proved() {
    let ctx = MaySleep::claim();
    let (memmap, control) = attach(4096);
    for chunk in 0..4 {
        drop(memmap.get(&ctx, pfn(chunk * 64)).unwrap());
    }
    let seen = Arc::new(Mutex::new(Vec::new()));
    control.on({
        let (memmap, seen) = (Arc::clone(&memmap), Arc::clone(&seen));
        move |step| {
            if step == Step::Flush {
                seen.lock().unwrap().push(memmap.counters());
            }
        }
    });
    let used = memmap.counters().used_bytes();
    memmap.reclaim(&ctx, used - 3 * 4096).unwrap();
    control.off();
    let seen = seen.lock().unwrap();
    assert_eq!(seen.len(), 1, "not one shootdown for the batch");
    assert_eq!((seen[0].live_bytes, seen[0].limbo_bytes), (4096, 3 * 4096));
    assert_eq!(
        seen[0].used_bytes(),
        used,
        "bytes counted free before the flush"
    );
    let after = memmap.counters();
    assert_eq!((after.live_bytes, after.limbo_bytes), (4096, 0));
}

#[test]
fn an_early_acknowledgement_frees_nothing() {
    let ctx = MaySleep::claim();
    for grade in [Completion::Entered, Completion::Invalidated] {
        let (memmap, control) = attach(4096);
        drop(memmap.get(&ctx, pfn(5)).unwrap());
        *control.grade.lock().unwrap() = Some(grade);
        assert_eq!(
            memmap.reclaim(&ctx, 0),
            Err(UnmapError::NotQuiescent { grade })
        );
        let counters = memmap.counters();
        assert_eq!(
            (counters.quarantined_bytes, counters.chunks_reclaimed),
            (4096, 0)
        );
        assert!(
            counters.used_bytes() >= 4096,
            "counted free without a proof"
        );
        assert_eq!(counters.flush_failures, 1);
        // Retained, and said so; never filled again, never waited for.
        assert!(matches!(
            memmap.get(&ctx, pfn(6)),
            Err(GetError::Quarantined { .. })
        ));
        control.assert_clean();
        memmap.self_check().unwrap();
    }
}

#[test]
fn a_detach_that_overtakes_a_refill_of_the_reserve_leaves_the_books_right() {
    let ctx = MaySleep::claim();
    let (memmap, control) = attach_with(4096, 1 << 20, 2);
    let page = memmap.get(&ctx, pfn(0)).unwrap();
    // Use one up; the next sleepable lookup refills it, and is overtaken.
    memmap.try_get(pfn(64)).unwrap();
    let overtaken = AtomicU32::new(0);
    control.on({
        let memmap = Arc::clone(&memmap);
        move |step| {
            if step == Step::Prefill && overtaken.fetch_add(1, Ordering::Relaxed) == 0 {
                let error = memmap.detach(&MaySleep::claim(), || true).unwrap_err();
                assert!(matches!(
                    error,
                    DetachError::Busy {
                        descriptors: 1..,
                        ..
                    }
                ));
            }
        }
    });
    drop(memmap.get(&ctx, pfn(128)).unwrap());
    control.off();
    // However much of the reserve there is now, it is what is charged, and it can be used up.
    let mut served = 0;
    let charged = memmap.counters().reserve_bytes;
    while memmap.try_get(pfn((10 + served) * 64)).is_ok() {
        served += 1;
    }
    assert_eq!(charged, served * 8192);
    assert_eq!(memmap.counters().reserve_bytes, 0);
    drop(page);
    memmap.detach(&ctx, || true).unwrap();
    assert_eq!(memmap.counters().used_bytes(), 0);
}
