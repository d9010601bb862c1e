//! Pages that are unmapped: their frames wait for the shootdown, at once or parked until somebody needs them.
#![forbid(unsafe_code)]

use alloc::boxed::Box;

use x86_64::structures::paging::PageTableFlags as Flags;

use super::cpu::Cpu;
use super::entry::{Entry, Level};
use super::machine::SimMachine;
use super::memory::OwnedFrame;
#[cfg(feature = "std")]
use super::memory::WORDS;
use crate::debt::{Completion, Flushed};
#[cfg(feature = "std")]
use crate::mutant::Mutant;
use crate::shootdown::{Flush, Owed, Pending, Policy, PolicyKind, SpaceId, Unsettled, WaitError};
#[cfg(feature = "std")]
use crate::sync::atomic::Ordering;

/// A page that was unmapped, and the shootdown that its frame waits for.
#[derive(Debug)]
#[must_use = "the frame can be used again only after the shootdown"]
pub struct Unmapped {
    /// What its entry was, with all that walks had marked in it.
    pub entry: Entry,
    /// `None` if the entry did not own what it mapped.
    frame: Option<OwnedFrame>,
    pending: Pending,
}

impl Unmapped {
    /// The shootdown.
    pub fn pending(&self) -> &Pending {
        &self.pending
    }

    /// Frees the frame if the shootdown is over; otherwise comes back. Never waits.
    ///
    /// # Errors
    ///
    /// `self`, while some CPU may still use the translation.
    pub fn try_free(self, machine: &SimMachine, cpu: &Cpu) -> Result<(), Self> {
        let Some(reached) = machine.shared.engine.reached(cpu, &self.pending) else {
            return Err(self);
        };
        match Flushed::after(reached, self.frame) {
            Ok(flushed) => {
                machine.shared.memory.free(flushed);
                Ok(())
            }
            Err(frame) => Err(Unmapped { frame, ..self }),
        }
    }

    /// Waits for the shootdown and frees the frame.
    ///
    /// # Errors
    ///
    /// The shootdown could not be finished; the frame stays locked in.
    pub fn free(self, machine: &SimMachine, cpu: &Cpu) -> Result<(), Unsettled<Self>> {
        let shared = &machine.shared;
        let end = Completion::WalkQuiescent;
        match shared.engine.wait(cpu, &self.pending, end) {
            Ok(reached) => match Flushed::after(reached, self.frame) {
                Ok(flushed) => {
                    shared.memory.free(flushed);
                    Ok(())
                }
                Err(_) => unreachable!("waited for the end of a shootdown"),
            },
            Err(error) => Err((Box::new(self), error)),
        }
    }
}

impl SimMachine {
    /// Clears the 4 KiB entry at `va` and begins the shootdown of that page under the machine's policy. The frame that was
    /// mapped comes with it, locked in until the shootdown is over.
    pub fn unmap(&self, cpu: &Cpu, space: SpaceId, va: u64) -> Option<Unmapped> {
        self.unmap_under(cpu, space, va, self.shared.config.policy)
    }

    /// [`unmap`](Self::unmap) under a policy of one's own choice.
    pub fn unmap_under(
        &self,
        cpu: &Cpu,
        space: SpaceId,
        va: u64,
        kind: PolicyKind,
    ) -> Option<Unmapped> {
        let place = self.place(space, va);
        let aimed = self.aim_early(cpu, kind, place);
        let old = self.replace_entry(space, va, Level::Table, Entry::ABSENT);
        if !old.has(Flags::PRESENT) {
            return None;
        }
        super::hooks::step("cleared", va);
        let pending = self
            .shared
            .engine
            .begin_aimed(cpu, kind, &Flush::pages(va, 1), place, aimed);
        Some(Unmapped {
            entry: old,
            frame: self.shared.memory.owned_by(old),
            pending,
        })
    }

    /// [`unmap`](Self::unmap) under a policy known by type, which says what it proves. `None` if the entry owned no frame.
    pub fn unmap_by<P: Policy>(
        &self,
        cpu: &Cpu,
        space: SpaceId,
        va: u64,
    ) -> Option<Owed<P, Option<OwnedFrame>>> {
        let Unmapped { frame, pending, .. } = self.unmap_under(cpu, space, va, P::KIND)?;
        Some(Owed::new(pending, frame))
    }

    /// Hands out what the cleared entry `old` of `level` for `va` had led to: a frame that it owned, with the address where it was
    /// mapped, or a table and all below it. None of it may be freed before a shootdown.
    #[cfg(feature = "std")]
    pub(super) fn unlink(
        &self,
        old: Entry,
        level: Level,
        va: u64,
        out: &mut impl FnMut(Option<u64>, OwnedFrame),
    ) {
        let memory = &self.shared.memory;
        let Some(below) = level.below().filter(|_| !old.is_leaf(level)) else {
            // What somebody else mapped here is none of ours.
            if let Some(frame) = memory.owned_by(old) {
                out(Some(va), frame);
            }
            return;
        };
        for index in 0..WORDS {
            let Some(word) = memory.word(old.frame(), index) else {
                unreachable!("a page table outside the memory")
            };
            // A swap: walks that have not heard of it mark what they pass. Acquire pairs with the Release
            // that published the entry.
            let entry = Entry::from_bits(word.swap(0, Ordering::AcqRel));
            if entry.has(Flags::PRESENT) {
                self.unlink(entry, below, va + ((index as u64) << below.shift()), out);
            }
        }
        let table = memory.frame_of(old);
        if Mutant::TableFreedUnflushed.active() {
            memory.free_unmapped(table);
        } else {
            out(None, table);
        }
    }

    /// Puts an unmapped page off. Under [`PolicyKind::LazyPurge`] everything that has been put off is flushed at once, and freed, as soon as
    /// it is more than [`lazy_most`](super::SimConfig::lazy_most) pages; otherwise whoever needs a frame sees to it.
    ///
    /// # Errors
    ///
    /// The purge could not be finished; the frames concerned are lost.
    pub fn park(&self, cpu: &Cpu, unmapped: Unmapped) -> Result<(), WaitError> {
        let mut parked = self.shared.parked.lock();
        parked.push_back(unmapped);
        let lazy = self.shared.config.policy == PolicyKind::LazyPurge;
        if !lazy || parked.len() <= self.shared.config.lazy_most {
            return Ok(());
        }
        let purged = core::mem::take(&mut *parked);
        drop(parked);
        // The first wait has everything flushed that was unmapped before it: the others find it done.
        for unmapped in purged.into_iter().rev() {
            unmapped.free(self, cpu).map_err(|(_, error)| error)?;
        }
        Ok(())
    }

    /// A zeroed frame, if need be one that was put off: the gate through which a parked frame goes only when it is
    /// flushed. `None` if there is none at all.
    ///
    /// # Errors
    ///
    /// The shootdown of the oldest parked frame could not be finished; the frame is lost.
    pub fn alloc_on(&self, cpu: &Cpu) -> Result<Option<OwnedFrame>, WaitError> {
        loop {
            if let Some(frame) = self.alloc() {
                return Ok(Some(frame));
            }
            let Some(oldest) = self.shared.parked.lock().pop_front() else {
                return Ok(None);
            };
            oldest.free(self, cpu).map_err(|(_, error)| error)?;
        }
    }
}
