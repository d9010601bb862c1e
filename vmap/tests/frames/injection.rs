//! Allocations that fail because they are told to.

use pageless_fault::MaySleep;
use pageless_vmap::frames::{AllocError, Gfp, Injected, Injection};

use crate::{Allocator, allocator, bare, frames, order};

/// Takes blocks of several orders; gives back what it has when one fails.
fn several(allocator: &Allocator) -> Result<(), AllocError> {
    let ctx = MaySleep::claim();
    let mut held = Vec::new();
    let mut failed = None;
    for wanted in [0, 3, 1, 4, 0, 2] {
        match allocator.alloc(&Gfp::kernel(&ctx).zeroed(), order(wanted)) {
            Ok(block) => held.push(block),
            Err(error) => {
                failed = Some(error);
                break;
            }
        }
    }
    held.into_iter().for_each(|block| allocator.free(block));
    failed.map_or(Ok(()), Err)
}

#[test]
fn a_failure_at_each_visit_leaves_nothing_behind() {
    let allocator = allocator(0, 128, bare());
    let mut visits = 0;
    for nth in 0.. {
        allocator.inject(Some(Injection::Nth(nth)));
        let result = several(&allocator);
        let injected = allocator.inject(None);
        allocator.self_check().unwrap();
        assert_eq!(allocator.statistics().owned(), frames(0));
        assert_eq!(allocator.statistics().blocks().of(order(7)), 1);
        if injected.failures == 0 {
            assert_eq!(result, Ok(()));
            visits = injected.visits;
            break;
        }
        assert!(matches!(result, Err(AllocError::Injected { .. })));
        assert_eq!(injected.visits, nth + 1);
    }
    assert_eq!(visits, 6);
    assert_eq!(allocator.statistics().events.injected, 6);
}

#[test]
fn only_large_orders_fail_where_only_they_are_to() {
    let allocator = allocator(0, 128, bare());
    allocator.inject(Some(Injection::FromOrder(order(2))));
    for wanted in 0..6 {
        match allocator.alloc(&Gfp::atomic(), order(wanted)) {
            Ok(block) => {
                assert!(wanted < 2);
                allocator.free(block);
            }
            Err(error) => {
                assert!(wanted >= 2);
                let order = order(wanted);
                assert_eq!(error, AllocError::Injected { order });
            }
        }
    }
    let expected = Injected {
        visits: 6,
        failures: 4,
    };
    assert_eq!(allocator.injected(), expected);
    assert_eq!(allocator.inject(None), expected);
    assert_eq!(allocator.injected(), Injected::default());
}

#[test]
fn chance_is_the_seeds() {
    let allocator = allocator(0, 8, bare());
    let pattern = |chance, seed| {
        allocator.inject(Some(Injection::PerMille { chance, seed }));
        let pattern: Vec<bool> = (0..1000)
            .map(|_| match allocator.alloc(&Gfp::atomic(), order(1)) {
                Ok(block) => {
                    allocator.free(block);
                    false
                }
                Err(_) => true,
            })
            .collect();
        let failures = allocator.inject(None).failures;
        let failed = pattern.iter().filter(|&&failed| failed).count();
        assert_eq!(failures, failed as u64);
        pattern
    };
    let failures = |pattern: &[bool]| pattern.iter().filter(|&&failed| failed).count();
    let (one, other) = (pattern(300, 1), pattern(300, 2));
    assert_eq!(one, pattern(300, 1));
    assert_ne!(one, other);
    assert!((200..400).contains(&failures(&one)));
    assert_eq!(failures(&pattern(0, 1)), 0);
    assert_eq!(failures(&pattern(1000, 1)), 1000);
}

#[test]
fn orders_that_never_exist_are_no_visits() {
    let allocator = allocator(0, 8, bare());
    allocator.inject(Some(Injection::Nth(0)));
    let error = allocator.alloc(&Gfp::atomic(), order(11)).unwrap_err();
    assert_eq!(
        error,
        AllocError::OrderTooLarge {
            order: order(11),
            max: order(10)
        }
    );
    assert_eq!(allocator.injected().visits, 0);
}

#[test]
fn the_nth_fails_and_no_other() {
    let allocator = allocator(0, 8, bare());
    allocator.inject(Some(Injection::Nth(2)));
    let failed: Vec<bool> = (0..6)
        .map(|_| match allocator.alloc(&Gfp::atomic(), order(0)) {
            Ok(block) => {
                allocator.free(block);
                false
            }
            Err(_) => true,
        })
        .collect();
    assert_eq!(failed, [false, false, true, false, false, false]);
}
