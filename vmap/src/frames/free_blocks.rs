//! The free blocks of a zone: which there are, of which order, and how they come apart and together.

use alloc::collections::TryReserveError;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use pageless_pfn::{FrameCount, Pfn, PfnRange};

use super::bit_tree::BitTree;
use super::block_at::{BlockAt, blocks_of};
use super::order::Order;
use super::states::{State, States};

/// For each order the set of its free blocks, by number. A block and its buddy are never both in, except in the largest order.
pub(super) struct FreeBlocks {
    span: PfnRange,
    most: Order,
    orders: Vec<BitTree>,
    free: u64,
}

impl FreeBlocks {
    /// Nothing is free yet; see [`add_all`](Self::add_all).
    pub(super) fn new(span: PfnRange, most: Order) -> Result<Self, TryReserveError> {
        let mut orders = Vec::new();
        orders.try_reserve_exact(usize::from(most.get()) + 1)?;
        for order in most.up_to() {
            let bound = match span.last() {
                Some(last) => (last.get() >> order.get()) - (span.start().get() >> order.get()) + 1,
                None => 0,
            };
            // The states, a byte for each frame, are there: so many bits can be counted.
            orders.push(BitTree::new(bound as usize)?);
        }
        Ok(FreeBlocks {
            span,
            most,
            orders,
            free: 0,
        })
    }

    /// Makes every frame of the zone free.
    pub(super) fn add_all(&mut self, states: &States) {
        for block in blocks_of(self.span, self.most) {
            self.enter(block, State::Tail, states);
        }
    }

    /// Free frames.
    pub(super) const fn free(&self) -> FrameCount {
        FrameCount::new(self.free)
    }

    /// Free blocks of `order`.
    pub(super) fn blocks(&self, order: Order) -> u64 {
        self.orders[usize::from(order.get())].len() as u64
    }

    /// What it takes, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.orders.iter().map(BitTree::bytes).sum()
    }

    /// The largest order of which there is a free block.
    pub(super) fn largest(&self) -> Option<Order> {
        self.most
            .up_to()
            .rev()
            .find(|&order| self.blocks(order) > 0)
    }

    /// The lowest of the smallest blocks that will do, cut to size. Its state becomes `to`.
    pub(super) fn take(&mut self, order: Order, to: State, states: &States) -> Option<BlockAt> {
        let fits = self
            .most
            .up_to()
            .skip(usize::from(order.get()))
            .find(|&order| self.blocks(order) > 0)?;
        let number = self.orders[usize::from(fits.get())].first()?;
        let mut block = self.block(number, fits)?;
        self.leave(block, State::Tail, states);
        while block.order > order {
            let (lower, upper) = block.halves()?;
            self.enter(upper, State::Tail, states);
            block = lower;
        }
        mark(states, block.first, State::Tail, to);
        Some(block)
    }

    /// Takes `block` back, whose state is `from`, together with every buddy that is free.
    pub(super) fn put(&mut self, block: BlockAt, from: State, states: &States) {
        mark(states, block.first, from, State::Tail);
        let mut block = block;
        while let Some((buddy, parent)) = self.free_buddy(block) {
            self.leave(buddy, State::Tail, states);
            block = parent;
        }
        self.enter(block, State::Tail, states);
    }

    /// The buddy of `block`, if both are free together, and what they make.
    fn free_buddy(&self, block: BlockAt) -> Option<(BlockAt, BlockAt)> {
        if block.order >= self.most {
            return None;
        }
        let buddy = block.buddy()?;
        let number = self.number(buddy)?;
        self.orders[usize::from(block.order.get())]
            .contains(number)
            .then_some((buddy, block.parent()?))
    }

    fn enter(&mut self, block: BlockAt, from: State, states: &States) {
        mark(states, block.first, from, State::Free(block.order));
        if let Some(number) = self.number(block) {
            self.orders[usize::from(block.order.get())].insert(number);
            self.free += block.order.frames().get();
        }
    }

    fn leave(&mut self, block: BlockAt, to: State, states: &States) {
        mark(states, block.first, State::Free(block.order), to);
        if let Some(number) = self.number(block) {
            self.orders[usize::from(block.order.get())].remove(number);
            self.free -= block.order.frames().get();
        }
    }

    /// Its place in the set of its order; `None` if it is not all in this zone.
    fn number(&self, block: BlockAt) -> Option<usize> {
        if !self.span.encloses(block.frames()?) {
            return None;
        }
        let shift = block.order.get();
        Some(((block.first.get() >> shift) - (self.span.start().get() >> shift)) as usize)
    }

    fn block(&self, number: usize, order: Order) -> Option<BlockAt> {
        let shift = order.get();
        let first = (number as u64 + (self.span.start().get() >> shift)) << shift;
        Some(BlockAt {
            first: Pfn::try_new(first).ok()?,
            order,
        })
    }

    /// Compares the sets with each other, and with the states of the frames.
    pub(super) fn check(&self, states: &States) -> Result<(), String> {
        let mut free = 0;
        for order in self.most.up_to() {
            let set = &self.orders[usize::from(order.get())];
            if !set.is_consistent() {
                return Err(format!("the levels of the set of {order:?} disagree"));
            }
            for number in set.iter() {
                let block = self
                    .block(number, order)
                    .filter(|&block| self.number(block) == Some(number))
                    .ok_or_else(|| {
                        format!("free block {number} of {order:?} is not in the zone")
                    })?;
                if states.get(block.first) != Some(State::Free(order)) {
                    let state = states.get(block.first);
                    return Err(format!(
                        "{block:?} is free, but its first frame is {state:?}"
                    ));
                }
                if self.free_buddy(block).is_some() {
                    return Err(format!("{block:?} and its buddy are both free"));
                }
            }
            free += set.len() as u64 * order.frames().get();
        }
        if free != self.free {
            return Err(format!("{free} frames are free, {} counted", self.free));
        }
        Ok(())
    }

    /// Whether `block` is free as a whole block.
    pub(super) fn has(&self, block: BlockAt) -> bool {
        self.number(block)
            .is_some_and(|number| self.orders[usize::from(block.order.get())].contains(number))
    }
}

/// A step that nobody else can take meanwhile.
///
/// # Panics
///
/// The books are wrong.
pub(super) fn mark(states: &States, pfn: Pfn, from: State, to: State) {
    let stepped = states.step(pfn, from, to);
    assert!(
        stepped,
        "frame {pfn} is {:?} where the books have {from:?}",
        states.get(pfn)
    );
}
