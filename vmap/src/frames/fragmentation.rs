//! Memory in which what is free is free in small pieces only, as a seed has it.

use alloc::vec::Vec;
use core::fmt;

use fastrand::Rng;
use pageless_fault::FrameMemory;
use pageless_pfn::{FrameCount, Pfn};

use super::allocator::FrameAllocator;
use super::block_at::BlockAt;
use super::order::Order;
use super::states::State;
use super::zone::Zone;

/// How memory is to be fragmented.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fragmentation {
    /// No block of this order, or above, stays free.
    pub order: Order,
    /// How many frames are to stay free, at most, of a thousand that are free now.
    pub keep_free: u16,
    /// Which ones.
    pub seed: u64,
}

/// Why memory could not be fragmented.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FragmentError {
    /// No memory to remember the frames taken.
    #[error("no memory to remember {frames}")]
    Books {
        /// Frames to be remembered.
        frames: FrameCount,
    },
}

/// Frames that are taken so that nothing larger is free. Dropped, they go back.
#[must_use = "dropped, it gives the frames back"]
pub struct Fragmented<'a, M: FrameMemory> {
    allocator: &'a FrameAllocator<M>,
    taken: Vec<Pfn>,
}

impl<M: FrameMemory> Fragmented<'_, M> {
    /// How many frames are taken.
    #[must_use]
    pub fn taken(&self) -> FrameCount {
        FrameCount::new(self.taken.len() as u64)
    }
}

impl<M: FrameMemory> fmt::Debug for Fragmented<'_, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fragmented")
            .field("taken", &self.taken.len())
            .finish_non_exhaustive()
    }
}

impl<M: FrameMemory> Drop for Fragmented<'_, M> {
    fn drop(&mut self) {
        let taken = core::mem::take(&mut self.taken);
        for zone in &self.allocator.zones {
            self.allocator.give(zone, &taken);
        }
    }
}

impl<M: FrameMemory> FrameAllocator<M> {
    /// Takes frames until no block of `how.order` is free: of every such stretch of memory in which something is free at least one
    /// frame, and then more, here and there, until no more than `how.keep_free` of what was free is free still. Watermarks,
    /// injection and counters do not see it.
    ///
    /// What others own now and free later may come together again; what is free now cannot, as long as the answer lives.
    ///
    /// ```
    /// # #[cfg(feature = "std")] {
    /// use std::sync::Arc;
    /// use pageless_fault::sim::{SimConfig, SimMachine};
    /// use pageless_pfn::FrameCount;
    /// use pageless_vmap::frames::{Fragmentation, FrameAllocator, FrameConfig, Gfp, Order};
    ///
    /// let machine = SimMachine::new(SimConfig::default())?;
    /// let ram = machine.ram(FrameCount::new(256)).ok_or("no such memory")?;
    /// let frames = FrameAllocator::new(Arc::new(ram), FrameConfig::default())?;
    ///
    /// // Half of memory is free, and every allocation of 16 frames fails.
    /// let order = Order::try_new(4)?;
    /// let taken = frames.fragment(Fragmentation { order, keep_free: 500, seed: 7 })?;
    /// assert_eq!(frames.statistics().free(), FrameCount::new(128));
    /// assert!(frames.alloc(&Gfp::atomic(), order).is_err());
    /// drop(taken);
    /// frames.free(frames.alloc(&Gfp::atomic(), order)?);
    /// # }
    /// # Ok::<(), Box<dyn core::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// See [`FragmentError`]; nothing has changed.
    pub fn fragment(&self, how: Fragmentation) -> Result<Fragmented<'_, M>, FragmentError> {
        self.drain_lists();
        let mut rng = Rng::with_seed(how.seed);
        let mut taken = Vec::new();
        for zone in &self.zones {
            if let Err(error) = self.fragment_zone(zone, how, &mut rng, &mut taken) {
                drop(Fragmented {
                    allocator: self,
                    taken,
                });
                return Err(error);
            }
        }
        Ok(Fragmented {
            allocator: self,
            taken,
        })
    }

    fn fragment_zone(
        &self,
        zone: &Zone,
        how: Fragmentation,
        rng: &mut Rng,
        taken: &mut Vec<Pfn>,
    ) -> Result<(), FragmentError> {
        let frames = zone.span.count();
        let no_books = |_| FragmentError::Books { frames };
        // All memory that there will be need of, before anything is taken.
        let most = usize::try_from(frames.get()).unwrap_or(usize::MAX);
        let mut free: Vec<Pfn> = Vec::new();
        free.try_reserve_exact(most).map_err(no_books)?;
        let mut others = Vec::new();
        others.try_reserve_exact(most).map_err(no_books)?;
        taken.try_reserve(most).map_err(no_books)?;

        let one = State::Taken(Order::ZERO);
        let mut blocks = zone.lock();
        while free.len() < most {
            match blocks.take(Order::ZERO, one, &self.states) {
                Some(block) => free.push(block.first),
                None => break,
            }
        }
        drop(blocks);
        free.sort_unstable();

        let keep = (free.len() as u128 * u128::from(how.keep_free.min(1000)) / 1000) as usize;
        // One of each stretch stays taken.
        for stretch in
            free.chunk_by(|&a, &b| BlockAt::around(a, how.order) == BlockAt::around(b, how.order))
        {
            let pinned = rng.usize(..stretch.len());
            for (place, &pfn) in stretch.iter().enumerate() {
                if place == pinned {
                    taken.push(pfn);
                } else {
                    others.push(pfn);
                }
            }
        }
        rng.shuffle(&mut others);
        let more = others.len().saturating_sub(keep);
        taken.extend(others.drain(..more));
        self.give(zone, &others);
        Ok(())
    }

    /// Gives back single frames that nobody ever saw, those of them that are of `zone`.
    fn give(&self, zone: &Zone, frames: &[Pfn]) {
        let mut blocks = zone.lock();
        for &pfn in frames.iter().filter(|&&pfn| zone.contains(pfn)) {
            let one = State::Taken(Order::ZERO);
            blocks.put(BlockAt::frame(pfn), one, &self.states);
        }
    }
}
