//! Hazard: reclaim takes chunks in the wrong order. It must be the order of allocation, whatever has
//! been touched since, and a chunk that is passed over must keep its place.

use crate::device::{attach, chunk_pfn, pin};
use pageless_fault::MaySleep;
use pageless_memmap::{GetError, Memmap};

fn firsts<W: pageless_fault::Window>(memmap: &Memmap<W>) -> Vec<u64> {
    let base = memmap.pfns().start();
    memmap
        .chunks()
        .iter()
        .map(|chunk| {
            let frames = chunk.first.checked_offset_from(base).unwrap().get();
            frames / memmap.chunk_size().descriptors()
        })
        .collect()
}

#[test]
fn reclaim_order_is_allocation_order_whatever_is_touched_in_between() {
    let ctx = MaySleep::claim();
    let memmap = attach(1 << 20, 4096, 64 << 10);
    for chunk in 0..8 {
        drop(memmap.get(&ctx, chunk_pfn(&memmap, chunk)).unwrap());
    }
    // Touch in the opposite order, the oldest last: least recently *used* would now be chunk 7.
    for chunk in (0..8).rev() {
        drop(memmap.get(&ctx, chunk_pfn(&memmap, chunk)).unwrap());
    }
    assert_eq!(firsts(&memmap), [0, 1, 2, 3, 4, 5, 6, 7]);
    let held = memmap.counters().used_bytes();
    memmap.reclaim(&ctx, held - 3 * 4096).unwrap();
    assert_eq!(firsts(&memmap), [3, 4, 5, 6, 7]);
    memmap.self_check().unwrap();
}

#[test]
fn pinned_chunks_keep_their_place() {
    let ctx = MaySleep::claim();
    let memmap = attach(1 << 20, 4096, 64 << 10);
    let pinned = pin(&memmap, &ctx, 2);
    for chunk in [0, 1, 2, 3, 4, 5] {
        drop(memmap.get(&ctx, chunk_pfn(&memmap, chunk)).unwrap());
    }
    // Chunk 2 was allocated first; it is considered first, passed over, and stays first.
    assert_eq!(firsts(&memmap), [2, 0, 1, 3, 4, 5]);
    let held = memmap.counters().used_bytes();
    memmap.reclaim(&ctx, held - 2 * 4096).unwrap();
    assert_eq!(firsts(&memmap), [2, 3, 4, 5]);
    assert!(memmap.counters().passed_over >= 1);
    drop(pinned);
    let held = memmap.counters().used_bytes();
    memmap.reclaim(&ctx, held - 4096).unwrap();
    assert_eq!(firsts(&memmap), [3, 4, 5]);
    memmap.self_check().unwrap();
}

#[test]
fn a_budget_that_is_all_pinned_is_a_typed_error() {
    let ctx = MaySleep::claim();
    let memmap = attach(1 << 20, 4096, 5 * 4096);
    let held: Vec<_> = (0..4).map(|chunk| pin(&memmap, &ctx, chunk)).collect();
    let error = memmap.get(&ctx, chunk_pfn(&memmap, 4)).unwrap_err();
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
    drop(memmap.get(&ctx, chunk_pfn(&memmap, 4)).unwrap());
    memmap.self_check().unwrap();
}
