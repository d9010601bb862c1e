//! Hazard: many CPUs fault one chunk, or a chunk that is just being taken away.

use crate::device::{attach, chunk_pfn, paged};
use crate::rig::{Meeting, Rig, Signal, cpu};

pub(crate) fn a_crowd_of_cpus_on_one_chunk_fills_it_once<R: Rig>(rig: &R) {
    const ROUNDS: u64 = 6;
    // Large chunks, so that the fill takes long enough for all to arrive.
    let chunk = R::LARGEST_CHUNK;
    let memmap = attach(rig, chunk, 8 * chunk);
    let descriptors = memmap.chunk_size().descriptors();
    for round in 0..ROUNDS {
        let start = Meeting::of(R::CROWD);
        let crowd = (0..R::CROWD).map(|n| {
            let (memmap, start) = (&memmap, &start);
            cpu(move |ctx| {
                start.wait(rig);
                // Each one has a descriptor of its own.
                let index = round * descriptors + n * (descriptors / R::CROWD);
                let page = memmap.get(ctx, paged(index)).unwrap();
                assert_eq!(page.references(), 1);
            })
        });
        rig.cpus(crowd.collect());
        let counters = memmap.counters();
        assert_eq!(
            counters.chunks_populated,
            round + 1,
            "not exactly one population"
        );
        assert_eq!(counters.live_bytes, (round + 1) * chunk);
        memmap.self_check().unwrap();
    }
    rig.on_cpu(|ctx| memmap.reclaim(ctx, 0)).unwrap();
    assert_eq!(memmap.counters().chunks_reclaimed, ROUNDS);
}

pub(crate) fn a_fault_on_a_chunk_under_reclaim_ends_in_a_new_generation<R: Rig>(rig: &R) {
    let memmap = attach(rig, 64 << 10, 1 << 20);
    let done = Signal::default();
    rig.cpus(vec![
        cpu(|ctx| {
            while !done.is_raised() {
                if memmap.reclaim(ctx, 0).unwrap().chunks == 0 {
                    // Referenced just now: let the holder have the lock.
                    rig.pause();
                }
            }
        }),
        cpu(|ctx| {
            let _done = done.raise_at_end();
            let pfn = chunk_pfn(&memmap, 3);
            let mut last = None;
            let mut generations = 0;
            while generations < R::rounds(2_000) {
                let page = memmap.get(ctx, pfn).unwrap();
                let now = memmap.chunk(pfn.pfn()).unwrap().generation;
                assert!(Some(now) >= last, "an old generation came back");
                if Some(now) > last {
                    // Fresh memory says that nobody was here before.
                    assert_eq!(page.private(0), 0, "an old frame was installed again");
                    generations += 1;
                } else {
                    assert_eq!(page.private(0), 0xdead, "refilled in an old generation");
                }
                page.set_private(0, 0xdead);
                last = Some(now);
                drop(page);
                // Leave reclaim a chance: a page that is always held is never taken.
                rig.linger(512);
            }
        }),
    ]);
    let counters = memmap.counters();
    assert_eq!(
        counters.chunks_populated,
        counters.chunks_reclaimed + counters.live_bytes / (64 << 10)
    );
    memmap.self_check().unwrap();
}
