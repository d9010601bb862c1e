//! Hazard: a chunk filled again passes for what it was, or one that stayed for a new one.

use crate::device::{attach, chunk_pfn, paged, pin, touch};
use crate::rig::Rig;

pub(crate) fn every_filling_of_a_chunk_is_a_new_generation_with_fresh_memory<R: Rig>(rig: &R) {
    let memmap = attach(rig, 4096, 1 << 20);
    rig.on_cpu(|ctx| {
        let mut seen = Vec::new();
        for round in 0..8 {
            // Not always the only chunk, and not always the first to be filled.
            for chunk in [round % 3, 3] {
                let page = pin(&memmap, ctx, chunk);
                assert_eq!(page.private(5), 0, "an old frame was installed again");
                page.set_private(5, 0xdead);
                let generation = memmap.chunk(page.pfn()).unwrap().generation;
                assert!(
                    seen.iter().all(|old| generation > *old),
                    "{generation} is not newer than {seen:?}"
                );
                seen.push(generation);
            }
            memmap.reclaim(ctx, 0).unwrap();
            assert_eq!(memmap.chunk(chunk_pfn(&memmap, 3).pfn()), None);
        }
        assert_eq!(memmap.counters().chunks_populated, 16);
    });
    memmap.self_check().unwrap();
}

pub(crate) fn a_chunk_that_stays_keeps_its_generation_and_its_memory<R: Rig>(rig: &R) {
    let memmap = attach(rig, 4096, 1 << 20);
    rig.on_cpu(|ctx| {
        let held = pin(&memmap, ctx, 2);
        held.set_private(5, 0xbeef);
        let generation = memmap.chunk(held.pfn()).unwrap().generation;
        for chunk in [0, 1, 3, 4] {
            touch(&memmap, ctx, chunk);
        }
        // All others go; this one is frozen in part, perhaps, and thawed again.
        assert_eq!(memmap.reclaim(ctx, 0).unwrap().chunks, 4);
        let neighbour = memmap.get(ctx, paged(2 * 64 + 63)).unwrap();
        assert_eq!(
            memmap.chunk(neighbour.pfn()).unwrap().generation,
            generation
        );
        assert_eq!((held.references(), held.private(5)), (1, 0xbeef));
    });
    memmap.self_check().unwrap();
}
