//! A block becomes pages, each of which is freed on its own.

use alloc::vec::Vec;

use pageless_fault::{Completion, FrameMemory, MaySleep, UnmapError, Vspace, Window, WindowOffset};
use pageless_pfn::{PAGE_SIZE, Pfn};

use super::counters::count;
use super::error::{NotSplit, SplitError};
use super::mark::{KEPT, Mark, Marked, UNMAPPED, VIRTUAL};
use super::page::Page;
use super::pages::Pages;
use super::teardown::chain;
use crate::area::{AreaState, VunmapError};
use crate::frames::{Order, PageBlock};

/// The pages that a block was split into, in their order; or the block.
pub type Split<'p, M, S, W> = Result<Vec<Page<'p, M, S, W>>, NotSplit<'p, M, S, W>>;

impl<M, S, W> Pages<M, S, W>
where
    M: FrameMemory + 'static,
    S: Vspace + 'static,
    W: Window + 'static,
{
    /// Splits the block of `page` into single pages, in their order (`split_page`). The mapping of a virtual one is taken down, and shot
    /// down before anybody has the pages: it could otherwise see what their next users do with them. A destructor is forgotten.
    ///
    /// # Errors
    ///
    /// See [`SplitError`]. A block that others refer to as well, or whose mapping stays, comes back with the error.
    pub fn split_page<'p>(&'p self, ctx: &MaySleep, page: Page<'p, M, S, W>) -> Split<'p, M, S, W> {
        let head = page.head();
        let held = self.ram.held(head);
        if let Err(references) = held.count_off() {
            let why = SplitError::Shared { head, references };
            let block = Some(page);
            return Err(NotSplit { block, why });
        }
        // It has been counted off.
        let (_, head) = page.into_parts();
        let mark = held.mark();
        let pages: Vec<Pfn> = if mark.has(VIRTUAL) {
            if let Err(why) = self.dissolve(ctx, head) {
                let block = match why {
                    SplitError::Refused { .. } => {
                        // Nobody has had a reference meanwhile, since there was none.
                        held.set_count(1);
                        Some(Page::of_head(self, head))
                    }
                    _ => {
                        count(&self.ram.counts.lost);
                        None
                    }
                };
                return Err(NotSplit { block, why });
            }
            chain(&self.ram, Some((head, head))).collect()
        } else {
            let block = PageBlock::new(head, mark.order());
            self.ram.frames.split(block).map(|one| one.pfn()).collect()
        };
        // As at the end of a block: the head goes last.
        for &pfn in pages.iter().rev() {
            self.ram.mark_head(pfn, Order::ZERO, None);
        }
        count(&self.ram.counts.split);
        Ok(pages
            .into_iter()
            .map(|pfn| Page::of_head(self, pfn))
            .collect())
    }

    /// Takes the mapping of a virtual block down for good, and keeps its frames. If the machine refuses, all is as it was but the count.
    fn dissolve(&self, ctx: &MaySleep, head: Pfn) -> Result<(), SplitError> {
        let held = self.ram.held(head);
        let mark = held.mark();
        held.set_mark(mark.with(KEPT));
        let at = WindowOffset::new(held.location().saturating_mul(PAGE_SIZE));
        let address = self.areas.space().address(at);
        let failed = match self.areas.unmap_at(ctx, address) {
            Ok(()) => None,
            Err(VunmapError::Refused { source, .. }) => {
                held.set_mark(mark);
                return Err(SplitError::Refused { head, source });
            }
            Err(VunmapError::Unproved(source)) => Some(source),
            Err(error) => unreachable!("the mapping of a block that is out: {error}"),
        };
        // What failed may have been about others: somebody else's purge may have had this mapping, and not be through.
        let failed = self.areas.purge(ctx).err().or(failed);
        let mut turn = 0;
        while !held.mark().has(UNMAPPED) {
            let found = self.areas.find(address);
            if found.is_some_and(|area| area.state == AreaState::Quarantined) {
                let source = failed.unwrap_or(UnmapError::NotQuiescent {
                    grade: Completion::Entered,
                });
                return Err(SplitError::Unproved { head, source });
            }
            self.areas.space().relax(turn);
            turn = turn.saturating_add(1);
        }
        held.set_mark(Mark::NONE);
        Ok(())
    }
}
