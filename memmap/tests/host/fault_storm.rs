//! Hazard: many threads fault one chunk, or a chunk that is just being taken away.

use core::sync::atomic::{AtomicBool, Ordering};
use std::sync::Barrier;

use pageless_fault::MaySleep;

use crate::device::{attach, chunk_pfn, paged};

#[test]
fn sixty_four_threads_on_one_chunk_fill_it_once() {
    const THREADS: u64 = 64;
    // Large chunks, so that the fill takes long enough for all to arrive.
    let memmap = attach(1 << 20, 2 << 20, 16 << 20);
    for round in 0..8 {
        let start = Barrier::new(THREADS as usize);
        std::thread::scope(|scope| {
            for thread in 0..THREADS {
                let (memmap, start) = (&memmap, &start);
                scope.spawn(move || {
                    let ctx = MaySleep::claim();
                    start.wait();
                    let page = memmap
                        .get(&ctx, paged(round * 32768 + thread * 500))
                        .unwrap();
                    assert_eq!(page.references(), 1);
                });
            }
        });
        let counters = memmap.counters();
        assert_eq!(
            counters.chunks_populated,
            round + 1,
            "not exactly one population"
        );
        assert_eq!(counters.live_bytes, (round + 1) * (2 << 20));
        memmap.self_check().unwrap();
        if round == 5 {
            memmap.reclaim(&MaySleep::claim(), 0).unwrap();
            assert_eq!(memmap.counters().chunks_reclaimed, 6);
            return;
        }
    }
}

#[test]
fn a_fault_on_a_chunk_under_reclaim_ends_in_a_new_generation() {
    let memmap = attach(1 << 20, 64 << 10, 1 << 20);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let ctx = MaySleep::claim();
            while !done.load(Ordering::Relaxed) {
                if memmap.reclaim(&ctx, 0).unwrap().chunks == 0 {
                    // Referenced just now: let the holder have the lock.
                    std::thread::yield_now();
                }
            }
        });
        let ctx = MaySleep::claim();
        let pfn = chunk_pfn(&memmap, 3);
        let mut last = None;
        let mut generations = 0;
        while generations < 2_000 {
            let page = memmap.get(&ctx, pfn).unwrap();
            let now = memmap.chunk(pfn.pfn()).unwrap().generation;
            assert!(Some(now) >= last, "an old generation came back");
            if Some(now) > last {
                // Fresh memory says that nobody was here before.
                assert_eq!(page.private(0), 0, "an old frame was installed again");
                generations += 1;
            }
            page.set_private(0, 0xdead);
            last = Some(now);
            drop(page);
            // Leave reclaim a chance: a page that is always held is never taken.
            for _ in 0..512 {
                core::hint::spin_loop();
            }
        }
        done.store(true, Ordering::Relaxed);
    });
    let counters = memmap.counters();
    assert_eq!(
        counters.chunks_populated,
        counters.chunks_reclaimed + counters.live_bytes / (64 << 10)
    );
    memmap.self_check().unwrap();
}
