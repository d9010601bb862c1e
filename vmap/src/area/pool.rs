//! Address ranges of small areas that have been flushed, kept by size for the next area of that size.

use alloc::boxed::Box;
use alloc::vec::Vec;

use crate::area::span::Span;

/// Pages of the largest span that is kept, guard included: as Linux's `MAX_VA_SIZE_PAGES`.
pub(crate) const POOLED_MOST: u64 = 256;

/// A list for each size from 1 to [`POOLED_MOST`] pages. What is in it was never mapped, or has been flushed since.
#[derive(Debug)]
pub(crate) struct Pools {
    /// `lists[pages - 1]`.
    lists: Box<[Vec<Span>]>,
    /// A bit for each list that may have something.
    some: [u64; (POOLED_MOST / 64) as usize],
}

impl Pools {
    /// Nothing.
    pub(crate) fn new() -> Self {
        Pools {
            lists: (0..POOLED_MOST).map(|_| Vec::new()).collect(),
            some: [0; (POOLED_MOST / 64) as usize],
        }
    }

    /// Takes the span of `pages` pages that came last, if it begins at a multiple of `align`.
    pub(crate) fn take(&mut self, pages: u64, align: u64) -> Option<Span> {
        let list = self.lists.get_mut(index(pages)?)?;
        list.pop_if(|span| span.first().is_multiple_of(align))
    }

    /// Keeps `span`, unless it is too large.
    pub(crate) fn give(&mut self, span: Span) -> Result<(), Span> {
        let index = index(span.pages()).ok_or(span)?;
        let list = self.lists.get_mut(index).ok_or(span)?;
        list.push(span);
        self.some[index / 64] |= 1 << (index % 64);
        Ok(())
    }

    /// Gives up a quarter of each list, those that came first: what is in use again and again stays.
    pub(crate) fn decay(&mut self, into: &mut Vec<Span>) {
        self.each(|list| {
            let quarter = list.len() / 4;
            into.extend(list.drain(..quarter));
        });
    }

    /// Gives up everything.
    pub(crate) fn drain(&mut self, into: &mut Vec<Span>) {
        self.each(|list| into.append(list));
    }

    /// Every list that has something.
    fn each(&mut self, mut change: impl FnMut(&mut Vec<Span>)) {
        for (word, bits) in self.some.iter_mut().enumerate() {
            let mut left = *bits;
            while left != 0 {
                let bit = left.trailing_zeros();
                left &= left - 1;
                let list = &mut self.lists[word * 64 + bit as usize];
                change(list);
                if list.is_empty() {
                    *bits &= !(1 << bit);
                }
            }
        }
    }

    /// What is kept.
    pub(crate) fn spans(&self) -> impl Iterator<Item = Span> + '_ {
        self.lists.iter().flatten().copied()
    }
}

/// The list of spans of so many pages.
fn index(pages: u64) -> Option<usize> {
    usize::try_from(pages.checked_sub(1)?).ok()
}
