//! Hazard: detaching hangs, forgets somebody, or leaves memory behind.

use core::time::Duration;

use pageless_fault::MaySleep;
use pageless_memmap::{DetachError, GetError, Owner, TryGetError};

use crate::device::{attach, chunk_pfn, paged};

#[test]
fn a_deadline_that_passes_says_who_still_holds_what() {
    let ctx = MaySleep::claim();
    let memmap = attach(1 << 20, 4096, 1 << 20);
    for chunk in 0..20 {
        drop(memmap.get(&ctx, chunk_pfn(&memmap, chunk)).unwrap());
    }
    let page = memmap.get(&ctx, paged(3 * 64 + 17)).unwrap();
    page.set_owner(Owner(4711));
    let again = page.try_clone().unwrap();
    let pinned = memmap.get(&ctx, paged(9 * 64)).unwrap().into_pinned();

    let error = memmap
        .detach_within(&ctx, Duration::from_millis(5))
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
    drop(memmap.get(&ctx, chunk_pfn(&memmap, 1)).unwrap());

    drop((page, again));
    memmap.unpin(pinned);
    memmap.detach_within(&ctx, Duration::ZERO).unwrap();
    let counters = memmap.counters();
    assert_eq!(counters.used_bytes(), 0);
    assert_eq!(counters.chunks_populated, counters.chunks_reclaimed);
}

#[test]
fn after_detaching_every_lookup_says_so() {
    let ctx = MaySleep::claim();
    let memmap = attach(1 << 20, 4096, 1 << 20);
    drop(memmap.get(&ctx, paged(0)).unwrap());
    memmap.detach(&ctx, || true).unwrap();
    assert_eq!(memmap.get(&ctx, paged(0)).unwrap_err(), GetError::Detached);
    let error = memmap.try_get(paged(0)).unwrap_err();
    assert!(matches!(
        error,
        TryGetError::WouldBlock { .. } | TryGetError::Detached
    ));
    assert_eq!(memmap.detach(&ctx, || true), Err(DetachError::Detached));
    assert_eq!(memmap.counters().used_bytes(), 0);
}

#[test]
fn detaching_waits_for_the_last_reference() {
    let memmap = attach(1 << 20, 4096, 1 << 20);
    let ctx = MaySleep::claim();
    let pinned = memmap.get(&ctx, paged(1)).unwrap().into_pinned();
    let (send, receive) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        let memmap = &memmap;
        let detacher = scope.spawn(move || {
            let mut asked = 0_u32;
            memmap.detach(&MaySleep::claim(), || {
                asked += 1;
                if asked == 3 {
                    // Three times around with the reference still held: let it go now.
                    send.send(()).unwrap();
                }
                false
            })
        });
        receive.recv().unwrap();
        memmap.unpin(pinned);
        detacher.join().unwrap().unwrap();
    });
}

#[test]
fn the_deadline_may_ask_the_memmap_and_may_panic() {
    let ctx = MaySleep::claim();
    let memmap = attach(1 << 20, 4096, 1 << 20);
    let page = memmap.get(&ctx, paged(1)).unwrap();
    let error = memmap
        .detach(&ctx, || memmap.counters().live_bytes > 0)
        .unwrap_err();
    assert!(matches!(error, DetachError::Busy { descriptors: 1, .. }));
    let panicked = std::panic::catch_unwind(core::panic::AssertUnwindSafe(|| {
        let _ = memmap.detach(&ctx, || panic!("the deadline's own trouble"));
    }));
    assert!(panicked.is_err());
    // It is attached, whatever happened.
    drop(memmap.get(&ctx, paged(100)).unwrap());
    drop(page);
    memmap.detach(&ctx, || true).unwrap();
}
