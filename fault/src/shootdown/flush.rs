//! What is to be flushed.

/// Above this many pages, a full flush is cheaper than one instruction for each: Linux's
/// `tlb_single_page_flush_ceiling` (arch/x86/mm/tlb.c).
pub const SINGLE_PAGE_CEILING: u64 = 33;

/// What a CPU is asked to forget.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flush {
    first: u64,
    pages: u64,
    tables: bool,
}

/// How a CPU executes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Invalidation {
    /// One instruction for each of `pages` pages of 4 KiB from address `first`.
    Pages {
        /// Address of the first page.
        first: u64,
        /// How many.
        pages: u64,
    },
    /// Everything: global translations and paging-structure caches included.
    Everything,
}

impl Flush {
    /// Everything, on every CPU.
    pub const EVERYTHING: Flush = Flush {
        first: 0,
        pages: u64::MAX,
        tables: true,
    };

    /// The translations of `pages` pages of 4 KiB from address `first`.
    #[must_use]
    pub const fn pages(first: u64, pages: u64) -> Self {
        Flush {
            first,
            pages,
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
    pub const fn page_count(&self) -> u64 {
        self.pages
    }

    /// What it takes on one CPU.
    ///
    /// ```
    /// use pageless_fault::shootdown::{Flush, Invalidation};
    /// assert_eq!(Flush::pages(0x1000, 33).invalidation(), Invalidation::Pages { first: 0x1000, pages: 33 });
    /// assert_eq!(Flush::pages(0x1000, 34).invalidation(), Invalidation::Everything);
    /// assert_eq!(Flush::pages(0x1000, 1).with_tables().invalidation(), Invalidation::Everything);
    /// ```
    #[must_use]
    pub const fn invalidation(&self) -> Invalidation {
        if self.tables || self.pages > SINGLE_PAGE_CEILING {
            Invalidation::Everything
        } else {
            Invalidation::Pages {
                first: self.first,
                pages: self.pages,
            }
        }
    }

    pub(crate) const fn encode(&self) -> [u64; 4] {
        [self.first, self.pages, self.tables as u64, 0]
    }

    pub(crate) const fn decode(words: [u64; 4]) -> Self {
        Flush {
            first: words[0],
            pages: words[1],
            tables: words[2] != 0,
        }
    }
}
