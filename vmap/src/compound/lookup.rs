//! From a page to its block, to the other pages of the block and to its address, and back.

use pageless_fault::{FrameMemory, VirtAddr, Vspace, Window, WindowOffset};
use pageless_memmap::PageRef;
use pageless_pfn::{FrameCount, PAGE_SIZE, Pfn, PfnFlags, PfnT, PhysAddr, PhysSegment};

use super::mark::{HEAD, Marked, TAIL, VIRTUAL};
use super::page::Page;
use super::pages::{Pages, Ram};
use crate::frames::Order;
use crate::runs::segments;

/// Nothing is seen at an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("nothing is seen at {address}")]
pub struct NoSuchAddress {
    /// The first such address.
    pub address: VirtAddr,
}

/// Questions about pages. A page that is part of no block has no answers; one whose block ends meanwhile may give old ones, so whoever
/// does not know that the block stays asks [`get_page`](Pages::get_page) first.
impl<M, S, W> Pages<M, S, W>
where
    M: FrameMemory + 'static,
    S: Vspace + 'static,
    W: Window + 'static,
{
    /// The head of the block that `page` is part of (`compound_head`).
    pub fn compound_head(&self, page: Pfn) -> Option<Pfn> {
        let found = self.ram.look(page)?;
        match found.mark() {
            mark if mark.has(HEAD) => Some(page),
            mark if mark.has(TAIL) => Pfn::try_new(found.location()).ok(),
            _ => None,
        }
    }

    /// The order of the block whose head `head` is (`compound_order`).
    pub fn compound_order(&self, head: Pfn) -> Option<Order> {
        let mark = self.ram.look(head)?.mark();
        mark.has(HEAD).then(|| mark.order())
    }

    /// The `n`-th page of the block whose head `head` is (`compound_nth_page`): by counting, if the block is in one piece; by its page table,
    /// if it is not.
    pub fn compound_nth_page(&self, head: Pfn, n: u64) -> Option<Pfn> {
        let found = self.ram.look(head)?;
        let mark = found.mark();
        if !mark.has(HEAD) || n >= mark.order().frames().get() {
            return None;
        }
        self.nth(head, &found, n)
    }

    /// The `n`-th page by what the head's marks say now.
    pub(super) fn nth(&self, head: Pfn, found: &PageRef<'_, W>, n: u64) -> Option<Pfn> {
        if found.mark().has(VIRTUAL) {
            let page = found.location().checked_add(n)?;
            let at = WindowOffset::new(page.checked_mul(PAGE_SIZE)?);
            self.areas.space().translate(at)
        } else {
            head.checked_add(FrameCount::new(n))
        }
    }

    /// The block whose head `head` is as stretches of frames, in order: what a block device takes. One, if the block is in one piece; up to
    /// one for each page, if it is not; none, if `head` is no head.
    pub fn compound_segments(&self, head: Pfn) -> impl Iterator<Item = PhysSegment> + '_ {
        let found = self.ram.look(head);
        let found = found.filter(|found| found.mark().has(HEAD));
        let mark = found.as_ref().map(|found| found.mark());
        let pages = mark.map_or(0, |mark| mark.order().frames().get());
        segments((0..pages).map_while(move |n| self.nth(head, found.as_ref()?, n)))
    }

    /// Where `page` is in its block; the head is at 0.
    pub fn compound_index(&self, page: Pfn) -> Option<u64> {
        let found = self.ram.look(page)?;
        match found.mark() {
            mark if mark.has(HEAD) => Some(0),
            mark if mark.has(TAIL) => Some(u64::from(found.which())),
            _ => None,
        }
    }

    /// The page that is seen at `address` (`addr_to_page`).
    pub fn addr_to_page(&self, address: VirtAddr) -> Option<Pfn> {
        if let Some(at) = self.areas.space().offset_of(address) {
            return self.areas.space().translate(at);
        }
        Some(self.direct(address)?.pfn())
    }

    /// The address of `page` (`page_to_addr`): in the mapping of its block, if it stands together through one, otherwise in the direct map.
    pub fn page_to_addr(&self, page: Pfn) -> Option<VirtAddr> {
        let found = self.ram.look(page)?;
        let mark = found.mark();
        if !mark.has(VIRTUAL) {
            let index = self.ram.frames.memory().frames().index_of(page)?;
            let start = self.ram.frames.memory().direct_map();
            return start.checked_add(index.checked_mul(PAGE_SIZE)?);
        }
        let (location, index) = if mark.has(TAIL) {
            let head = Pfn::try_new(found.location()).ok()?;
            (self.ram.look(head)?.location(), u64::from(found.which()))
        } else {
            (found.location(), 0)
        };
        let at = location.checked_add(index)?.checked_mul(PAGE_SIZE)?;
        let space = self.areas.space();
        // What the marks say may be half of one block and half of the next, if the first has just ended.
        (at < space.len().get()).then(|| space.address(WindowOffset::new(at)))
    }

    /// The head of the block that is seen at `address` (`virt_to_head_page`).
    pub fn virt_to_head_page(&self, address: VirtAddr) -> Option<Pfn> {
        self.compound_head(self.addr_to_page(address)?)
    }

    /// One more reference to the block that `page` is part of, whoever else may be giving the last one back (`get_page_unless_zero`).
    pub fn get_page(&self, page: Pfn) -> Option<Page<'_, M, S, W>> {
        let head = self.compound_head(page)?;
        let found = self.ram.look(head)?;
        if !found.count_up() {
            return None;
        }
        let held = Page::of_head(self, head);
        // The block may have ended in between, and another one begun here.
        (self.compound_head(page) == Some(head)).then_some(held)
    }

    /// A reference that [`Page::into_raw`] kept.
    ///
    /// Whoever holds none and says so takes away somebody else's. `None` if no block that is out has this head.
    pub fn assume(&self, head: Pfn) -> Option<Page<'_, M, S, W>> {
        let found = self.ram.look(head)?;
        (found.mark().has(HEAD) && found.count() > 0).then(|| Page::of_head(self, head))
    }

    /// Copies out of a block, whatever kind it is.
    ///
    /// # Errors
    ///
    /// Nothing is seen at one of the addresses.
    pub fn read(&self, address: VirtAddr, into: &mut [u8]) -> Result<(), NoSuchAddress> {
        if let Some(at) = self.areas.space().offset_of(address) {
            let read = self.areas.space().read(at, into);
            return read.map_err(|missing| self.missing(missing.at));
        }
        let nothing = NoSuchAddress { address };
        let at = self.direct(address).ok_or(nothing)?;
        let read = self.ram.frames.memory().read(at, into);
        read.map_err(|_| nothing)
    }

    /// Copies into a block, whatever kind it is.
    ///
    /// # Errors
    ///
    /// Nothing is seen at one of the addresses.
    pub fn write(&self, address: VirtAddr, from: &[u8]) -> Result<(), NoSuchAddress> {
        if let Some(at) = self.areas.space().offset_of(address) {
            let written = self.areas.space().write(at, from);
            return written.map_err(|missing| self.missing(missing.at));
        }
        let nothing = NoSuchAddress { address };
        let at = self.direct(address).ok_or(nothing)?;
        let written = self.ram.frames.memory().write(at, from);
        written.map_err(|_| nothing)
    }

    fn missing(&self, at: u64) -> NoSuchAddress {
        NoSuchAddress {
            address: self.areas.space().address(WindowOffset::new(at)),
        }
    }

    /// What an address of the direct map is the address of.
    fn direct(&self, address: VirtAddr) -> Option<PhysAddr> {
        let memory = self.ram.frames.memory();
        let into = address.checked_offset_from(memory.direct_map())?;
        let page = memory.frames().nth(into / PAGE_SIZE)?;
        let within = pageless_pfn::ByteLen::new(into % PAGE_SIZE);
        page.phys().checked_add(within)
    }
}

impl<M: FrameMemory, W: Window> Ram<M, W> {
    /// The descriptor of any page; `None` where there is no memory for it, which is where no block is either.
    pub(super) fn look(&self, page: Pfn) -> Option<PageRef<'_, W>> {
        let page = PfnT::new(page, PfnFlags::empty()).paged().ok()?;
        self.memmap.try_get(page).ok()
    }
}
