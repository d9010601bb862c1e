//! The books, compared with each other.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use pageless_fault::FrameMemory;
use pageless_fault::sync::MutexGuard;
use pageless_pfn::Pfn;

use super::allocator::FrameAllocator;
use super::block_at::BlockAt;
use super::order::Order;
use super::percpu::Parked;
use super::states::State;
use super::zone::{Zone, ZoneGuard};

/// All locks of a zone.
pub(super) struct HeldZone<'z> {
    pub(super) lists: Vec<MutexGuard<'z, Parked>>,
    pub(super) blocks: ZoneGuard<'z>,
}

impl<M: FrameMemory> FrameAllocator<M> {
    /// Every lock there is, in the order in which everybody takes two: zone by zone the lists, by CPU, and then the zone.
    pub(super) fn lock_all(&self) -> Vec<HeldZone<'_>> {
        let zones = self.zones.iter();
        zones
            .map(|zone| HeldZone {
                lists: zone.lists.iter().map(|list| list.lock()).collect(),
                blocks: zone.lock(),
            })
            .collect()
    }

    /// Compares the books with each other: sets, counts, lists, and the state of every frame. Others may be at work meanwhile.
    ///
    /// # Errors
    ///
    /// What is wrong, in words.
    pub fn self_check(&self) -> Result<(), String> {
        let held = self.lock_all();
        self.zones
            .iter()
            .zip(&held)
            .try_for_each(|(zone, held)| self.check_zone(zone, held))
    }

    fn check_zone(&self, zone: &Zone, held: &HeldZone<'_>) -> Result<(), String> {
        held.blocks.check(&self.states)?;
        if zone.free() != held.blocks.free() {
            return Err(format!(
                "{} are free in {:?}, the estimate is {}",
                held.blocks.free(),
                zone.kind,
                zone.free()
            ));
        }
        let mut listed: Vec<Pfn> = Vec::new();
        for (cpu, (list, parked)) in zone.lists.iter().zip(&held.lists).enumerate() {
            if list.len() != parked.frames().count() {
                return Err(format!("the list of CPU {cpu} has not the length it says"));
            }
            if parked.frames().count() > parked.most() {
                return Err(format!("the list of CPU {cpu} is too long"));
            }
            listed.extend(parked.frames());
        }
        listed.sort_unstable();
        if let Some(pair) = listed.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(format!("frame {} is parked twice", pair[0]));
        }
        let mut parked = 0;
        let mut rest = zone.span;
        while !rest.is_empty() {
            let first = rest.start();
            let order = match self.states.get(first) {
                Some(State::Free(order)) if held.blocks.has(BlockAt { first, order }) => order,
                Some(State::Taken(order) | State::Returning(order)) => order,
                Some(State::Parked) if listed.binary_search(&first).is_ok() => {
                    parked += 1;
                    Order::ZERO
                }
                state => return Err(format!("no block at frame {first}: {state:?}")),
            };
            let block = BlockAt { first, order };
            let (frames, behind) = rest
                .split_at(order.frames())
                .filter(|_| block.is_aligned())
                .ok_or_else(|| format!("{block:?} is where there can be none"))?;
            for pfn in frames.iter().skip(1) {
                let state = self.states.get(pfn);
                if state != Some(State::Tail) {
                    return Err(format!("frame {pfn} within {block:?} is {state:?}"));
                }
            }
            rest = behind;
        }
        if parked != listed.len() {
            return Err(format!(
                "{} frames are in lists, {parked} are parked",
                listed.len()
            ));
        }
        Ok(())
    }
}
