//! Where a block is, without owning it: the arithmetic of buddies.

use pageless_pfn::{Pfn, PfnRange};

use super::order::Order;

/// 2^order frames at a multiple of 2^order. Says nothing about who has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BlockAt {
    pub(super) first: Pfn,
    pub(super) order: Order,
}

impl BlockAt {
    pub(super) const fn frame(first: Pfn) -> Self {
        BlockAt {
            first,
            order: Order::ZERO,
        }
    }

    /// Whether it is where a block of its order can be.
    pub(super) const fn is_aligned(self) -> bool {
        self.first.get().is_multiple_of(self.order.frames().get())
    }

    /// Its frames; `None` if they would not all be frame numbers.
    pub(super) fn frames(self) -> Option<PfnRange> {
        PfnRange::try_new(self.first, self.order.frames()).ok()
    }

    /// The other half of the block that the two of them make.
    pub(super) fn buddy(self) -> Option<Self> {
        let first = Pfn::try_new(self.first.get() ^ self.order.frames().get()).ok()?;
        Some(BlockAt { first, ..self })
    }

    /// The block that it and its buddy make.
    pub(super) fn parent(self) -> Option<Self> {
        let order = Order::try_new(self.order.get() + 1).ok()?;
        let first = Pfn::try_new(self.first.get() & !(order.frames().get() - 1)).ok()?;
        Some(BlockAt { first, order })
    }

    /// The lower and the upper half.
    pub(super) fn halves(self) -> Option<(Self, Self)> {
        let order = self.order.smaller()?;
        let lower = BlockAt { order, ..self };
        Some((lower, lower.buddy()?))
    }

    /// The block of `order` that `first` lies in.
    pub(super) fn around(first: Pfn, order: Order) -> Option<Self> {
        let first = Pfn::try_new(first.get() & !(order.frames().get() - 1)).ok()?;
        Some(BlockAt { first, order })
    }
}

/// The fewest blocks, of at most order `most`, that `frames` consists of.
pub(super) fn blocks_of(frames: PfnRange, most: Order) -> impl Iterator<Item = BlockAt> {
    let mut rest = frames;
    core::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let first = rest.start();
        // What the address allows, what is left, and what there is at all. Frame 0 is a multiple of everything.
        let order = most
            .up_to()
            .rev()
            .find(|&order| BlockAt { first, order }.is_aligned() && order.frames() <= rest.count())
            .unwrap_or(Order::ZERO);
        (_, rest) = rest.split_at(order.frames())?;
        Some(BlockAt { first, order })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use pageless_pfn::FrameCount;

    fn at(first: u64, order: u8) -> BlockAt {
        BlockAt {
            first: Pfn::try_new(first).unwrap(),
            order: Order::try_new(order).unwrap(),
        }
    }

    #[test]
    fn buddies_are_each_others_and_make_their_parent() {
        for first in (0..64).step_by(4) {
            let one = at(first, 2);
            let other = one.buddy().unwrap();
            assert_eq!(other.buddy(), Some(one));
            assert_eq!(one.parent(), other.parent());
            let (lower, upper) = one.parent().unwrap().halves().unwrap();
            assert!([lower, upper].contains(&one) && [lower, upper].contains(&other));
            assert!(lower.first < upper.first);
        }
    }

    #[test]
    fn an_unaligned_range_is_cut_at_the_largest_boundaries() {
        let frames = PfnRange::try_new(Pfn::try_new(5).unwrap(), FrameCount::new(22)).unwrap();
        let cut: Vec<_> = blocks_of(frames, Order::try_new(3).unwrap()).collect();
        assert_eq!(
            cut,
            [
                at(5, 0),
                at(6, 1),
                at(8, 3),
                at(16, 3),
                at(24, 1),
                at(26, 0)
            ]
        );
    }
}
