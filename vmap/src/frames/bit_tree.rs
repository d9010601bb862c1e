//! A set of small numbers that finds its smallest member in a few steps.

use alloc::collections::TryReserveError;
use alloc::vec::Vec;

const BITS: usize = u64::BITS as usize;

/// Numbers below a fixed bound. Each word of a level has a bit in the level above, set while the word is not zero, up to one word
/// at the top: 1 + 1/64 + 1/4096 + ... bits for each number there could be.
pub(super) struct BitTree {
    /// From the members themselves to the one word at the top.
    levels: Vec<Vec<u64>>,
    members: usize,
}

impl BitTree {
    /// An empty set of numbers below `bound`.
    pub(super) fn new(bound: usize) -> Result<Self, TryReserveError> {
        let mut levels = Vec::new();
        let mut words = bound.div_ceil(BITS).max(1);
        loop {
            let mut level = Vec::new();
            level.try_reserve_exact(words)?;
            level.resize(words, 0);
            levels.try_reserve(1)?;
            levels.push(level);
            if words == 1 {
                break;
            }
            words = words.div_ceil(BITS);
        }
        Ok(BitTree { levels, members: 0 })
    }

    /// How many members.
    pub(super) const fn len(&self) -> usize {
        self.members
    }

    /// What it takes, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.levels.iter().map(|level| level.len() * 8).sum()
    }

    pub(super) fn contains(&self, number: usize) -> bool {
        self.levels[0]
            .get(number / BITS)
            .is_some_and(|word| word & (1 << (number % BITS)) != 0)
    }

    /// False if it was in already.
    pub(super) fn insert(&mut self, number: usize) -> bool {
        if self.contains(number) {
            return false;
        }
        self.members += 1;
        let mut at = number;
        for level in &mut self.levels {
            let word = &mut level[at / BITS];
            let known = *word != 0;
            *word |= 1 << (at % BITS);
            if known {
                break;
            }
            at /= BITS;
        }
        true
    }

    /// False if it was not in.
    pub(super) fn remove(&mut self, number: usize) -> bool {
        if !self.contains(number) {
            return false;
        }
        self.members -= 1;
        let mut at = number;
        for level in &mut self.levels {
            let word = &mut level[at / BITS];
            *word &= !(1 << (at % BITS));
            if *word != 0 {
                break;
            }
            at /= BITS;
        }
        true
    }

    /// The smallest member.
    pub(super) fn first(&self) -> Option<usize> {
        if self.members == 0 {
            return None;
        }
        let at = self.levels.iter().rev().fold(0, |at, level| {
            at * BITS + level[at].trailing_zeros() as usize
        });
        Some(at)
    }

    /// All members, in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = usize> {
        self.levels[0]
            .iter()
            .enumerate()
            .filter(|&(_, &word)| word != 0)
            .flat_map(|(place, &word)| {
                (0..BITS)
                    .filter(move |bit| word & (1 << bit) != 0)
                    .map(move |bit| place * BITS + bit)
            })
    }

    /// Whether the levels agree, and with the count.
    pub(super) fn is_consistent(&self) -> bool {
        let counted: usize = self.levels[0]
            .iter()
            .map(|word| word.count_ones() as usize)
            .sum();
        counted == self.members
            && self.levels.windows(2).all(|pair| {
                pair[0].iter().enumerate().all(|(place, &word)| {
                    let bit = pair[1][place / BITS] & (1 << (place % BITS)) != 0;
                    bit == (word != 0)
                })
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::collections::BTreeSet;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn behaves_as_a_set(
            bound in prop_oneof![1..70_usize, 4000..5000_usize, 262_000..263_000_usize],
            steps in prop::collection::vec((any::<bool>(), any::<prop::sample::Index>()), 1..200),
        ) {
            let mut tree = BitTree::new(bound).unwrap();
            let mut oracle = BTreeSet::new();
            for (insert, number) in steps {
                let number = number.index(bound);
                if insert {
                    prop_assert_eq!(tree.insert(number), oracle.insert(number));
                } else if let (Some(&first), true) = (oracle.first(), number % 2 == 0) {
                    prop_assert!(tree.remove(first) && oracle.remove(&first));
                } else {
                    prop_assert_eq!(tree.remove(number), oracle.remove(&number));
                }
                prop_assert_eq!(tree.first(), oracle.first().copied());
                prop_assert_eq!(tree.len(), oracle.len());
                prop_assert!(tree.is_consistent());
            }
            prop_assert!(tree.iter().eq(oracle.iter().copied()));
        }
    }
}
