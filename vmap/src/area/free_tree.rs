//! What nobody has: the pages of the space that are in no pool and in no area.

use alloc::collections::{BTreeMap, BTreeSet};

use crate::area::span::{PageNumber, Span};

/// Free spans, by address and by size. Neighbours are always joined.
#[derive(Debug)]
pub(crate) struct FreeTree {
    /// First page -> pages.
    by_address: BTreeMap<PageNumber, u64>,
    /// (pages, first page).
    by_size: BTreeSet<(u64, PageNumber)>,
    pages: u64,
}

impl FreeTree {
    /// All of `span`.
    pub(crate) fn of(span: Span) -> Self {
        let mut tree = FreeTree {
            by_address: BTreeMap::new(),
            by_size: BTreeSet::new(),
            pages: 0,
        };
        tree.insert(span);
        tree
    }

    /// Takes `pages` pages that begin at a multiple of `align` (a power of two) out of the smallest hole that has them; of several,
    /// out of the lowest.
    pub(crate) fn take(&mut self, pages: u64, align: u64) -> Option<Span> {
        let (hole, at) = self.by_size.range((pages, 0)..).find_map(|&(len, first)| {
            let at = first.checked_next_multiple_of(align)?;
            let needed = (at - first).checked_add(pages)?;
            (needed <= len).then_some((Span::new(first, len), at))
        })?;
        Some(self.carve(hole, Span::new(at, pages)))
    }

    /// Takes `pages` pages that begin at a multiple of `align` (a power of two) out of the lowest hole that has them inside `within`.
    pub(crate) fn take_within(&mut self, within: Span, pages: u64, align: u64) -> Option<Span> {
        let first = within.first();
        // A hole that begins before may reach into it.
        let before = self.by_address.range(..first).next_back();
        let inside = self.by_address.range(first..within.end());
        let (hole, at) = before
            .into_iter()
            .chain(inside)
            .find_map(|(&begins, &len)| {
                let hole = Span::new(begins, len);
                let at = begins.max(first).checked_next_multiple_of(align)?;
                let end = at.checked_add(pages)?;
                (end <= hole.end().min(within.end())).then_some((hole, at))
            })?;
        Some(self.carve(hole, Span::new(at, pages)))
    }

    /// Takes `taken` out of `hole`.
    fn carve(&mut self, hole: Span, taken: Span) -> Span {
        self.remove(hole);
        if taken.first() > hole.first() {
            self.insert(Span::new(hole.first(), taken.first() - hole.first()));
        }
        if hole.end() > taken.end() {
            self.insert(Span::new(taken.end(), hole.end() - taken.end()));
        }
        taken
    }

    /// Takes `span` back, and joins it to its neighbours.
    pub(crate) fn give(&mut self, span: Span) {
        let mut joined = span;
        if let Some((&first, &pages)) = self.by_address.range(..span.first()).next_back() {
            let before = Span::new(first, pages);
            debug_assert!(before.end() <= span.first(), "{span:?} is free twice");
            if before.end() == span.first() {
                self.remove(before);
                joined = Span::new(first, pages + joined.pages());
            }
        }
        if let Some((&first, &pages)) = self.by_address.range(span.first()..).next() {
            debug_assert!(span.end() <= first, "{span:?} is free twice");
            if span.end() == first {
                self.remove(Span::new(first, pages));
                joined = Span::new(joined.first(), joined.pages() + pages);
            }
        }
        self.insert(joined);
    }

    /// Free pages.
    pub(crate) fn pages(&self) -> u64 {
        self.pages
    }

    /// Pages of the largest hole.
    pub(crate) fn largest(&self) -> u64 {
        self.by_size.last().map_or(0, |&(pages, _)| pages)
    }

    /// The holes, by address.
    pub(crate) fn holes(&self) -> impl Iterator<Item = Span> + '_ {
        self.by_address
            .iter()
            .map(|(&first, &pages)| Span::new(first, pages))
    }

    /// Whether both orders hold the same and no two neighbours touch.
    pub(crate) fn self_check(&self) -> Result<(), &'static str> {
        let mut end = None;
        let mut pages = 0;
        for hole in self.holes() {
            if end.is_some_and(|end| end >= hole.first()) {
                return Err("free tree: holes that touch or overlap");
            }
            if !self.by_size.contains(&(hole.pages(), hole.first())) {
                return Err("free tree: a hole that is not found by its size");
            }
            end = Some(hole.end());
            pages += hole.pages();
        }
        if self.by_size.len() != self.by_address.len() {
            return Err("free tree: count of holes");
        }
        if pages != self.pages {
            return Err("free tree: count of pages");
        }
        Ok(())
    }

    fn insert(&mut self, span: Span) {
        self.by_address.insert(span.first(), span.pages());
        self.by_size.insert((span.pages(), span.first()));
        self.pages += span.pages();
    }

    fn remove(&mut self, span: Span) {
        self.by_address.remove(&span.first());
        self.by_size.remove(&(span.pages(), span.first()));
        self.pages -= span.pages();
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
