//! Hazard: the lookup for atomic contexts faults, fills, waits or allocates.
#![expect(
    unsafe_code,
    reason = "installs a signal handler that looks a descriptor up"
)]

use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::OnceLock;

use pageless_fault::{LEAF_TABLE_BYTES, MaySleep, SpinLock};
use pageless_memmap::{HostMemmap, TryGetError};

use crate::device::{attach, attach_with_reserve, chunk_pfn, paged};

#[test]
fn an_absent_descriptor_would_block_and_stays_absent() {
    let memmap = attach(1 << 20, 4096, 1 << 20);
    for _ in 0..1000 {
        let error = memmap.try_get(paged(77)).unwrap_err();
        assert_eq!(
            error,
            TryGetError::WouldBlock {
                pfn: paged(77).pfn()
            }
        );
    }
    let counters = memmap.counters();
    assert_eq!((counters.faults, counters.chunks_populated), (0, 0));
    assert_eq!(counters.used_bytes(), 0);
}

#[test]
fn a_present_descriptor_is_had_under_a_spin_lock() {
    let mut ctx = MaySleep::claim();
    let memmap = attach(1 << 20, 4096, 1 << 20);
    let held = memmap.get(&ctx, paged(5)).unwrap();
    let lock = SpinLock::new(0);
    let mut guard = lock.lock(&mut ctx);
    let page = memmap.try_get(paged(5)).unwrap();
    *guard += page.references();
    assert_eq!(*guard, 2);
    // The neighbour shares the chunk, the next chunk is absent.
    memmap.try_get(paged(6)).unwrap();
    memmap.try_get(paged(64)).unwrap_err();
    drop(guard);
    drop((held, page));
}

#[test]
fn a_race_that_reclaim_wins_is_would_block_and_nothing_else() {
    let memmap = attach(1 << 20, 4096, 1 << 20);
    let done = AtomicBool::new(false);
    let (mut had, mut blocked) = (0_u64, 0_u64);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // Chunks come and go as fast as they can.
            let ctx = MaySleep::claim();
            while !done.load(Ordering::Relaxed) {
                drop(memmap.get(&ctx, chunk_pfn(&memmap, 1)).unwrap());
                memmap.reclaim(&ctx, 0).unwrap();
            }
        });
        while had < 5_000 || blocked < 5_000 {
            match memmap.try_get(chunk_pfn(&memmap, 1)) {
                Ok(page) => {
                    assert!(page.references() >= 1);
                    had += 1;
                }
                Err(TryGetError::WouldBlock { .. }) => blocked += 1,
                Err(error) => panic!("{error}"),
            }
        }
        done.store(true, Ordering::Relaxed);
    });
    // Only the other thread ever faulted: each of its fills was its own.
    let counters = memmap.counters();
    assert!(counters.faults >= counters.chunks_populated);
    assert_eq!(
        counters.chunks_populated,
        counters.chunks_reclaimed + counters.live_bytes / 4096
    );
    memmap.self_check().unwrap();
}

#[test]
fn the_reserve_serves_those_who_cannot_wait_and_is_refilled_by_those_who_can() {
    let ctx = MaySleep::claim();
    let memmap = attach_with_reserve(1 << 20, 16 << 10, 1 << 20, 2);
    // Charged with the leaf table that each may need.
    let reserve = 2 * ((16 << 10) + LEAF_TABLE_BYTES);
    assert_eq!(memmap.counters().reserve_bytes, reserve);
    let first = memmap.try_get(chunk_pfn(&memmap, 10)).unwrap();
    let second = memmap.try_get(chunk_pfn(&memmap, 20)).unwrap();
    assert_eq!((first.references(), first.private(3)), (1, 0));
    second.set_private(3, 9);
    let error = memmap.try_get(chunk_pfn(&memmap, 30)).unwrap_err();
    assert!(matches!(error, TryGetError::WouldBlock { .. }));
    let counters = memmap.counters();
    assert_eq!(
        (
            counters.reserve_hits,
            counters.reserve_misses,
            counters.reserve_bytes
        ),
        (2, 1, 0)
    );
    assert_eq!(counters.live_bytes, 2 * (16 << 10));
    // A sleepable lookup fills, and tops the reserve up.
    drop(memmap.get(&ctx, chunk_pfn(&memmap, 40)).unwrap());
    assert_eq!(memmap.counters().reserve_bytes, reserve);
    memmap.try_get(chunk_pfn(&memmap, 30)).unwrap();
    assert_eq!(second.private(3), 9);
    drop((first, second));
    // What came out of the reserve is reclaimed like everything else.
    let kept = memmap.counters().reserve_bytes;
    memmap.reclaim(&ctx, kept).unwrap();
    assert_eq!(memmap.counters().live_bytes, 0);
    memmap.self_check().unwrap();
}

#[test]
fn a_large_reserve_serves_as_many_as_it_has() {
    let memmap = attach_with_reserve(1 << 24, 4096, 4 << 20, 64);
    // Each in a leaf table of its own.
    let held: Vec<_> = (0..64)
        .map_while(|n| memmap.try_get(chunk_pfn(&memmap, n * 600)).ok())
        .collect();
    assert_eq!(held.len(), 64);
    let counters = memmap.counters();
    assert_eq!((counters.reserve_hits, counters.reserve_misses), (64, 0));
    assert_eq!(counters.reserve_bytes, 0);
}

#[test]
fn the_reserve_fits_the_budget_wherever_it_is_used() {
    let ctx = MaySleep::claim();
    let budget = 10 * (4096 + LEAF_TABLE_BYTES);
    let memmap = attach_with_reserve(1 << 24, 4096, budget, 6);
    // What is left is pinned to the last byte...
    let mut held: Vec<_> = (0..100)
        .map_while(|n| memmap.get(&ctx, chunk_pfn(&memmap, n * 600)).ok())
        .collect();
    assert_eq!(held.len(), 4);
    // ...and the reserve goes to tables that do not exist yet.
    held.extend((200..300).map_while(|n| memmap.try_get(chunk_pfn(&memmap, n * 600)).ok()));
    assert_eq!(held.len(), 10);
    let counters = memmap.counters();
    assert!(counters.used_bytes_peak <= budget, "{counters:?}");
}

static MEMMAP: OnceLock<HostMemmap> = OnceLock::new();
/// What the handler found: 1 for a reference, 2 for would-block.
static FOUND: AtomicU32 = AtomicU32::new(0);

extern "C" fn on_signal(_: i32) {
    let found = match MEMMAP.get().map(|memmap| memmap.try_get(paged(640))) {
        Some(Ok(_)) => 1,
        Some(Err(TryGetError::WouldBlock { .. })) => 2,
        _ => 3,
    };
    FOUND.store(found, Ordering::Relaxed);
}

#[test]
fn a_signal_handler_may_look_descriptors_up() {
    let ctx = MaySleep::claim();
    let memmap = MEMMAP.get_or_init(|| attach(1 << 20, 4096, 1 << 20));
    // SAFETY: installs a handler for a signal that nobody else in this process uses; it only does what
    // `try_get` promises to be fit for a handler. `raise` runs it in this thread.
    let raise = || unsafe {
        let handler: extern "C" fn(i32) = on_signal;
        libc::signal(libc::SIGUSR2, handler as libc::sighandler_t);
        libc::raise(libc::SIGUSR2);
    };
    raise();
    assert_eq!(FOUND.load(Ordering::Relaxed), 2);
    let _page = memmap.get(&ctx, paged(641)).unwrap();
    raise();
    assert_eq!(FOUND.load(Ordering::Relaxed), 1);
}
