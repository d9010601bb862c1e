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
}

impl Pools {
    /// Nothing.
    pub(crate) fn new() -> Self {
        Pools {
            lists: (0..POOLED_MOST).map(|_| Vec::new()).collect(),
        }
    }

    /// Takes the span of `pages` pages that came last, if it begins at a multiple of `align`.
    pub(crate) fn take(&mut self, pages: u64, align: u64) -> Option<Span> {
        let list = self.list(pages)?;
        list.pop_if(|span| span.first().is_multiple_of(align))
    }

    /// Keeps `span`, unless it is too large.
    pub(crate) fn give(&mut self, span: Span) -> Result<(), Span> {
        match self.list(span.pages()) {
            Some(list) => {
                list.push(span);
                Ok(())
            }
            None => Err(span),
        }
    }

    /// Gives up a quarter of each list, those that came first: what is in use again and again stays.
    pub(crate) fn decay(&mut self, into: &mut Vec<Span>) {
        for list in &mut self.lists {
            let quarter = list.len() / 4;
            into.extend(list.drain(..quarter));
        }
    }

    /// Gives up everything.
    pub(crate) fn drain(&mut self, into: &mut Vec<Span>) {
        for list in &mut self.lists {
            into.append(list);
        }
    }

    /// What is kept.
    pub(crate) fn spans(&self) -> impl Iterator<Item = Span> + '_ {
        self.lists.iter().flatten().copied()
    }

    fn list(&mut self, pages: u64) -> Option<&mut Vec<Span>> {
        let index = usize::try_from(pages.checked_sub(1)?).ok()?;
        self.lists.get_mut(index)
    }
}
