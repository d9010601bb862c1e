//! Hazard: the budget is overrun, reclaim begins too late or never ends, or the background reclaimer
//! does not do its part.

use alloc::sync::Arc;

use pageless_fault::LEAF_TABLE_BYTES;
use pageless_memmap::{
    AttachError, BackgroundReclaimer, Budget, BudgetError, ChunkSize, Config, GetError,
};

use crate::device::{attach_within, paged, pin, small_chunks, touch, try_attach};
use crate::rig::Rig;

pub(crate) fn no_chunk_size_ever_overruns_its_budget<R: Rig>(rig: &R) {
    for shift in 12..=R::LARGEST_CHUNK.ilog2() {
        let chunk = ChunkSize::try_new(1 << shift).unwrap();
        let bytes = 4 * (chunk.bytes() + LEAF_TABLE_BYTES);
        let memmap = attach_within(rig, chunk, Budget::new(bytes, chunk).unwrap());
        rig.on_cpu(|ctx| {
            let mut random = 88172645463325252_u64;
            for _ in 0..200 {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                drop(memmap.get(ctx, paged(random % R::FRAMES)).unwrap());
            }
        });
        let counters = memmap.counters();
        assert!(
            counters.used_bytes_peak <= bytes,
            "chunk {chunk}: {counters:?}"
        );
        assert!(counters.chunks_reclaimed > 0, "chunk {chunk}");
        memmap.self_check().unwrap();
    }
}

pub(crate) fn reclaim_begins_above_the_high_watermark_and_stops_at_the_low_one<R: Rig>(rig: &R) {
    let chunk = ChunkSize::MIN;
    // One leaf table and 100 chunks; reclaim above 80, down to 50.
    let bytes = |chunks: u64| LEAF_TABLE_BYTES + chunks * 4096;
    let budget = Budget::with_watermarks(bytes(100), bytes(80), bytes(50), chunk).unwrap();
    let memmap = attach_within(rig, chunk, budget);
    rig.on_cpu(|ctx| {
        for n in 0..80 {
            touch(&memmap, ctx, n);
        }
        assert_eq!(memmap.counters().chunks_reclaimed, 0);
        assert_eq!(memmap.counters().used_bytes(), bytes(80));
        touch(&memmap, ctx, 80);
        let counters = memmap.counters();
        assert_eq!(counters.chunks_reclaimed, 30);
        assert_eq!(counters.shootdowns, 1, "not one shootdown for the batch");
        assert_eq!(counters.direct_reclaims, 1);
        assert_eq!(counters.used_bytes(), bytes(51));

        // With everything pinned the watermark gives way to the budget, and only the budget refuses.
        let get = |n| memmap.get(ctx, paged(n * chunk.descriptors()));
        let held: Vec<_> = (200..300).map_while(|n| get(n).ok()).collect();
        assert_eq!(held.len(), 100);
        let error = get(300).unwrap_err();
        assert!(matches!(error, GetError::BudgetPinned { .. }), "{error}");
    });
    memmap.self_check().unwrap();
}

pub(crate) fn a_scan_above_the_watermark_is_bounded_however_much_is_pinned<R: Rig>(rig: &R) {
    let chunk = ChunkSize::MIN;
    let bytes = |chunks: u64| LEAF_TABLE_BYTES * (1 + chunks / 512) + chunks * 4096;
    let budget = Budget::with_watermarks(bytes(2000), bytes(500), bytes(400), chunk).unwrap();
    let memmap = attach_within(rig, chunk, budget);
    rig.on_cpu(|ctx| {
        let held: Vec<_> = (0..1000).map(|n| pin(&memmap, ctx, n)).collect();
        let before = memmap.counters();
        touch(&memmap, ctx, 1000);
        let after = memmap.counters();
        assert_eq!(after.direct_reclaims, before.direct_reclaims + 1);
        let examined = after.passed_over - before.passed_over;
        assert!(examined <= 128, "one lookup looked at {examined} chunks");
        drop(held);
    });
}

pub(crate) fn the_background_reclaimer_keeps_the_faulting_cpus_out_of_reclaim<R: Rig>(rig: &R) {
    let chunk = ChunkSize::MIN;
    let budget = Budget::with_watermarks(4 << 20, 1 << 20, 512 << 10, chunk).unwrap();
    let memmap = Arc::new(attach_within(rig, chunk, budget));
    rig.on_cpu(|ctx| {
        let background = BackgroundReclaimer::start(Arc::clone(&memmap)).unwrap();
        let mut n = 0;
        // Until it has taken a thousand chunks; each lookup only wakes it.
        while memmap.counters().chunks_reclaimed < 1000 {
            touch(&memmap, ctx, n % small_chunks::<R>());
            n += 1;
        }
        let counters = memmap.counters();
        assert!(counters.background_reclaims > 0, "{counters:?}");
        assert!(counters.used_bytes_peak <= 4 << 20, "{counters:?}");
        drop(background);
        memmap.self_check().unwrap();
        // Without it, whoever faults above the watermark reclaims again. The next chunks are absent, or
        // the first to go.
        let direct = memmap.counters().direct_reclaims;
        for next in n..n + 1000 {
            touch(&memmap, ctx, next % small_chunks::<R>());
        }
        assert!(memmap.counters().direct_reclaims > direct);
        memmap.detach(ctx, || true).unwrap();
    });
}

pub(crate) fn a_budget_that_cannot_work_is_refused_with_the_numbers<R: Rig>(rig: &R) {
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
    let error = try_attach(rig, R::FRAMES, config).unwrap_err();
    assert!(matches!(error, AttachError::Budget(_)), "{error}");
    let config = Config {
        chunk: ChunkSize::MIN,
        budget: Budget::new(1 << 20, ChunkSize::MIN).unwrap(),
        reserve_chunks: 256,
        fill_ahead: 1,
    };
    let error = try_attach(rig, R::FRAMES, config).unwrap_err();
    assert!(matches!(error, AttachError::Reserve { .. }), "{error}");
    assert!(ChunkSize::try_new(4095).is_err());
    assert!(ChunkSize::try_new(4 << 20).is_err());
    assert!(ChunkSize::try_new(12 << 10).is_err());
}
