use alloc::vec;
use alloc::vec::Vec;

use proptest::prelude::*;

use super::{BLOCK_MOST, Bits, RAM_MOST, RamBlock};
use crate::area::span::Span;

fn block(pages: u64) -> RamBlock {
    RamBlock {
        span: Span::new(0, pages),
        pages,
        hint: 0,
        used: Bits::NONE,
        dirty: Bits::NONE,
        flushing: Bits::NONE,
    }
}

proptest! {
    #[test]
    fn bits_are_set_cleared_and_found_in_runs(
        changes in prop::collection::vec((any::<bool>(), 0..BLOCK_MOST, 1..200_u64), 1..40),
    ) {
        let mut bits = Bits::NONE;
        let mut naive = vec![false; BLOCK_MOST as usize];
        for (set, first, pages) in changes {
            let pages = pages.min(BLOCK_MOST - first);
            if set {
                bits.set(first, pages);
            } else {
                bits.clear(first, pages);
            }
            naive[first as usize..(first + pages) as usize].fill(set);
        }
        for (n, set) in (0..).zip(&naive) {
            prop_assert_eq!(bits.get(n), *set);
        }
        prop_assert_eq!(bits.count(), naive.iter().filter(|set| **set).count() as u64);
        let mut again = Bits::NONE;
        let mut end = None;
        for (first, pages) in bits.runs() {
            // As long as can be.
            prop_assert!(end.is_none_or(|end| end < first));
            again.set(first, pages);
            end = Some(first + pages);
        }
        prop_assert_eq!(again, bits);
    }

    #[test]
    fn free_pages_in_a_row_are_found_wherever_they_are(
        taken in prop::collection::vec((0..3_u8, 0..256_u64, 1..60_u64), 0..12),
        hint in 0..4_usize,
        pages in 1..=RAM_MOST,
    ) {
        let mut block = block(256);
        block.hint = hint;
        let mut naive = [false; 256];
        for (kind, first, count) in taken {
            let count = count.min(256 - first);
            let bits = match kind {
                0 => &mut block.used,
                1 => &mut block.dirty,
                _ => &mut block.flushing,
            };
            bits.set(first, count);
            naive[first as usize..(first + count) as usize].fill(true);
        }
        let fits = |first: usize| {
            naive.get(first..first + pages as usize).is_some_and(|run| run.iter().all(|taken| !taken))
        };
        let possible: Vec<usize> = (0..256).filter(|first| fits(*first)).collect();
        match block.find(pages) {
            Some(at) => prop_assert!(possible.contains(&(at as usize))),
            None => prop_assert_eq!(possible, Vec::<usize>::new()),
        }
    }
}
