//! Hazard: reclaim takes chunks in the wrong order. It must be the order of allocation, whatever has
//! been touched since, and a chunk that is passed over must keep its place.

use pageless_memmap::GetError;

use crate::device::{attach, chunk_pfn, in_order, pin, touch};
use crate::rig::Rig;

pub(crate) fn reclaim_order_is_allocation_order_whatever_is_touched_in_between<R: Rig>(rig: &R) {
    let memmap = attach(rig, 4096, 64 << 10);
    rig.on_cpu(|ctx| {
        for chunk in 0..8 {
            touch(&memmap, ctx, chunk);
        }
        // Touch in the opposite order, the oldest last: least recently *used* would now be chunk 7.
        for chunk in (0..8).rev() {
            touch(&memmap, ctx, chunk);
        }
        assert_eq!(in_order(&memmap), [0, 1, 2, 3, 4, 5, 6, 7]);
        let held = memmap.counters().used_bytes();
        memmap.reclaim(ctx, held - 3 * 4096).unwrap();
        assert_eq!(in_order(&memmap), [3, 4, 5, 6, 7]);
    });
    memmap.self_check().unwrap();
}

pub(crate) fn pinned_chunks_keep_their_place<R: Rig>(rig: &R) {
    let memmap = attach(rig, 4096, 64 << 10);
    rig.on_cpu(|ctx| {
        let pinned = pin(&memmap, ctx, 2);
        for chunk in [0, 1, 2, 3, 4, 5] {
            touch(&memmap, ctx, chunk);
        }
        // Chunk 2 was allocated first; it is considered first, passed over, and stays first.
        assert_eq!(in_order(&memmap), [2, 0, 1, 3, 4, 5]);
        let held = memmap.counters().used_bytes();
        memmap.reclaim(ctx, held - 2 * 4096).unwrap();
        assert_eq!(in_order(&memmap), [2, 3, 4, 5]);
        assert!(memmap.counters().passed_over >= 1);
        drop(pinned);
        let held = memmap.counters().used_bytes();
        memmap.reclaim(ctx, held - 4096).unwrap();
        assert_eq!(in_order(&memmap), [3, 4, 5]);
    });
    memmap.self_check().unwrap();
}

pub(crate) fn a_budget_that_is_all_pinned_is_a_typed_error<R: Rig>(rig: &R) {
    let memmap = attach(rig, 4096, 5 * 4096);
    rig.on_cpu(|ctx| {
        let held: Vec<_> = (0..4).map(|chunk| pin(&memmap, ctx, chunk)).collect();
        let error = memmap.get(ctx, chunk_pfn(&memmap, 4)).unwrap_err();
        assert_eq!(
            error,
            GetError::BudgetPinned {
                // Four chunks and the leaf table that maps them.
                pinned: 5 * 4096,
                needed: 4096,
                budget: 5 * 4096,
            }
        );
        drop(held);
        touch(&memmap, ctx, 4);
    });
    memmap.self_check().unwrap();
}
