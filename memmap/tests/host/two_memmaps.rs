//! Hazard: two memmaps in one process get in each other's way.

use pageless_fault::MaySleep;
use pageless_memmap::GetError;

use crate::device::{attach, chunk_pfn, paged};

#[test]
fn each_has_its_own_descriptors_budget_and_end() {
    let ctx = MaySleep::claim();
    let one = attach(1 << 20, 4096, 64 << 10);
    let two = attach(1 << 20, 64 << 10, 1 << 20);
    let in_one = one.get(&ctx, paged(100)).unwrap();
    let in_two = two.get(&ctx, paged(100)).unwrap();
    in_one.set_private(0, 1);
    in_two.set_private(0, 2);
    assert_eq!((in_one.private(0), in_two.private(0)), (1, 2));
    for chunk in 0..100 {
        drop(one.get(&ctx, chunk_pfn(&one, chunk)).unwrap());
    }
    assert!(one.counters().chunks_reclaimed > 0);
    assert_eq!(two.counters().chunks_reclaimed, 0);
    assert_eq!((in_one.private(0), in_two.private(0)), (1, 2));
    drop(in_one);
    one.detach(&ctx, || true).unwrap();
    drop(one);
    assert_eq!(in_two.private(0), 2);
    drop(two.get(&ctx, chunk_pfn(&two, 5)).unwrap());
}

#[test]
#[should_panic(expected = "pinned through another memmap")]
fn a_page_pinned_in_one_cannot_be_given_to_the_other() {
    let ctx = MaySleep::claim();
    let one = attach(1 << 20, 4096, 64 << 10);
    let two = attach(1 << 20, 4096, 64 << 10);
    let pinned = one.get(&ctx, paged(0)).unwrap().into_pinned();
    two.unpin(pinned);
}

#[test]
fn a_pfn_outside_is_not_covered() {
    let ctx = MaySleep::claim();
    let memmap = attach(1 << 10, 4096, 64 << 10);
    let error = memmap.get(&ctx, paged(1 << 10)).unwrap_err();
    assert_eq!(
        error,
        GetError::NotCovered {
            pfn: paged(1 << 10).pfn(),
            first: paged(0).pfn(),
            count: 1 << 10,
        }
    );
    assert!(memmap.try_get(paged(1 << 10)).is_err());
    assert_eq!(memmap.counters().faults, 0);
}
