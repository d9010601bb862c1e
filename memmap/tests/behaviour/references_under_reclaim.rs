//! Hazard: a reference, a tag or a whole chunk is lost while CPUs get and put and reclaim never rests.

use core::sync::atomic::{AtomicU64, Ordering};

use pageless_memmap::{ChunkState, GetError};

use crate::device::{attach, chunk_pfn, paged};
use crate::rig::{Rig, Signal, cpu};

/// Descriptors that the CPUs fight over: eight chunks' worth.
const FRAMES: u64 = 8 * 64;
const CPUS: u64 = 4;
/// Reclaimed chunks before the test is satisfied.
const RECLAIMS: u64 = if cfg!(pageless_tsan) { 4_000 } else { 30_000 };

fn next(random: &mut u64) -> u64 {
    *random ^= *random << 13;
    *random ^= *random >> 7;
    *random ^= *random << 17;
    *random
}

pub(crate) fn no_count_no_tag_and_no_referenced_chunk_is_lost<R: Rig>(rig: &R) {
    // Two chunks and the one leaf table that they share.
    let memmap = attach(rig, 4096, 3 * 4096);
    let reclaims = R::rounds(RECLAIMS);
    let done = Signal::default();
    let pinned_full = AtomicU64::new(0);
    let taken = AtomicU64::new(0);

    let mut bodies = vec![cpu(|ctx| {
        let _done = done.raise_at_end();
        while !done.is_raised() && memmap.counters().chunks_reclaimed < reclaims {
            if memmap.reclaim(ctx, 0).unwrap().chunks == 0 {
                // Nothing there yet, or all of it referenced.
                rig.pause();
            }
        }
    })];
    for n in 0..CPUS {
        let (memmap, done, pinned_full, taken) = (&memmap, &done, &pinned_full, &taken);
        bodies.push(cpu(move |ctx| {
            let _done = done.raise_at_end();
            let mut random = 0x9e37_79b9 + n;
            let mut serial = 0_u32;
            while !done.is_raised() {
                let pfn = paged(next(&mut random) % FRAMES);
                let page = match memmap.get(ctx, pfn) {
                    Ok(page) => page,
                    Err(GetError::BudgetPinned { .. }) => {
                        pinned_full.fetch_add(1, Ordering::Relaxed);
                        continue;
                    }
                    Err(error) => panic!("{error}"),
                };
                taken.fetch_add(1, Ordering::Relaxed);
                // Word `n` of the descriptor is this CPU's own while it holds it.
                serial += 1;
                let tag = serial << 3 | n as u32;
                page.set_private(n as usize, tag);
                let before = memmap
                    .chunk(pfn.pfn())
                    .expect("a referenced chunk is absent");
                let second = page
                    .try_clone()
                    .expect("a held descriptor is not in memory");
                assert!(page.references() >= 2, "a count was lost");
                rig.linger(next(&mut random) % 64);
                assert_eq!(second.private(n as usize), tag, "a tag was lost");
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
                assert_eq!(second.private(n as usize), tag, "a tag was lost");
            }
        }));
    }
    rig.cpus(bodies);

    memmap.self_check().unwrap();
    let counters = memmap.counters();
    assert!(counters.chunks_reclaimed >= reclaims);
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
    rig.on_cpu(|ctx| memmap.detach(ctx, || true)).unwrap();
}

pub(crate) fn cpus_that_take_turns_on_three_chunks_keep_their_references<R: Rig>(rig: &R) {
    const GETTERS: u64 = 3;
    let memmap = attach(rig, 4096, 1 << 20);
    let rounds = R::rounds(4_000);
    let at_work = AtomicU64::new(GETTERS);
    let mut bodies = vec![cpu(|ctx| {
        while at_work.load(Ordering::Relaxed) > 0 {
            memmap.reclaim(ctx, 0).unwrap();
            rig.pause();
        }
    })];
    for n in 0..GETTERS {
        let (memmap, at_work) = (&memmap, &at_work);
        bodies.push(cpu(move |ctx| {
            let _gone = Leaves(at_work);
            for round in 0..rounds {
                let page = memmap
                    .get(ctx, chunk_pfn(memmap, (round + n) % GETTERS))
                    .unwrap();
                page.set_private(n as usize, round as u32);
                rig.pause();
                assert_eq!(page.private(n as usize), round as u32);
            }
        }));
    }
    rig.cpus(bodies);
    memmap.self_check().unwrap();
    rig.on_cpu(|ctx| memmap.detach(ctx, || true)).unwrap();
}

/// Counts one down when it goes, also by a panic.
struct Leaves<'a>(&'a AtomicU64);

impl Drop for Leaves<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
