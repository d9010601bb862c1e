//! What the descriptor of a page says about the block that the page is part of.
//!
//! Five of the words that a descriptor keeps for its holders, and two more for blocks that stand together through a mapping. They mean
//! something only while the block is out, that is, while its allocator holds a reference to the descriptor.
//!
//! | word | of a head | of a tail |
//! |---|---|---|
//! | 0 | [`HEAD`], order in bits 8 to 15; [`VIRTUAL`] | [`TAIL`]; [`VIRTUAL`] |
//! | 1 | references to the block; 0: none, it is going, being split, or gone | 0 |
//! | 2, 3 | number of the first page of the mapping, in the space | number of the head |
//! | 4 | destructor: 0 is none | place in the block |
//! | 5, 6 | number of the next page, where it cannot be told by counting | the same |
//!
//! Word 0 is what is written last of a tail when a block is made, and of a head before its count. It is cleared first when a tail is
//! taken down; that of the head goes last of all: it is what says how the others are found.

use pageless_fault::Window;
use pageless_memmap::PageRef;
use pageless_pfn::Pfn;

use crate::frames::Order;

/// Word 0: the page that stands for its block.
pub(super) const HEAD: u32 = 1;
/// Word 0: any other page of a block.
pub(super) const TAIL: u32 = 2;
/// Word 0: of a block that stands together through a mapping (`PageVcompound` of 2007).
pub(super) const VIRTUAL: u32 = 4;
/// Word 0, of the head of a virtual block: its frames are not to be freed when the mapping is gone.
pub(super) const KEPT: u32 = 8;
/// Word 0, of the head of a virtual block whose frames were kept: the mapping is gone.
pub(super) const UNMAPPED: u32 = 16;

const ORDER_SHIFT: u32 = 8;

const KIND: usize = 0;
const COUNT: usize = 1;
const WHERE: usize = 2;
const WHICH: usize = 4;
const NEXT: usize = 5;

/// The marks of one page, read at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mark(u32);

impl Mark {
    pub(super) const NONE: Mark = Mark(0);

    pub(super) fn head(order: Order, is_virtual: bool) -> Self {
        let kind = if is_virtual { HEAD | VIRTUAL } else { HEAD };
        Mark(kind | u32::from(order.get()) << ORDER_SHIFT)
    }

    pub(super) fn tail(is_virtual: bool) -> Self {
        Mark(if is_virtual { TAIL | VIRTUAL } else { TAIL })
    }

    pub(super) fn has(self, bit: u32) -> bool {
        self.0 & bit != 0
    }

    pub(super) fn with(self, bit: u32) -> Self {
        Mark(self.0 | bit)
    }

    /// The order of the block, if this is a head.
    pub(super) fn order(self) -> Order {
        Order::try_new((self.0 >> ORDER_SHIFT) as u8).unwrap_or(Order::ZERO)
    }
}

/// Reads and writes the marks of a page whose descriptor is held.
pub(super) trait Marked {
    fn mark(&self) -> Mark;
    fn set_mark(&self, mark: Mark);
    /// References to the block, of a head.
    fn count(&self) -> u32;
    fn set_count(&self, count: u32);
    /// One more reference to a block that has any; `false` if it has none, or too many.
    fn count_up(&self) -> bool;
    /// One reference less; `true` if it was the last.
    fn count_down(&self) -> bool;
    /// The only reference: from then on nobody gets one, as at the end of a block.
    ///
    /// # Errors
    ///
    /// There are others; how many in all.
    fn count_off(&self) -> Result<(), u32>;
    /// Words 2 and 3.
    fn location(&self) -> u64;
    fn set_location(&self, location: u64);
    /// Word 4.
    fn which(&self) -> u32;
    fn set_which(&self, which: u32);
    /// Words 5 and 6.
    fn next(&self) -> Option<Pfn>;
    fn set_next(&self, next: Option<Pfn>);
}

fn pair<W: Window>(page: &PageRef<'_, W>, n: usize) -> u64 {
    u64::from(page.private(n)) | u64::from(page.private(n + 1)) << 32
}

fn set_pair<W: Window>(page: &PageRef<'_, W>, n: usize, value: u64) {
    page.set_private(n, value as u32);
    page.set_private(n + 1, (value >> 32) as u32);
}

impl<W: Window> Marked for PageRef<'_, W> {
    fn mark(&self) -> Mark {
        // Acquire pairs with the Release in `set_mark`: who finds a head or a tail finds what the other words say of it.
        Mark(self.private(KIND))
    }

    fn set_mark(&self, mark: Mark) {
        self.set_private(KIND, mark.0);
    }

    fn count(&self) -> u32 {
        self.private(COUNT)
    }

    fn set_count(&self, count: u32) {
        self.set_private(COUNT, count);
    }

    fn count_up(&self) -> bool {
        let up = |count: u32| {
            if count == 0 {
                None
            } else {
                count.checked_add(1)
            }
        };
        self.update_private(COUNT, up).is_ok()
    }

    fn count_down(&self) -> bool {
        // Release: what this holder did comes before the end of the block. Acquire: the last one sees what all others did.
        self.update_private(COUNT, |count| count.checked_sub(1)) == Ok(1)
    }

    fn count_off(&self) -> Result<(), u32> {
        // In one step: somebody who has no reference yet may be about to take one.
        self.update_private(COUNT, |count| (count == 1).then_some(0))
            .map(drop)
    }

    fn location(&self) -> u64 {
        pair(self, WHERE)
    }

    fn set_location(&self, location: u64) {
        set_pair(self, WHERE, location);
    }

    fn which(&self) -> u32 {
        self.private(WHICH)
    }

    fn set_which(&self, which: u32) {
        self.set_private(WHICH, which);
    }

    fn next(&self) -> Option<Pfn> {
        Pfn::try_new(pair(self, NEXT).checked_sub(1)?).ok()
    }

    fn set_next(&self, next: Option<Pfn>) {
        set_pair(self, NEXT, next.map_or(0, |pfn| pfn.get() + 1));
    }
}
