//! Counted references to blocks.

use core::fmt;
use core::mem;

use pageless_fault::{FrameMemory, MaySleep, VirtAddr, Vspace, Window};
use pageless_pfn::{Pfn, PhysSegment};

use super::destructor::DestructorId;
use super::lookup::NoSuchAddress;
use super::mark::{Marked, VIRTUAL};
use super::pages::Pages;
use crate::frames::{Context, Order};

/// A reference to a block of pages. While there is one the block stays.
///
/// Dropping the last one ends the block, without sleeping and without an interrupt; [`put`](Self::put) does the same for those who may
/// sleep, and cleans up behind others as well.
#[must_use = "dropping the only reference ends the block"]
pub struct Page<'p, M: FrameMemory + 'static, S: Vspace + 'static, W: Window + 'static> {
    pages: &'p Pages<M, S, W>,
    head: Pfn,
}

impl<'p, M, S, W> Page<'p, M, S, W>
where
    M: FrameMemory + 'static,
    S: Vspace + 'static,
    W: Window + 'static,
{
    /// A reference that has been counted.
    pub(super) fn of_head(pages: &'p Pages<M, S, W>, head: Pfn) -> Self {
        Page { pages, head }
    }

    /// The head of the block.
    pub fn head(&self) -> Pfn {
        self.head
    }

    /// The order of the block.
    pub fn order(&self) -> Order {
        self.pages.ram.held(self.head).mark().order()
    }

    /// Whether the block stands together through a mapping (`PageVcompound`).
    pub fn is_virtual(&self) -> bool {
        self.pages.ram.held(self.head).mark().has(VIRTUAL)
    }

    /// The `n`-th page of the block; `None` if it has not so many. See
    /// [`Pages::compound_nth_page`].
    pub fn nth(&self, n: u64) -> Option<Pfn> {
        self.pages.compound_nth_page(self.head, n)
    }

    /// The block as stretches of frames. See [`Pages::compound_segments`].
    pub fn segments(&self) -> impl Iterator<Item = PhysSegment> + '_ {
        self.pages.compound_segments(self.head)
    }

    /// Where the block begins: in the direct map, or in its mapping.
    pub fn address(&self) -> VirtAddr {
        match self.pages.page_to_addr(self.head) {
            Some(address) => address,
            None => unreachable!("a block that is out and has no address"),
        }
    }

    /// Bytes of the block.
    pub fn bytes(&self) -> u64 {
        self.order().frames().get() * pageless_pfn::PAGE_SIZE
    }

    /// References to the block, this one included. Others may come and go meanwhile.
    pub fn references(&self) -> u32 {
        self.pages.ram.held(self.head).count()
    }

    /// One more reference (`get_page`).
    ///
    /// # Panics
    ///
    /// There are 2^32 - 1 already.
    pub fn get(&self) -> Self {
        let counted = self.pages.ram.held(self.head).count_up();
        assert!(counted, "too many references to page {}", self.head);
        Page::of_head(self.pages, self.head)
    }

    /// Gives the reference back (`put_page`); if it was the last one and too much waits for a shootdown by now, purges.
    pub fn put(self, ctx: &MaySleep) {
        let (pages, head) = self.into_parts();
        if pages.ram.held(head).count_down() {
            pages.end(Context::MaySleep(ctx), head);
        }
    }

    /// What is to be done when the last reference has gone.
    pub fn set_destructor(&self, destructor: DestructorId) {
        self.pages.ram.held(self.head).set_which(destructor.0);
    }

    /// Copies out of the block, from byte `at` on, through its address.
    ///
    /// # Errors
    ///
    /// That lies beyond its end.
    pub fn read(&self, at: u64, into: &mut [u8]) -> Result<(), NoSuchAddress> {
        let address = self.within(at, into.len())?;
        self.pages.read(address, into)
    }

    /// Copies into the block, from byte `at` on, through its address.
    ///
    /// # Errors
    ///
    /// That lies beyond its end.
    pub fn write(&self, at: u64, from: &[u8]) -> Result<(), NoSuchAddress> {
        let address = self.within(at, from.len())?;
        self.pages.write(address, from)
    }

    /// The address of `len` bytes at byte `at`.
    fn within(&self, at: u64, len: usize) -> Result<VirtAddr, NoSuchAddress> {
        let start = self.address();
        let end = at.saturating_add(len as u64);
        match start.checked_add(at).filter(|_| end <= self.bytes()) {
            Some(address) => Ok(address),
            None => Err(NoSuchAddress {
                address: start.checked_add(self.bytes()).unwrap_or(start),
            }),
        }
    }

    /// Keeps the reference without the borrow: whoever has the number of the head has it. [`Pages::assume`] takes it up again.
    #[must_use = "a reference that nobody takes up again keeps its block for ever"]
    pub fn into_raw(self) -> Pfn {
        self.into_parts().1
    }

    pub(super) fn into_parts(self) -> (&'p Pages<M, S, W>, Pfn) {
        let parts = (self.pages, self.head);
        mem::forget(self);
        parts
    }
}

impl<M, S, W> Drop for Page<'_, M, S, W>
where
    M: FrameMemory + 'static,
    S: Vspace + 'static,
    W: Window + 'static,
{
    fn drop(&mut self) {
        if self.pages.ram.held(self.head).count_down() {
            self.pages.end(Context::Atomic, self.head);
        }
    }
}

impl<M, S, W> fmt::Debug for Page<'_, M, S, W>
where
    M: FrameMemory + 'static,
    S: Vspace + 'static,
    W: Window + 'static,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Page")
            .field("head", &self.head)
            .field("order", &self.order().get())
            .field("virtual", &self.is_virtual())
            .field("references", &self.references())
            .finish()
    }
}
