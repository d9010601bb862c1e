//! Pages of each kind.

use pageless::vmap::compress::{Algorithm, Compressor, PAGE, Page, filled_with};
use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::{Rng, SeedableRng};

/// From one seed always the same.
pub(crate) struct Random(Xoshiro256PlusPlus);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(Xoshiro256PlusPlus::seed_from_u64(seed))
    }

    /// Below `end`.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.0.next_u64() % end
    }

    /// Does not get smaller.
    pub(crate) fn noise(&mut self) -> Page {
        let mut page = [0; PAGE];
        self.0.fill_bytes(&mut page);
        page
    }

    /// One word over and over.
    pub(crate) fn filled(&mut self) -> Page {
        let word = [0, u64::MAX, self.0.next_u64()][self.below(3) as usize];
        let mut page = [0; PAGE];
        page.as_chunks_mut().0.fill(word.to_ne_bytes());
        page
    }

    /// Gets smaller: `of` bytes of noise, and the rest a few words.
    pub(crate) fn text(&mut self, of: usize) -> Page {
        let mut page = self.noise();
        let word = self.0.next_u64().to_ne_bytes();
        for (at, byte) in page[of.min(PAGE)..].iter_mut().enumerate() {
            *byte = word[at % 7];
        }
        page
    }

    /// Any kind.
    pub(crate) fn page(&mut self) -> Page {
        match self.below(8) {
            0 => self.noise(),
            1 | 2 => self.filled(),
            _ => {
                let of = self.below(PAGE as u64) as usize;
                self.text(of)
            }
        }
    }
}

/// Bytes that a page takes when it is stored, by the rules of zram: `None` if it is one word.
pub(crate) fn stored_as(algorithm: Algorithm, page: &Page, worth_it: usize) -> Option<usize> {
    if filled_with(page).is_some() {
        return None;
    }
    let len = algorithm.compress(&mut algorithm.work(), page, &mut [0; 2 * PAGE]);
    Some(len.filter(|len| *len < worth_it).unwrap_or(PAGE))
}
