//! A block becomes pages, each of which is freed on its own.

use alloc::vec::Vec;

use pageless_fault::{Completion, FrameMemory, MaySleep, UnmapError, Vspace, Window, WindowOffset};
use pageless_pfn::{PAGE_SIZE, Pfn};

use super::counters::count;
use super::error::SplitError;
use super::mark::{KEPT, Mark, Marked, UNMAPPED, VIRTUAL};
use super::page::Page;
use super::pages::Pages;
use super::teardown::chain;
use crate::area::{AreaState, VunmapError};
use crate::frames::{Order, PageBlock};

impl<M, S, W> Pages<M, S, W>
where
    M: FrameMemory + 'static,
    S: Vspace + 'static,
    W: Window + 'static,
{
    /// Splits the block of `page` into single pages, in their order (`split_page`). The mapping of a virtual one is taken down, and shot
    /// down before anybody has the pages: it could otherwise see what their next users do with them.
    ///
    /// # Errors
    ///
    /// See [`SplitError`]. A block that others refer to as well stays as it is, but for the reference given.
    pub fn split_page<'p>(
        &'p self,
        ctx: &MaySleep,
        page: Page<'p, M, S, W>,
    ) -> Result<Vec<Page<'p, M, S, W>>, SplitError> {
        let head = page.head();
        let held = self.ram.held(head);
        held.count_off()
            .map_err(|references| SplitError::Shared { head, references })?;
        // It has been counted off.
        let (_, head) = page.into_parts();
        let mark = held.mark();
        let pages: Vec<Pfn> = if mark.has(VIRTUAL) {
            self.dissolve(ctx, head)?;
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

    /// Takes the mapping of a virtual block down for good, and keeps its frames.
    fn dissolve(&self, ctx: &MaySleep, head: Pfn) -> Result<(), SplitError> {
        let held = self.ram.held(head);
        held.set_mark(held.mark().with(KEPT));
        let at = WindowOffset::new(held.location().saturating_mul(PAGE_SIZE));
        let address = self.areas.space().address(at);
        let lost = |source| {
            count(&self.ram.counts.lost);
            SplitError::Unproved { head, source }
        };
        match self.areas.unmap_at(ctx, address) {
            Ok(()) => {}
            Err(VunmapError::Refused { source, .. } | VunmapError::Unproved(source)) => {
                return Err(lost(source));
            }
            Err(error) => unreachable!("the mapping of a block that is out: {error}"),
        }
        self.areas.purge(ctx).map_err(lost)?;
        // Somebody else's purge may have had it, and not be through.
        let mut turn = 0;
        while !held.mark().has(UNMAPPED) {
            let found = self.areas.find(address);
            if found.is_some_and(|area| area.state == AreaState::Quarantined) {
                return Err(lost(UnmapError::NotQuiescent {
                    grade: Completion::Entered,
                }));
            }
            self.areas.space().relax(turn);
            turn += 1;
        }
        held.set_mark(Mark::NONE);
        Ok(())
    }
}
