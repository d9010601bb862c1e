//! Hazard: a reference, a tag or a whole chunk is lost while threads get and put under a budget of two
//! chunks and reclaim never rests.

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use pageless_fault::MaySleep;
use pageless_memmap::{ChunkState, GetError};

use crate::device::{attach, paged};

/// Descriptors that the threads fight over: eight chunks' worth.
const FRAMES: u64 = 8 * 64;
const THREADS: u64 = 4;
/// Reclaimed chunks before the test is satisfied.
const RECLAIMS: u64 = if cfg!(pageless_tsan) { 4_000 } else { 30_000 };

fn next(random: &mut u64) -> u64 {
    *random ^= *random << 13;
    *random ^= *random >> 7;
    *random ^= *random << 17;
    *random
}

#[test]
fn no_count_no_tag_and_no_referenced_chunk_is_lost() {
    // Two chunks and the one leaf table that they share.
    let memmap = attach(FRAMES, 4096, 3 * 4096);
    let done = AtomicBool::new(false);
    let pinned_full = AtomicU64::new(0);
    let taken = AtomicU64::new(0);

    std::thread::scope(|scope| {
        scope.spawn(|| {
            let ctx = MaySleep::claim();
            while !done.load(Ordering::Relaxed) {
                memmap.reclaim(&ctx, 0).unwrap();
                done.store(
                    memmap.counters().chunks_reclaimed >= RECLAIMS,
                    Ordering::Relaxed,
                );
            }
        });
        for thread in 0..THREADS {
            let (memmap, done, pinned_full, taken) = (&memmap, &done, &pinned_full, &taken);
            scope.spawn(move || {
                let ctx = MaySleep::claim();
                let mut random = 0x9e37_79b9 + thread;
                let mut serial = 0_u32;
                while !done.load(Ordering::Relaxed) {
                    let pfn = paged(next(&mut random) % FRAMES);
                    let page = match memmap.get(&ctx, pfn) {
                        Ok(page) => page,
                        Err(GetError::BudgetPinned { .. }) => {
                            pinned_full.fetch_add(1, Ordering::Relaxed);
                            continue;
                        }
                        Err(error) => panic!("{error}"),
                    };
                    taken.fetch_add(1, Ordering::Relaxed);
                    // Word `thread` of the descriptor is this thread's own while it holds it.
                    serial += 1;
                    let tag = serial << 3 | thread as u32;
                    page.set_private(thread as usize, tag);
                    let before = memmap
                        .chunk(pfn.pfn())
                        .expect("a referenced chunk is absent");
                    let second = page
                        .try_clone()
                        .expect("a held descriptor is not in memory");
                    assert!(page.references() >= 2, "a count was lost");
                    for _ in 0..next(&mut random) % 64 {
                        core::hint::spin_loop();
                    }
                    assert_eq!(second.private(thread as usize), tag, "a tag was lost");
                    let after = memmap
                        .chunk(pfn.pfn())
                        .expect("a referenced chunk is absent");
                    assert_eq!(
                        before.generation, after.generation,
                        "refilled while referenced"
                    );
                    assert!(
                        !matches!(after.state, ChunkState::Unmapped | ChunkState::Quarantined),
                        "a referenced chunk is {:?}",
                        after.state
                    );
                    drop(page);
                    assert_eq!(second.private(thread as usize), tag, "a tag was lost");
                }
            });
        }
    });

    memmap.self_check().unwrap();
    let counters = memmap.counters();
    assert!(counters.chunks_reclaimed >= RECLAIMS);
    assert_eq!(counters.limbo_bytes, 0);
    assert_eq!(
        counters.chunks_populated,
        counters.chunks_reclaimed + counters.live_bytes / 4096,
        "a population without its reclaim"
    );
    assert!(
        counters.used_bytes_peak <= 3 * 4096,
        "{} bytes were in use",
        counters.used_bytes_peak
    );
    assert!(taken.into_inner() > pinned_full.into_inner() / 1000);
    // All counts are back at 0: nothing is in the way of detaching at once.
    memmap.detach(&MaySleep::claim(), || true).unwrap();
}
