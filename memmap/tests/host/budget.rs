//! Hazard: the budget is overrun, reclaim begins too late or never ends, or the background reclaimer
//! does not do its part.

use alloc::sync::Arc;

use pageless_fault::host::HostMachine;
use pageless_fault::{LEAF_TABLE_BYTES, MaySleep};
use pageless_memmap::{
    AttachError, BackgroundReclaimer, Budget, BudgetError, ChunkSize, Config, GetError, HostMemmap,
    Memmap,
};

use crate::device::{chunk_pfn, frames, paged};

fn attach(chunk: u64, budget: Budget) -> HostMemmap {
    let config = Config {
        chunk: ChunkSize::try_new(chunk).unwrap(),
        budget,
        reserve_chunks: 0,
        fill_ahead: 1,
    };
    Memmap::attach(&HostMachine::new().unwrap(), frames(1 << 24), config).unwrap()
}

#[test]
fn no_chunk_size_ever_overruns_its_budget() {
    let ctx = MaySleep::claim();
    for shift in 12..=21 {
        let chunk = ChunkSize::try_new(1 << shift).unwrap();
        let bytes = 4 * (chunk.bytes() + LEAF_TABLE_BYTES);
        let memmap = attach(chunk.bytes(), Budget::new(bytes, chunk).unwrap());
        let mut random = 88172645463325252_u64;
        for _ in 0..200 {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            drop(memmap.get(&ctx, paged(random % (1 << 24))).unwrap());
        }
        let counters = memmap.counters();
        assert!(
            counters.used_bytes_peak <= bytes,
            "chunk {chunk}: {counters:?}"
        );
        assert!(counters.chunks_reclaimed > 0, "chunk {chunk}");
        memmap.self_check().unwrap();
    }
}

#[test]
fn reclaim_begins_above_the_high_watermark_and_stops_at_the_low_one() {
    let ctx = MaySleep::claim();
    let chunk = ChunkSize::MIN;
    // One leaf table and 100 chunks; reclaim above 80, down to 50.
    let bytes = |chunks: u64| LEAF_TABLE_BYTES + chunks * 4096;
    let budget = Budget::with_watermarks(bytes(100), bytes(80), bytes(50), chunk).unwrap();
    let memmap = attach(4096, budget);
    for n in 0..80 {
        drop(memmap.get(&ctx, chunk_pfn(&memmap, n)).unwrap());
    }
    assert_eq!(memmap.counters().chunks_reclaimed, 0);
    assert_eq!(memmap.counters().used_bytes(), bytes(80));
    drop(memmap.get(&ctx, chunk_pfn(&memmap, 80)).unwrap());
    let counters = memmap.counters();
    assert_eq!(counters.chunks_reclaimed, 30);
    assert_eq!(counters.shootdowns, 1, "not one shootdown for the batch");
    assert_eq!(counters.direct_reclaims, 1);
    assert_eq!(counters.used_bytes(), bytes(51));

    // With everything pinned the watermark gives way to the budget, and only the budget refuses.
    let held: Vec<_> = (200..300)
        .map_while(|n| memmap.get(&ctx, chunk_pfn(&memmap, n)).ok())
        .collect();
    assert_eq!(held.len(), 100);
    let error = memmap.get(&ctx, chunk_pfn(&memmap, 300)).unwrap_err();
    assert!(matches!(error, GetError::BudgetPinned { .. }), "{error}");
    memmap.self_check().unwrap();
}

#[test]
fn a_scan_above_the_watermark_is_bounded_however_much_is_pinned() {
    let ctx = MaySleep::claim();
    let chunk = ChunkSize::MIN;
    let bytes = |chunks: u64| LEAF_TABLE_BYTES * (1 + chunks / 512) + chunks * 4096;
    let budget = Budget::with_watermarks(bytes(2000), bytes(500), bytes(400), chunk).unwrap();
    let memmap = attach(4096, budget);
    let held: Vec<_> = (0..1000)
        .map(|n| memmap.get(&ctx, chunk_pfn(&memmap, n)).unwrap())
        .collect();
    let before = memmap.counters();
    drop(memmap.get(&ctx, chunk_pfn(&memmap, 1000)).unwrap());
    let after = memmap.counters();
    assert_eq!(after.direct_reclaims, before.direct_reclaims + 1);
    let examined = after.passed_over - before.passed_over;
    assert!(examined <= 128, "one lookup looked at {examined} chunks");
    drop(held);
}

#[test]
fn the_background_reclaimer_keeps_the_faulting_threads_out_of_reclaim() {
    let chunk = ChunkSize::MIN;
    let budget = Budget::with_watermarks(4 << 20, 1 << 20, 512 << 10, chunk).unwrap();
    let memmap = Arc::new(attach(4096, budget));
    let background = BackgroundReclaimer::start(Arc::clone(&memmap)).unwrap();
    let ctx = MaySleep::claim();
    let mut n = 0;
    // Until it has taken a thousand chunks; each lookup only wakes it.
    while memmap.counters().chunks_reclaimed < 1000 {
        drop(memmap.get(&ctx, chunk_pfn(&memmap, n % (1 << 18))).unwrap());
        n += 1;
    }
    let counters = memmap.counters();
    assert!(counters.background_reclaims > 0, "{counters:?}");
    assert!(counters.used_bytes_peak <= 4 << 20, "{counters:?}");
    drop(background);
    memmap.self_check().unwrap();
    // Without it, whoever faults above the watermark reclaims again.
    let direct = memmap.counters().direct_reclaims;
    for n in 0..1000 {
        drop(memmap.get(&ctx, chunk_pfn(&memmap, 100_000 + n)).unwrap());
    }
    assert!(memmap.counters().direct_reclaims > direct);
    memmap.detach(&ctx, || true).unwrap();
}

#[test]
fn a_budget_that_cannot_work_is_refused_with_the_numbers() {
    let chunk = ChunkSize::MAX;
    let least = chunk.bytes() + LEAF_TABLE_BYTES;
    assert_eq!(
        Budget::new(1 << 20, chunk),
        Err(BudgetError::TooSmall {
            bytes: 1 << 20,
            least
        })
    );
    assert!(matches!(
        Budget::with_watermarks(8 << 20, 9 << 20, 1 << 20, chunk),
        Err(BudgetError::Watermarks { .. })
    ));
    // Made for small chunks, used with large ones.
    let config = Config {
        chunk,
        budget: Budget::new(1 << 20, ChunkSize::MIN).unwrap(),
        reserve_chunks: 0,
        fill_ahead: 1,
    };
    let error = Memmap::attach(&HostMachine::new().unwrap(), frames(1 << 24), config).unwrap_err();
    assert!(matches!(error, AttachError::Budget(_)), "{error}");
    let config = Config {
        chunk: ChunkSize::MIN,
        budget: Budget::new(1 << 20, ChunkSize::MIN).unwrap(),
        reserve_chunks: 256,
        fill_ahead: 1,
    };
    let error = Memmap::attach(&HostMachine::new().unwrap(), frames(1 << 24), config).unwrap_err();
    assert!(matches!(error, AttachError::Reserve { .. }), "{error}");
    assert!(ChunkSize::try_new(4095).is_err());
    assert!(ChunkSize::try_new(4 << 20).is_err());
    assert!(ChunkSize::try_new(12 << 10).is_err());
}

#[test]
fn a_petabyte_can_be_attached_and_a_zettabyte_cannot() {
    let memmap = Memmap::attach(
        &HostMachine::new().unwrap(),
        frames(1 << 38),
        Config::default(),
    )
    .unwrap();
    assert_eq!(memmap.counters().used_bytes(), 0);
    let error = Memmap::attach(
        &HostMachine::new().unwrap(),
        frames(1 << 51),
        Config::default(),
    )
    .unwrap_err();
    assert!(matches!(error, AttachError::Window(_)), "{error}");
}
