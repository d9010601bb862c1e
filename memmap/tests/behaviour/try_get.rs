//! Hazard: the lookup for atomic contexts faults, fills, waits or allocates.

use pageless_fault::{LEAF_TABLE_BYTES, SpinLock};
use pageless_memmap::TryGetError;

use crate::device::{attach, attach_with_reserve, chunk_pfn, paged, pin, small_chunks, touch};
use crate::rig::{Rig, Signal, cpu};

pub(crate) fn an_absent_descriptor_would_block_and_stays_absent<R: Rig>(rig: &R) {
    let memmap = attach(rig, 4096, 1 << 20);
    rig.on_cpu(|_| {
        for _ in 0..1000 {
            let error = memmap.try_get(paged(77)).unwrap_err();
            assert_eq!(
                error,
                TryGetError::WouldBlock {
                    pfn: paged(77).pfn()
                }
            );
        }
    });
    let counters = memmap.counters();
    assert_eq!((counters.faults, counters.chunks_populated), (0, 0));
    assert_eq!(counters.used_bytes(), 0);
}

pub(crate) fn a_present_descriptor_is_had_under_a_spin_lock<R: Rig>(rig: &R) {
    let memmap = attach(rig, 4096, 1 << 20);
    rig.on_cpu(|ctx| {
        let held = memmap.get(ctx, paged(5)).unwrap();
        let lock = SpinLock::new(0);
        let mut guard = lock.lock(ctx);
        let page = memmap.try_get(paged(5)).unwrap();
        *guard += page.references();
        assert_eq!(*guard, 2);
        // The neighbour shares the chunk, the next chunk is absent.
        memmap.try_get(paged(6)).unwrap();
        memmap.try_get(paged(64)).unwrap_err();
        drop(guard);
        drop((held, page));
    });
}

pub(crate) fn a_race_that_reclaim_wins_is_would_block_and_nothing_else<R: Rig>(rig: &R) {
    let memmap = attach(rig, 4096, 1 << 20);
    let done = Signal::default();
    rig.cpus(vec![
        cpu(|ctx| {
            // Chunks come and go as fast as they can.
            while !done.is_raised() {
                touch(&memmap, ctx, 1);
                memmap.reclaim(ctx, 0).unwrap();
            }
        }),
        cpu(|_| {
            let _done = done.raise_at_end();
            let (mut had, mut blocked) = (0_u64, 0_u64);
            while had < R::rounds(5_000) || blocked < R::rounds(5_000) {
                match memmap.try_get(chunk_pfn(&memmap, 1)) {
                    Ok(page) => {
                        assert!(page.references() >= 1);
                        had += 1;
                    }
                    Err(TryGetError::WouldBlock { .. }) => blocked += 1,
                    Err(error) => panic!("{error}"),
                }
            }
        }),
    ]);
    // Only the other CPU ever faulted: each of its fills was its own.
    let counters = memmap.counters();
    assert!(counters.faults >= counters.chunks_populated);
    assert_eq!(
        counters.chunks_populated,
        counters.chunks_reclaimed + counters.live_bytes / 4096
    );
    memmap.self_check().unwrap();
}

pub(crate) fn the_reserve_serves_those_who_cannot_wait_and_is_refilled_by_those_who_can<R: Rig>(
    rig: &R,
) {
    let memmap = attach_with_reserve(rig, 16 << 10, 1 << 20, 2);
    // Charged with the leaf table that each may need.
    let reserve = 2 * ((16 << 10) + LEAF_TABLE_BYTES);
    assert_eq!(memmap.counters().reserve_bytes, reserve);
    rig.on_cpu(|ctx| {
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
        touch(&memmap, ctx, 40);
        assert_eq!(memmap.counters().reserve_bytes, reserve);
        memmap.try_get(chunk_pfn(&memmap, 30)).unwrap();
        assert_eq!(second.private(3), 9);
        drop((first, second));
        // What came out of the reserve is reclaimed like everything else.
        let kept = memmap.counters().reserve_bytes;
        memmap.reclaim(ctx, kept).unwrap();
    });
    assert_eq!(memmap.counters().live_bytes, 0);
    memmap.self_check().unwrap();
}

pub(crate) fn a_large_reserve_serves_as_many_as_it_has<R: Rig>(rig: &R) {
    let memmap = attach_with_reserve(rig, 4096, 4 << 20, 64);
    rig.on_cpu(|_| {
        // All over the device: each in a leaf table of its own, where there are so many.
        let apart = small_chunks::<R>() / 64;
        let held: Vec<_> = (0..64)
            .map_while(|n| memmap.try_get(chunk_pfn(&memmap, n * apart)).ok())
            .collect();
        assert_eq!(held.len(), 64);
        let counters = memmap.counters();
        assert_eq!((counters.reserve_hits, counters.reserve_misses), (64, 0));
        assert_eq!(counters.reserve_bytes, 0);
    });
}

pub(crate) fn the_reserve_fits_the_budget_wherever_it_is_used<R: Rig>(rig: &R) {
    // Each chunk in a leaf table of its own; so many are to be had.
    const APART: u64 = 520;
    let half = small_chunks::<R>() / APART / 2;
    let reserve = (half - 1).min(6);
    let pinned = (half - 1).min(4);
    let budget = (pinned + reserve) * (4096 + LEAF_TABLE_BYTES);
    let memmap = attach_with_reserve(rig, 4096, budget, reserve as usize);
    rig.on_cpu(|ctx| {
        // What is left is pinned to the last byte...
        let mut held: Vec<_> = (0..half)
            .map_while(|n| memmap.get(ctx, chunk_pfn(&memmap, n * APART)).ok())
            .collect();
        assert_eq!(held.len() as u64, pinned);
        // ...and the reserve goes to tables that do not exist yet.
        held.extend(
            (half..2 * half).map_while(|n| memmap.try_get(chunk_pfn(&memmap, n * APART)).ok()),
        );
        assert_eq!(held.len() as u64, pinned + reserve);
        assert_eq!(pin(&memmap, ctx, 0).references(), 2);
    });
    let counters = memmap.counters();
    assert!(counters.used_bytes_peak <= budget, "{counters:?}");
}
