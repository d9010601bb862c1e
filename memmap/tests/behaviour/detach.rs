//! Hazard: detaching hangs, forgets somebody, or leaves memory behind.

use core::time::Duration;

use pageless_memmap::{DetachError, GetError, Owner, TryGetError};

use crate::device::{attach, paged, touch};
use crate::rig::{Rig, Signal, cpu};

pub(crate) fn a_deadline_that_passes_says_who_still_holds_what<R: Rig>(rig: &R) {
    let memmap = attach(rig, 4096, 1 << 20);
    rig.on_cpu(|ctx| {
        for chunk in 0..20 {
            touch(&memmap, ctx, chunk);
        }
        let page = memmap.get(ctx, paged(3 * 64 + 17)).unwrap();
        page.set_owner(Owner(4711));
        let again = page.try_clone().unwrap();
        let pinned = memmap.get(ctx, paged(9 * 64)).unwrap().into_pinned();

        let error = memmap
            .detach_within(ctx, Duration::from_millis(5))
            .unwrap_err();
        let DetachError::Busy {
            descriptors,
            holders,
        } = &error
        else {
            panic!("{error}");
        };
        assert_eq!(*descriptors, 2);
        let named: Vec<_> = holders
            .iter()
            .map(|holder| (holder.pfn, holder.references, holder.owner))
            .collect();
        assert_eq!(
            named,
            [
                (paged(3 * 64 + 17).pfn(), 2, Owner(4711)),
                (paged(9 * 64).pfn(), 1, Owner(0)),
            ]
        );
        assert!(error.to_string().contains("owner 4711"), "{error}");

        // It is still attached, and what was held is still there.
        assert_eq!(page.owner(), Owner(4711));
        touch(&memmap, ctx, 1);

        drop((page, again));
        memmap.unpin(pinned);
        memmap.detach_within(ctx, Duration::ZERO).unwrap();
    });
    let counters = memmap.counters();
    assert_eq!(counters.used_bytes(), 0);
    assert_eq!(counters.chunks_populated, counters.chunks_reclaimed);
}

pub(crate) fn after_detaching_every_lookup_says_so<R: Rig>(rig: &R) {
    let memmap = attach(rig, 4096, 1 << 20);
    rig.on_cpu(|ctx| {
        touch(&memmap, ctx, 0);
        memmap.detach(ctx, || true).unwrap();
        assert_eq!(memmap.get(ctx, paged(0)).unwrap_err(), GetError::Detached);
        let error = memmap.try_get(paged(0)).unwrap_err();
        assert!(matches!(
            error,
            TryGetError::WouldBlock { .. } | TryGetError::Detached
        ));
        assert_eq!(memmap.detach(ctx, || true), Err(DetachError::Detached));
    });
    assert_eq!(memmap.counters().used_bytes(), 0);
}

pub(crate) fn detaching_waits_for_the_last_reference<R: Rig>(rig: &R) {
    let memmap = attach(rig, 4096, 1 << 20);
    let pinned = rig.on_cpu(|ctx| memmap.get(ctx, paged(1)).unwrap().into_pinned());
    let asked_three_times = Signal::default();
    rig.cpus(vec![
        cpu(|ctx| {
            let _at_the_latest = asked_three_times.raise_at_end();
            let mut asked = 0_u32;
            let detached = memmap.detach(ctx, || {
                asked += 1;
                if asked == 3 {
                    // Three times around with the reference still held: let it go now.
                    asked_three_times.raise();
                }
                false
            });
            detached.unwrap();
            assert!(asked >= 3, "detached under a reference");
        }),
        cpu(|_| {
            while !asked_three_times.is_raised() {
                rig.pause();
            }
            memmap.unpin(pinned);
        }),
    ]);
    assert_eq!(memmap.counters().used_bytes(), 0);
}

pub(crate) fn the_deadline_may_ask_the_memmap_and_may_panic<R: Rig>(rig: &R) {
    let memmap = attach(rig, 4096, 1 << 20);
    rig.on_cpu(|ctx| {
        let page = memmap.get(ctx, paged(1)).unwrap();
        let error = memmap
            .detach(ctx, || memmap.counters().live_bytes > 0)
            .unwrap_err();
        assert!(matches!(error, DetachError::Busy { descriptors: 1, .. }));
        let panicked = std::panic::catch_unwind(core::panic::AssertUnwindSafe(|| {
            let _ = memmap.detach(ctx, || panic!("the deadline's own trouble"));
        }));
        assert!(panicked.is_err());
        // It is attached, whatever happened.
        drop(memmap.get(ctx, paged(100)).unwrap());
        drop(page);
        memmap.detach(ctx, || true).unwrap();
    });
}
