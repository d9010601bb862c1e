//! Which blocks of a pass have been visited, when requests differ in length.

/// A bitmap with a summary level above it, so that finding the next free block stays short.
#[derive(Debug, Clone)]
pub struct RandomMap {
    blocks: u64,
    taken: u64,
    /// Bit set: the block has been visited. Bits behind the last block are set from the start.
    words: Vec<u64>,
    /// Bit set: the word is full.
    full: Vec<u64>,
}

impl RandomMap {
    /// A map of `blocks` unvisited blocks; takes `blocks / 8` bytes and 1/64 more.
    #[must_use]
    pub fn new(blocks: u64) -> Self {
        let words = usize::try_from(blocks.div_ceil(64)).unwrap_or(usize::MAX);
        let mut map = Self {
            blocks,
            taken: 0,
            words: vec![0; words],
            full: vec![0; words.div_ceil(64)],
        };
        map.seal();
        map
    }

    fn seal(&mut self) {
        if let Some(last) = self.words.last_mut()
            && !self.blocks.is_multiple_of(64)
        {
            *last = u64::MAX << (self.blocks % 64);
        }
        let used = self.words.len() % 64;
        if let Some(last) = self.full.last_mut()
            && used != 0
        {
            *last = u64::MAX << used;
        }
    }

    /// Makes all blocks unvisited again.
    pub fn reset(&mut self) {
        self.taken = 0;
        self.words.fill(0);
        self.full.fill(0);
        self.seal();
    }

    /// Whether all blocks have been visited.
    #[must_use]
    pub const fn is_full(&self) -> bool {
        self.taken >= self.blocks
    }

    /// How many blocks there are.
    #[must_use]
    pub const fn len(&self) -> u64 {
        self.blocks
    }

    /// Whether there are no blocks at all.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.blocks == 0
    }

    fn is_taken(&self, block: u64) -> bool {
        let word = usize::try_from(block / 64).unwrap_or(usize::MAX);
        self.words
            .get(word)
            .is_none_or(|w| w >> (block % 64) & 1 == 1)
    }

    /// The first unvisited block at or behind `block`, beginning again at 0 if there is none.
    #[must_use]
    pub fn next_free(&self, block: u64) -> Option<u64> {
        if self.is_full() {
            return None;
        }
        self.free_from(block).or_else(|| self.free_from(0))
    }

    fn free_from(&self, block: u64) -> Option<u64> {
        let first = usize::try_from(block / 64).ok()?;
        let rest = !self.words.get(first)? & (u64::MAX << (block % 64));
        if rest != 0 {
            return Some(first as u64 * 64 + u64::from(rest.trailing_zeros()));
        }
        let word = self.open_word(first + 1)?;
        let free = !self.words[word];
        Some(word as u64 * 64 + u64::from(free.trailing_zeros()))
    }

    fn open_word(&self, from: usize) -> Option<usize> {
        let mut index = from / 64;
        let mut open = !*self.full.get(index)? & (u64::MAX << (from % 64));
        while open == 0 {
            index += 1;
            open = !*self.full.get(index)?;
        }
        Some(index * 64 + open.trailing_zeros() as usize)
    }

    /// Marks up to `want` blocks from `block` on as visited, stopping before one that already is
    /// and at the end; returns how many.
    pub fn take(&mut self, block: u64, want: u64) -> u64 {
        let mut count = 0;
        while count < want && block + count < self.blocks && !self.is_taken(block + count) {
            let at = block + count;
            let word = usize::try_from(at / 64).unwrap_or(usize::MAX);
            self.words[word] |= 1 << (at % 64);
            if self.words[word] == u64::MAX {
                self.full[word / 64] |= 1 << (word % 64);
            }
            count += 1;
        }
        self.taken += count;
        count
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::workload::{Seed, random_below};

    #[test]
    fn a_pass_takes_every_block_once_whatever_the_lengths() {
        for blocks in [1u64, 63, 64, 65, 4096, 5000, 70_001] {
            let mut map = RandomMap::new(blocks);
            let mut rng = Seed::new(blocks).rng();
            let mut naive = vec![false; usize::try_from(blocks).expect("small")];
            while let Some(block) = map.next_free(random_below(&mut rng, blocks)) {
                let got = map.take(block, 1 + random_below(&mut rng, 9));
                assert!(got > 0);
                for b in block..block + got {
                    let b = usize::try_from(b).expect("small");
                    assert!(!core::mem::replace(&mut naive[b], true), "block {b} twice");
                }
            }
            assert!(naive.iter().all(|b| *b), "{blocks} blocks");
            assert!(map.is_full());
            map.reset();
            assert_eq!(map.next_free(blocks - 1), Some(blocks - 1));
        }
    }
}
