use alloc::vec;
use alloc::vec::Vec;

use proptest::prelude::*;

use super::{FreeTree, Span};

const PAGES: u64 = 256;

#[derive(Debug, Clone)]
enum Op {
    Take {
        pages: u64,
        align: u32,
    },
    TakeWithin {
        first: u64,
        len: u64,
        pages: u64,
        align: u32,
    },
    Give {
        which: usize,
    },
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let op = prop_oneof![
        (1..40_u64, 0..5_u32).prop_map(|(pages, align)| Op::Take { pages, align }),
        (0..PAGES, 1..80_u64, 1..40_u64, 0..5_u32).prop_map(|(first, len, pages, align)| {
            Op::TakeWithin {
                first,
                len,
                pages,
                align,
            }
        }),
        any::<usize>().prop_map(|which| Op::Give { which }),
    ];
    prop::collection::vec(op, 1..200)
}

/// The smallest hole of `free` that has `pages` pages at a multiple of `align`, the lowest of several: where in it.
fn smallest(free: &[bool], pages: u64, align: u64) -> Option<u64> {
    let mut best: Option<(u64, u64)> = None;
    let mut first = 0;
    for hole in free.split_inclusive(|free| !free) {
        let len = hole.iter().filter(|free| **free).count() as u64;
        let at = (first as u64).next_multiple_of(align);
        let fits = at + pages <= first as u64 + len;
        if fits && best.is_none_or(|(best, _)| len < best) {
            best = Some((len, at));
        }
        first += hole.len();
    }
    best.map(|(_, at)| at)
}

/// The lowest `pages` pages of `free`, all in `first..end`, that begin at a multiple of `align`.
fn lowest(free: &[bool], first: u64, end: u64, pages: u64, align: u64) -> Option<u64> {
    let end = end.min(free.len() as u64);
    (first..end)
        .filter(|at| at % align == 0 && at + pages <= end)
        .find(|at| {
            free[*at as usize..(at + pages) as usize]
                .iter()
                .all(|free| *free)
        })
}

proptest! {
    #[test]
    fn spans_are_taken_and_given_as_by_an_array_of_pages(ops in ops()) {
        let mut tree = FreeTree::of(Span::new(0, PAGES));
        let mut free = vec![true; PAGES as usize];
        let mut taken: Vec<Span> = Vec::new();
        for op in ops {
            match op {
                Op::Take { pages, align } => {
                    let found = tree.take(pages, 1 << align);
                    prop_assert_eq!(found.map(Span::first), smallest(&free, pages, 1 << align));
                    if let Some(span) = found {
                        prop_assert_eq!(span.pages(), pages);
                        free[span.first() as usize..span.end() as usize].fill(false);
                        taken.push(span);
                    }
                }
                Op::TakeWithin { first, len, pages, align } => {
                    let found = tree.take_within(Span::new(first, len), pages, 1 << align);
                    let expected = lowest(&free, first, first + len, pages, 1 << align);
                    prop_assert_eq!(found.map(Span::first), expected);
                    if let Some(span) = found {
                        prop_assert_eq!(span.pages(), pages);
                        free[span.first() as usize..span.end() as usize].fill(false);
                        taken.push(span);
                    }
                }
                Op::Give { which } => {
                    if let Some(nth) = which.checked_rem(taken.len()) {
                        let span = taken.swap_remove(nth);
                        free[span.first() as usize..span.end() as usize].fill(true);
                        tree.give(span);
                    }
                }
            }
            prop_assert_eq!(tree.self_check(), Ok(()));
            let count = free.iter().filter(|free| **free).count();
            prop_assert_eq!(tree.pages(), count as u64);
            let largest = free.split(|free| !free).map(<[bool]>::len).max();
            prop_assert_eq!(tree.largest(), largest.unwrap_or(0) as u64);
        }
    }
}
