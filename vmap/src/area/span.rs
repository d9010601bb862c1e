//! Pages of the space, by number.

use pageless_fault::{WindowOffset, WindowRange};
use pageless_pfn::PAGE_SIZE;

/// The number of a page of the space, from 0.
pub(crate) type PageNumber = u64;

/// Pages of the space in a row. Never empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Span {
    first: PageNumber,
    pages: u64,
}

impl Span {
    /// `pages` pages from `first` on.
    pub(crate) const fn new(first: PageNumber, pages: u64) -> Self {
        debug_assert!(pages > 0);
        Span { first, pages }
    }

    /// The first page.
    pub(crate) const fn first(self) -> PageNumber {
        self.first
    }

    /// How many.
    pub(crate) const fn pages(self) -> u64 {
        self.pages
    }

    /// The page behind the last one.
    pub(crate) const fn end(self) -> PageNumber {
        self.first + self.pages
    }

    /// The first `pages` of them.
    pub(crate) fn head(self, pages: u64) -> Self {
        debug_assert!(pages <= self.pages);
        Span::new(self.first, pages)
    }

    /// As bytes of the window.
    pub(crate) fn range(self) -> WindowRange {
        match WindowRange::try_new(offset(self.first), self.pages * PAGE_SIZE) {
            Some(range) => range,
            None => unreachable!("pages of a space that has them are a range of it"),
        }
    }
}

/// Where a page begins.
pub(crate) const fn offset(page: PageNumber) -> WindowOffset {
    WindowOffset::new(page * PAGE_SIZE)
}
