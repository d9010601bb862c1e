//! Address space of the simulated machine in which any frame can be mapped anywhere: global 4 KiB pages of the kernel.

use alloc::vec;
use alloc::vec::Vec;

use pageless_pfn::{Pfn, PfnRange};
use x86_64::structures::paging::PageTableFlags as Flags;

use super::current;
use super::entry::{Entry, Level};
use super::hooks;
use super::machine::{SimMachine, WINDOW_STRIDE, WINDOWS, WINDOWS_MOST, pfn};
use super::ram::{words, write_part};
use super::space::MapError as EntryError;
use super::walk::{FaultCause, PageFault};
use crate::context::MaySleep;
use crate::debt::{Completion, Flushed};
use crate::machine::{ReserveError, Translations, UnmapError};
use crate::shootdown::{Flush, Pending, PolicyKind, Processor, SpaceId, Stretch, WaitError};
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::vspace::{MapError, Protection, Untranslated, VirtAddr, Vspace};
use crate::window::{WindowLen, WindowOffset, WindowRange};

const PAGE: u64 = 4096;
/// Words of a cache line.
const LINE_WORDS: u64 = 8;
/// What a real system would answer: ENOMEM, ETIMEDOUT, EDEADLK, EINVAL.
const NO_MEMORY: i32 = 12;
const TIMED_OUT: i32 = 110;
const WOULD_DEADLOCK: i32 = 35;
const INVALID: i32 = 22;

/// Address space of a [`SimMachine`]. What it maps belongs to whoever mapped it.
///
/// Every access goes through the CPU that the calling thread, or coroutine, runs on; see [`SimMachine::run_on`]. Page tables stay
/// until the space is dropped.
#[derive(Debug)]
pub struct SimVspace {
    pub(super) machine: SimMachine,
    index: u16,
    base: u64,
    len: WindowLen,
}

impl SimMachine {
    /// Reserves address space for mapping frames at will: at most 4 GiB.
    ///
    /// # Errors
    ///
    /// [`ReserveError::AddressSpace`], [`ReserveError::TooManyWindows`].
    pub fn reserve_vspace(&self, len: WindowLen) -> Result<SimVspace, ReserveError> {
        if len.get() > WINDOW_STRIDE {
            return Err(ReserveError::AddressSpace { asked: len.get() });
        }
        let too_many = ReserveError::TooManyWindows {
            limit: usize::from(WINDOWS_MOST),
        };
        let index = self.shared.take_window().ok_or(too_many)?;
        Ok(SimVspace {
            machine: self.clone(),
            index,
            base: WINDOWS + u64::from(index) * WINDOW_STRIDE,
            len,
        })
    }
}

/// Ranges that have been cleared, and the shootdown that whoever cleared them waits for.
#[derive(Debug)]
pub struct SimVspaceTicket {
    pending: Option<Pending>,
    bytes: u64,
}

impl SimVspace {
    /// The machine that it is part of.
    #[must_use]
    pub fn machine(&self) -> &SimMachine {
        &self.machine
    }

    fn va(&self, at: u64) -> u64 {
        self.base + at
    }

    fn check(&self, range: WindowRange) -> Result<(), UnmapError> {
        if range.end().get() <= self.len.get() {
            Ok(())
        } else {
            Err(UnmapError::Refused {
                bytes: range.len(),
                errno: INVALID,
            })
        }
    }

    fn waited(&self, error: &WaitError, bytes: u64) -> UnmapError {
        match error {
            WaitError::Unanswered {
                reached: Some(grade),
                ..
            } => UnmapError::NotQuiescent { grade: *grade },
            WaitError::Unanswered { reached: None, .. } => UnmapError::Refused {
                bytes,
                errno: TIMED_OUT,
            },
            WaitError::InterruptsOff { .. } => UnmapError::Refused {
                bytes,
                errno: WOULD_DEADLOCK,
            },
        }
    }

    /// One access to each word of `len` bytes at `at`, through the translations.
    fn each_word(
        &self,
        at: WindowOffset,
        len: usize,
        write: bool,
        mut effect: impl FnMut(core::ops::Range<usize>, &AtomicU64),
    ) -> Result<(), Untranslated> {
        let outside = Untranslated {
            at: self.len.get(),
            write,
        };
        if at.get() >= self.len.get() {
            return if len == 0 { Ok(()) } else { Err(outside) };
        }
        let first = self.va(at.get());
        let inside = (self.len.get().saturating_sub(at.get())).min(len as u64);
        let costs = &self.machine.config().costs;
        current::with(&self.machine, |cpu| {
            for (word, part) in words(first, inside as usize) {
                // A loop over memory is paid by the line, whichever way it goes.
                let cost = if word.is_multiple_of(LINE_WORDS) {
                    costs.copy_line
                } else {
                    0
                };
                let mut effect = |found: &AtomicU64| effect(part.clone(), found);
                cpu.access_costing(cost, word * 8, write, &mut effect)
                    .map_err(|fault: PageFault| Untranslated {
                        at: fault.va.max(first) - self.base,
                        write: fault.write || fault.cause == FaultCause::Protection,
                    })?;
            }
            Ok(())
        })?;
        if inside < len as u64 {
            Err(outside)
        } else {
            Ok(())
        }
    }
}

impl Translations for SimVspace {
    type Ticket = SimVspaceTicket;

    fn wait(&self, ticket: &SimVspaceTicket, _ctx: &MaySleep) -> Result<Completion, UnmapError> {
        let Some(pending) = &ticket.pending else {
            return Ok(Completion::WalkQuiescent);
        };
        let engine = self.machine.engine();
        current::with_any(&self.machine, |cpu| {
            engine.wait(cpu, pending, Completion::WalkQuiescent)
        })
        .map_or(
            Err(UnmapError::Refused {
                bytes: ticket.bytes,
                errno: TIMED_OUT,
            }),
            |waited| match waited {
                Ok(reached) => Ok(reached.grade()),
                Err(error) => Err(self.waited(&error, ticket.bytes)),
            },
        )
    }
}

impl Vspace for SimVspace {
    fn len(&self) -> WindowLen {
        self.len
    }

    fn base(&self) -> VirtAddr {
        VirtAddr::new(self.base)
    }

    fn map(
        &self,
        at: WindowOffset,
        frames: PfnRange,
        protection: Protection,
    ) -> Result<(), MapError> {
        let pages = frames.count().get();
        let outside = MapError::Outside {
            at: at.get(),
            pages,
            len: self.len,
        };
        let end = pages
            .checked_mul(PAGE)
            .and_then(|bytes| at.get().checked_add(bytes));
        if !at.get().is_multiple_of(PAGE) || end.is_none_or(|end| end > self.len.get()) {
            return Err(outside);
        }
        let beyond = frames
            .last()
            .filter(|last| last.get() >= self.machine.memory().frames());
        if let Some(pfn) = beyond {
            return Err(MapError::NoSuchFrame { pfn });
        }
        let mut flags = Flags::PRESENT | Flags::GLOBAL;
        flags.set(Flags::WRITABLE, protection == Protection::ReadWrite);
        let cost = self.machine.config().costs.write_entry;
        let first = self.va(at.get());
        let occupied = |va: u64| MapError::Occupied { at: va - self.base };
        // All that can fail comes first: what has once been mapped could not be taken back without a shootdown.
        let kernel = self.machine.shared.space(SpaceId::EVERY);
        for va in (first..first + pages * PAGE).step_by(PAGE as usize) {
            let prepared = kernel.prepare(self.machine.memory(), va, Level::Table);
            prepared.map_err(|error| match error {
                EntryError::Occupied { .. } => occupied(va),
                EntryError::NoFrame => MapError::NoRoom {
                    pages,
                    errno: NO_MEMORY,
                },
                EntryError::NonCanonical { .. } => outside,
            })?;
            if self.translate(WindowOffset::new(va - self.base)).is_some() {
                return Err(occupied(va));
            }
        }
        for (frame, va) in frames.iter().zip((first..).step_by(PAGE as usize)) {
            hooks::step("map", va);
            self.machine.charge_current(cost);
            let entry = Entry::new(frame.get(), flags);
            self.machine
                .map_entry(SpaceId::EVERY, va, Level::Table, entry)
                .map_err(|_| occupied(va))?;
        }
        Ok(())
    }

    fn translate(&self, at: WindowOffset) -> Option<Pfn> {
        if at.get() >= self.len.get() {
            return None;
        }
        let entry = self
            .machine
            .entry(SpaceId::EVERY, self.va(at.get()), Level::Table);
        entry.has(Flags::PRESENT).then(|| pfn(entry.frame()))
    }

    fn clear(&self, range: WindowRange) -> Result<(), UnmapError> {
        self.check(range)?;
        let cost = self.machine.config().costs.write_entry;
        let mut at = range.start().get();
        while at < range.end().get() {
            hooks::step("clear", self.va(at));
            let old = self.machine.replace_entry(
                SpaceId::EVERY,
                self.va(at),
                Level::Table,
                Entry::ABSENT,
            );
            if old.has(Flags::PRESENT) {
                self.machine.charge_current(cost);
            }
            at += PAGE;
        }
        Ok(())
    }

    fn shoot(&self, ranges: &[WindowRange]) -> Result<SimVspaceTicket, UnmapError> {
        for range in ranges {
            self.check(*range)?;
        }
        let bytes = ranges.iter().map(|range| range.len()).sum();
        if ranges.is_empty() {
            return Ok(SimVspaceTicket {
                pending: None,
                bytes,
            });
        }
        let flush = Flush::stretches(ranges.iter().map(|range| Stretch {
            first: self.va(range.start().get()),
            pages: range.len() / PAGE,
        }));
        let policy = self.machine.config().policy;
        let place = self.machine.place(SpaceId::EVERY, self.base);
        let engine = self.machine.engine();
        let pending = current::with_any(&self.machine, |cpu| {
            engine.begin(cpu, policy, &flush, place)
        });
        match pending {
            Some(pending) => Ok(SimVspaceTicket {
                pending: Some(pending),
                bytes,
            }),
            None => Err(UnmapError::Refused {
                bytes,
                errno: TIMED_OUT,
            }),
        }
    }

    fn flush_here(&self, range: WindowRange) -> Result<Flushed<()>, UnmapError> {
        self.check(range)?;
        let flush = Flush::pages(self.va(range.start().get()), range.len() / PAGE);
        Ok(current::with(&self.machine, |cpu| {
            cpu.invalidate(flush.invalidation());
            Flushed::by_its_only_user(())
        }))
    }

    fn read(&self, at: WindowOffset, into: &mut [u8]) -> Result<(), Untranslated> {
        let mut done = 0;
        self.each_word(at, into.len(), false, |part, word| {
            // Acquire pairs with the Release of whoever wrote the word.
            let bytes = word.load(Ordering::Acquire).to_le_bytes();
            into[done..done + part.len()].copy_from_slice(&bytes[part.clone()]);
            done += part.len();
        })
    }

    fn write(&self, at: WindowOffset, from: &[u8]) -> Result<(), Untranslated> {
        let mut done = 0;
        self.each_word(at, from.len(), true, |part, word| {
            write_part(word, part.clone(), &from[done..done + part.len()]);
            done += part.len();
        })
    }

    #[expect(unsafe_code, reason = "the trait's contract; a copy needs none of it")]
    unsafe fn view<R>(
        &self,
        at: WindowOffset,
        len: usize,
        look: impl FnOnce(&[u8]) -> R,
    ) -> Result<R, Untranslated> {
        let room = self.len.get().saturating_sub(at.get());
        if len as u64 > room {
            return Err(Untranslated {
                at: self.len.get(),
                write: false,
            });
        }
        let mut copy = vec![0; len];
        self.read(at, &mut copy)?;
        Ok(look(&copy))
    }
}

impl Drop for SimVspace {
    /// Clears everything, tables included, and flushes it before the addresses can be given out again. Where that cannot be proved the
    /// addresses and the tables are lost.
    fn drop(&mut self) {
        // What is mapped belongs to others; the tables are this space's own.
        let Some(len) = self
            .len
            .get()
            .checked_next_multiple_of(1 << Level::Pointers.shift())
        else {
            return;
        };
        let mut limbo = Vec::new();
        for part in 0..len >> Level::Pointers.shift() {
            let va = self.va(part << Level::Pointers.shift());
            let old =
                self.machine
                    .replace_entry(SpaceId::EVERY, va, Level::Pointers, Entry::ABSENT);
            if old.has(Flags::PRESENT) {
                self.machine
                    .unlink(old, Level::Pointers, va, &mut |_, table| limbo.push(table));
            }
        }
        let machine = self.machine.clone();
        let place = machine.place(SpaceId::EVERY, self.base);
        let reached = current::with_any(&machine, |cpu| {
            let flush = Flush::EVERYTHING;
            let engine = machine.engine();
            let pending = engine.begin(cpu, PolicyKind::KernelRange, &flush, place);
            engine.wait(cpu, &pending, Completion::WalkQuiescent).ok()
        });
        let Some(reached) = reached.flatten() else {
            return;
        };
        if let Ok(flushed) = Flushed::after(reached, limbo) {
            machine.memory().free(flushed);
            machine.shared.give_window_back(self.index);
        }
    }
}
