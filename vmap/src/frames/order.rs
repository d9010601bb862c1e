//! Blocks of 2^order frames.

use pageless_pfn::{FrameCount, Pfn, PfnRange};

/// The size of a block of frames: 2 to the power of this.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Order(u8);

/// An order that no allocator has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("order {order}: at most {} is possible", Order::LARGEST.get())]
pub struct OrderOutOfRange {
    /// What was asked for.
    pub order: u8,
}

impl Order {
    /// One frame.
    pub const ZERO: Order = Order(0);
    /// Linux's `MAX_PAGE_ORDER`: 1024 frames, 4 MiB.
    pub const MAX_PAGE_ORDER: Order = Order(10);
    /// What an allocator can be configured for: 2^20 frames, 4 GiB.
    pub const LARGEST: Order = Order(20);

    /// The order `order`.
    ///
    /// # Errors
    ///
    /// It is above [`LARGEST`](Self::LARGEST).
    pub const fn try_new(order: u8) -> Result<Self, OrderOutOfRange> {
        if order <= Self::LARGEST.0 {
            Ok(Order(order))
        } else {
            Err(OrderOutOfRange { order })
        }
    }

    /// The smallest order of at least `frames` frames (`get_order`); `None` if there is none.
    ///
    /// ```
    /// use pageless_pfn::FrameCount;
    /// use pageless_vmap::frames::Order;
    /// assert_eq!(Order::covering(FrameCount::new(5)), Order::try_new(3).ok());
    /// ```
    #[must_use]
    pub const fn covering(frames: FrameCount) -> Option<Self> {
        match frames.get().checked_next_power_of_two() {
            Some(frames) if frames.ilog2() <= Self::LARGEST.0 as u32 => {
                Some(Order(frames.ilog2() as u8))
            }
            _ => None,
        }
    }

    /// As a number.
    #[must_use]
    pub const fn get(self) -> u8 {
        self.0
    }

    /// Frames of such a block.
    #[must_use]
    pub const fn frames(self) -> FrameCount {
        FrameCount::new(1 << self.0)
    }

    /// The next smaller one.
    #[must_use]
    pub const fn smaller(self) -> Option<Self> {
        match self.0.checked_sub(1) {
            Some(order) => Some(Order(order)),
            None => None,
        }
    }

    /// All orders from 0 to this one.
    pub fn up_to(self) -> impl DoubleEndedIterator<Item = Order> + use<> {
        (0..=self.0).map(Order)
    }
}

/// 2^order frames in one piece, which belong to whoever holds this. Dropped, they are lost: nobody uses them again.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "frames that nobody frees are lost"]
pub struct PageBlock {
    first: Pfn,
    order: Order,
}

impl PageBlock {
    /// Only the allocator makes one.
    pub(crate) const fn new(first: Pfn, order: Order) -> Self {
        PageBlock { first, order }
    }

    /// Its first frame.
    #[must_use]
    pub const fn pfn(&self) -> Pfn {
        self.first
    }

    /// Its order.
    #[must_use]
    pub const fn order(&self) -> Order {
        self.order
    }

    /// Its frames.
    ///
    /// # Panics
    ///
    /// Never: what an allocator hands out exists.
    #[must_use]
    pub const fn frames(&self) -> PfnRange {
        match PfnRange::try_new(self.first, self.order.frames()) {
            Ok(frames) => frames,
            Err(_) => unreachable!(),
        }
    }
}
