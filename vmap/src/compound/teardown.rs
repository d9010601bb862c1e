//! The end of a block: tails first, the head last, and the frames of a virtual one when nobody can see them any more.

use alloc::boxed::Box;
use alloc::sync::Arc;

use pageless_fault::{FrameMemory, MaySleep, Vspace, Window, WindowOffset};
use pageless_pfn::{PAGE_SIZE, Pfn, PfnRange};

use super::counters::count;
use super::mark::{KEPT, Mark, Marked, UNMAPPED, VIRTUAL};
use super::pages::{Pages, Ram};
use crate::area::{Release, Unreachable};
use crate::frames::{Context, Order, PageBlock};
use crate::mutant::Mutant;
use crate::runs::runs;

impl<M, S, W> Pages<M, S, W>
where
    M: FrameMemory + 'static,
    S: Vspace + 'static,
    W: Window + 'static,
{
    /// Ends the block of `head`, whose last reference has gone.
    pub(super) fn end(&self, context: Context<'_>, head: Pfn) {
        let page = self.ram.held(head);
        let mark = page.mark();
        let order = mark.order();
        if let Some(destructor) = self.ram.destructors.find(page.which()) {
            destructor(head, order);
        }
        if Mutant::HeadTornDownFirst.active() {
            page.set_mark(Mark::NONE);
        }
        for n in (1..order.frames().get()).rev() {
            if let Some(tail) = self.nth(head, &page, n) {
                self.ram.held(tail).set_mark(Mark::NONE);
            }
        }
        let location = page.location();
        // The head's marks say how its tails are found, so they go last.
        page.set_mark(Mark::NONE);
        count(&self.ram.counts.freed);
        if mark.has(VIRTUAL) {
            self.unmap(context, location);
        } else {
            self.ram.free_in_one_piece(head, order);
        }
    }

    /// Takes the mapping of a block down. Its frames are locked up in it, and come back by [`VirtualFrames::release`].
    fn unmap(&self, context: Context<'_>, location: u64) {
        let at = WindowOffset::new(location.saturating_mul(PAGE_SIZE));
        let address = self.areas.space().address(at);
        let unmapped = match context {
            Context::MaySleep(ctx) => self.areas.unmap_at(ctx, address),
            // Over the cap or not: who may sleep next sees to it.
            Context::Atomic => self.areas.unmap_at_atomic(address).map(drop),
        };
        if unmapped.is_err() {
            count(&self.ram.counts.lost);
        }
        if Mutant::FreeInAtomicShoots.active() {
            let _ = self.areas.purge(&MaySleep::claim());
        }
    }
}

impl<M: FrameMemory, W: Window> Ram<M, W> {
    pub(super) fn free_in_one_piece(&self, head: Pfn, order: Order) {
        let block = PageBlock::new(head, order);
        for pfn in block.frames().iter() {
            self.unpin(pfn);
        }
        self.frames.free(block);
    }
}

/// The frames of a virtual block, as a chain through their descriptors. Dropped, they are lost.
pub(super) struct VirtualFrames<M: FrameMemory, W: Window> {
    ram: Arc<Ram<M, W>>,
    /// The first and the last of the chain.
    ends: Option<(Pfn, Pfn)>,
}

impl<M: FrameMemory, W: Window> VirtualFrames<M, W> {
    pub(super) fn none(ram: &Arc<Ram<M, W>>) -> Self {
        VirtualFrames {
            ram: Arc::clone(ram),
            ends: None,
        }
    }

    /// The first frame.
    ///
    /// # Panics
    ///
    /// There is none.
    pub(super) fn head(&self) -> Pfn {
        match self.ends {
            Some((head, _)) => head,
            None => unreachable!("a block of no frames"),
        }
    }

    /// A frame more at the end, whose descriptor is pinned.
    pub(super) fn append(&mut self, block: PageBlock) {
        let pfn = block.pfn();
        self.ram.held(pfn).set_next(None);
        let head = match self.ends {
            None => pfn,
            Some((head, last)) => {
                self.ram.held(last).set_next(Some(pfn));
                head
            }
        };
        self.ends = Some((head, pfn));
    }

    /// The chain, as stretches of frames that lie one behind the other.
    pub(super) fn runs(&self) -> impl Iterator<Item = PfnRange> + use<M, W> {
        runs(chain(&self.ram, self.ends))
    }

    /// All frames back to their allocator: nobody can see them, or ever could.
    pub(super) fn free(self) {
        for pfn in chain(&self.ram, self.ends) {
            self.ram.held(pfn).set_mark(Mark::NONE);
            self.ram.unpin(pfn);
            self.ram.frames.free(PageBlock::new(pfn, Order::ZERO));
        }
    }
}

/// The frames from the first of `ends` to the last. The next one is read before a frame is handed out, so it may be freed.
pub(super) fn chain<M: FrameMemory, W: Window>(
    ram: &Arc<Ram<M, W>>,
    ends: Option<(Pfn, Pfn)>,
) -> impl Iterator<Item = Pfn> + use<M, W> {
    let ram = Arc::clone(ram);
    let mut at = ends.map(|(head, _)| head);
    core::iter::from_fn(move || {
        let here = at?;
        at = ram.held(here).next();
        Some(here)
    })
}

impl<M, W> Release for VirtualFrames<M, W>
where
    M: FrameMemory + 'static,
    W: Window + 'static,
{
    fn release(self: Box<Self>, _: &Unreachable<'_>, _: &MaySleep) {
        let head = self.ram.held(self.head());
        let mark = head.mark();
        if mark.has(KEPT) {
            head.set_mark(mark.with(UNMAPPED));
        } else {
            self.free();
        }
    }
}
