//! What is to be flushed.

/// Above this many pages, a full flush is cheaper than one instruction for each: Linux's
/// `tlb_single_page_flush_ceiling` (arch/x86/mm/tlb.c).
pub const SINGLE_PAGE_CEILING: u64 = 33;

/// Stretches that one request has room for: what is left of a cache line of four words beside its sender.
const STRETCHES: usize = 3;

const PAGE: u64 = 4096;

/// Some pages of 4 KiB, one behind the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stretch {
    /// An address in the first page.
    pub first: u64,
    /// How many.
    pub pages: u64,
}

impl Stretch {
    const NONE: Stretch = Stretch { first: 0, pages: 0 };

    const fn end(self) -> u64 {
        self.first.saturating_add(self.pages.saturating_mul(PAGE))
    }
}

/// The pages of one request: at most three stretches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stretches([Stretch; STRETCHES]);

impl Stretches {
    /// One stretch.
    #[must_use]
    pub const fn one(first: u64, pages: u64) -> Self {
        Stretches([Stretch { first, pages }, Stretch::NONE, Stretch::NONE])
    }

    /// Covers all of `stretches`. Where they are more than fit, neighbours are joined, those with the smallest gap first.
    fn covering(stretches: impl IntoIterator<Item = Stretch>) -> Self {
        let mut kept = [Stretch::NONE; STRETCHES + 1];
        let mut used = 0;
        for stretch in stretches {
            let stretch = Stretch {
                first: stretch.first & !(PAGE - 1),
                ..stretch
            };
            if stretch.pages == 0 {
                continue;
            }
            let at = kept[..used]
                .iter()
                .take_while(|other| other.first <= stretch.first)
                .count();
            kept[used] = stretch;
            kept[at..=used].rotate_right(1);
            used += 1;
            // What touches or overlaps is one; and one too many is joined where that adds the fewest pages.
            loop {
                let gap = |n: usize| kept[n + 1].first.saturating_sub(kept[n].end());
                let Some(closest) = (0..used - 1).min_by_key(|&n| gap(n)) else {
                    break;
                };
                if gap(closest) > 0 && used <= STRETCHES {
                    break;
                }
                let end = kept[closest].end().max(kept[closest + 1].end());
                kept[closest].pages = (end - kept[closest].first).div_ceil(PAGE);
                kept[closest + 1..used].rotate_left(1);
                used -= 1;
                kept[used] = Stretch::NONE;
            }
        }
        Stretches([kept[0], kept[1], kept[2]])
    }

    /// How many pages they are.
    #[must_use]
    pub fn page_count(&self) -> u64 {
        self.iter()
            .fold(0, |sum, stretch| stretch.pages.saturating_add(sum))
    }

    /// The stretches, in order of address.
    pub fn iter(&self) -> impl Iterator<Item = Stretch> + '_ {
        self.0.iter().copied().filter(|stretch| stretch.pages > 0)
    }

    /// The addresses of the pages.
    pub fn pages(&self) -> impl Iterator<Item = u64> + '_ {
        self.iter()
            .flat_map(|stretch| (0..stretch.pages).map(move |page| stretch.first + page * PAGE))
    }
}

/// What a CPU is asked to forget.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flush {
    stretches: Stretches,
    tables: bool,
}

/// How a CPU executes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Invalidation {
    /// One instruction for each of these pages.
    Pages(Stretches),
    /// Everything: global translations and paging-structure caches included.
    Everything,
}

/// Of a request in words: more pages than are worth naming.
const ALL_PAGES: u64 = u64::MAX - 1;
/// Of a request in words: everything, and page-table pages are freed.
const ALL_TABLES: u64 = u64::MAX;

const _: () = assert!(SINGLE_PAGE_CEILING < PAGE - 2);

impl Flush {
    /// Everything, on every CPU.
    pub const EVERYTHING: Flush = Flush {
        stretches: Stretches::one(0, u64::MAX),
        tables: true,
    };

    /// The translations of `pages` pages of 4 KiB from address `first`.
    #[must_use]
    pub const fn pages(first: u64, pages: u64) -> Self {
        Flush {
            stretches: Stretches::one(first, pages),
            tables: false,
        }
    }

    /// The translations of all `stretches`. At most three travel with a request: what lies between two may be flushed as well.
    ///
    /// ```
    /// use pageless_fault::shootdown::{Flush, Invalidation, Stretch};
    /// let one = |first| Stretch { first, pages: 1 };
    /// let flush = Flush::stretches([one(0x9000), one(0x1000), one(0x2000), one(0x5000)]);
    /// let Invalidation::Pages(pages) = flush.invalidation() else { unreachable!() };
    /// assert_eq!(pages.pages().collect::<Vec<_>>(), [0x1000, 0x2000, 0x5000, 0x9000]);
    /// ```
    #[must_use]
    pub fn stretches(stretches: impl IntoIterator<Item = Stretch>) -> Self {
        Flush {
            stretches: Stretches::covering(stretches),
            tables: false,
        }
    }

    /// The same, and page-table pages were unlinked as well: then every CPU must forget everything, idle ones included, since their
    /// paging-structure caches may point into what is about to be freed.
    #[must_use]
    pub const fn with_tables(mut self) -> Self {
        self.tables = true;
        self
    }

    /// Whether page-table pages were unlinked.
    #[must_use]
    pub const fn frees_tables(&self) -> bool {
        self.tables
    }

    /// How many pages it covers.
    #[must_use]
    pub fn page_count(&self) -> u64 {
        self.stretches.page_count()
    }

    /// What it takes on one CPU.
    ///
    /// ```
    /// use pageless_fault::shootdown::{Flush, Invalidation, Stretches};
    /// assert_eq!(Flush::pages(0x1000, 33).invalidation(), Invalidation::Pages(Stretches::one(0x1000, 33)));
    /// assert_eq!(Flush::pages(0x1000, 34).invalidation(), Invalidation::Everything);
    /// assert_eq!(Flush::pages(0x1000, 1).with_tables().invalidation(), Invalidation::Everything);
    /// ```
    #[must_use]
    pub fn invalidation(&self) -> Invalidation {
        if self.tables || self.page_count() > SINGLE_PAGE_CEILING {
            Invalidation::Everything
        } else {
            Invalidation::Pages(self.stretches)
        }
    }

    /// In words, of which the last is left to others: for each stretch its first page and, in the bits below, how many.
    pub(crate) fn encode(&self) -> [u64; 4] {
        match self.invalidation() {
            _ if self.tables => [ALL_TABLES, 0, 0, 0],
            Invalidation::Everything => [ALL_PAGES, 0, 0, 0],
            Invalidation::Pages(Stretches([first, second, third])) => {
                let word = |stretch: Stretch| stretch.first & !(PAGE - 1) | stretch.pages;
                [word(first), word(second), word(third), 0]
            }
        }
    }

    pub(crate) fn decode(words: [u64; 4]) -> Self {
        let stretch = |word: u64| Stretch {
            first: word & !(PAGE - 1),
            pages: word & (PAGE - 1),
        };
        match words[0] {
            ALL_TABLES => Flush::EVERYTHING,
            ALL_PAGES => Flush::pages(0, u64::MAX),
            _ => Flush {
                stretches: Stretches([stretch(words[0]), stretch(words[1]), stretch(words[2])]),
                tables: false,
            },
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use alloc::collections::BTreeSet;
    use alloc::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Whatever is asked for is flushed on the other side, and no more than what lies in between.
        #[test]
        fn what_travels_covers_what_was_asked(
            asked in prop::collection::vec((0..200_u64, 1..12_u64), 1..8)
        ) {
            let stretches: Vec<_> = asked
                .iter()
                .map(|&(page, pages)| Stretch { first: 0xffff_c900_0000_0000 + page * PAGE, pages })
                .collect();
            let wanted: BTreeSet<u64> = stretches
                .iter()
                .flat_map(|s| (0..s.pages).map(|n| s.first + n * PAGE))
                .collect();
            let flush = Flush::stretches(stretches);
            match Flush::decode(flush.encode()).invalidation() {
                Invalidation::Everything => prop_assert!(flush.page_count() > SINGLE_PAGE_CEILING),
                Invalidation::Pages(pages) => {
                    let got: BTreeSet<u64> = pages.pages().collect();
                    prop_assert_eq!(got.len() as u64, pages.page_count(), "a page twice");
                    prop_assert!(got.is_superset(&wanted));
                    let runs = wanted.iter().filter(|&&page| !wanted.contains(&(page - PAGE))).count();
                    if runs <= STRETCHES {
                        prop_assert_eq!(got, wanted);
                    }
                }
            }
        }
    }
}
