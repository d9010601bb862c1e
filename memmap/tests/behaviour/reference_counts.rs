//! Hazard: a count is not the number of references.

use std::sync::Mutex;

use crate::device::{attach, paged};
use crate::rig::{Meeting, Rig, cpu};

pub(crate) fn a_lookup_a_clone_and_a_pin_count_one_each<R: Rig>(rig: &R) {
    let memmap = attach(rig, 4096, 1 << 20);
    rig.on_cpu(|ctx| {
        let page = memmap.get(ctx, paged(7)).unwrap();
        assert_eq!(page.references(), 1);
        let clone = page.try_clone().unwrap();
        assert_eq!(page.references(), 2);
        let again = memmap.try_get(paged(7)).unwrap();
        assert_eq!(page.references(), 3);
        let pinned = again.into_pinned();
        assert_eq!(page.references(), 3, "a pin is the reference that it was");
        drop(clone);
        assert_eq!(page.references(), 2);
        // The neighbour has its own count.
        assert_eq!(memmap.get(ctx, paged(8)).unwrap().references(), 1);
        memmap.unpin(pinned);
        assert_eq!(page.references(), 1);
        assert_eq!(memmap.reclaim(ctx, 0).unwrap().chunks, 0);
        drop(page);
        assert_eq!(memmap.reclaim(ctx, 0).unwrap().chunks, 1);
    });
}

pub(crate) fn no_increment_is_lost_however_many_cpus_look_one_descriptor_up<R: Rig>(rig: &R) {
    const CPUS: u64 = 4;
    let memmap = attach(rig, 4096, 1 << 20);
    let each = R::rounds(50_000);
    // Several times, so that they run at the same time at least once, however busy the system is.
    for _ in 0..8 {
        let start = Meeting::of(CPUS);
        let all = Mutex::new(Vec::new());
        let cpus = (0..CPUS).map(|_| {
            let (memmap, start, all) = (&memmap, &start, &all);
            cpu(move |ctx| {
                let mut pinned = Vec::with_capacity(each as usize);
                start.wait(rig);
                for _ in 0..each {
                    pinned.push(memmap.get(ctx, paged(7)).unwrap().into_pinned());
                }
                all.lock().unwrap().extend(pinned);
            })
        });
        rig.cpus(cpus.collect());
        rig.on_cpu(|ctx| {
            let page = memmap.get(ctx, paged(7)).unwrap();
            assert_eq!(
                u64::from(page.references()),
                1 + CPUS * each,
                "a count was lost"
            );
            for pinned in all.into_inner().unwrap() {
                memmap.unpin(pinned);
            }
            assert_eq!(page.references(), 1);
        });
    }
    rig.on_cpu(|ctx| memmap.detach(ctx, || true)).unwrap();
}
