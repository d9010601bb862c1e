//! Hazard: two memmaps on one machine get in each other's way.

use core::panic::AssertUnwindSafe;

use pageless_memmap::{Budget, ChunkSize, Config, GetError};

use crate::device::{attach, paged, touch, try_attach};
use crate::rig::Rig;

pub(crate) fn each_has_its_own_descriptors_budget_and_end<R: Rig>(rig: &R) {
    let one = attach(rig, 4096, 64 << 10);
    let two = attach(rig, 64 << 10, 1 << 20);
    rig.on_cpu(move |ctx| {
        let in_one = one.get(ctx, paged(100)).unwrap();
        let in_two = two.get(ctx, paged(100)).unwrap();
        in_one.set_private(0, 1);
        in_two.set_private(0, 2);
        assert_eq!((in_one.private(0), in_two.private(0)), (1, 2));
        for chunk in 0..100 {
            touch(&one, ctx, chunk);
        }
        assert!(one.counters().chunks_reclaimed > 0);
        assert_eq!(two.counters().chunks_reclaimed, 0);
        assert_eq!((in_one.private(0), in_two.private(0)), (1, 2));
        drop(in_one);
        one.detach(ctx, || true).unwrap();
        drop(one);
        assert_eq!(in_two.private(0), 2);
        touch(&two, ctx, 5);
    });
}

pub(crate) fn a_page_pinned_in_one_cannot_be_given_to_the_other<R: Rig>(rig: &R) {
    let one = attach(rig, 4096, 64 << 10);
    let two = attach(rig, 4096, 64 << 10);
    rig.on_cpu(|ctx| {
        let page = one.get(ctx, paged(0)).unwrap();
        let pinned = page.try_clone().unwrap().into_pinned();
        let refused = std::panic::catch_unwind(AssertUnwindSafe(|| two.unpin(pinned)));
        let said = refused.expect_err("taken from a stranger");
        let said = said.downcast_ref::<String>().unwrap();
        assert!(said.contains("pinned through another memmap"), "{said}");
        // Neither has changed: the one still counts it, the other has nothing.
        assert_eq!(page.references(), 2);
        assert_eq!(two.counters().used_bytes(), 0);
    });
}

pub(crate) fn a_pfn_outside_is_not_covered<R: Rig>(rig: &R) {
    let config = Config {
        budget: Budget::new(64 << 10, ChunkSize::MIN).unwrap(),
        ..Config::default()
    };
    let memmap = try_attach(rig, 1 << 10, config).unwrap();
    rig.on_cpu(|ctx| {
        let error = memmap.get(ctx, paged(1 << 10)).unwrap_err();
        assert_eq!(
            error,
            GetError::NotCovered {
                pfn: paged(1 << 10).pfn(),
                first: paged(0).pfn(),
                count: 1 << 10,
            }
        );
        assert!(memmap.try_get(paged(1 << 10)).is_err());
    });
    assert_eq!(memmap.counters().faults, 0);
}
