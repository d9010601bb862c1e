//! A window of the simulated machine: what a memmap's core sees of it.
//!
//! Every access goes through the CPU that the calling thread, or coroutine, runs on; see
//! [`SimMachine::run_on`].
#![forbid(unsafe_code)]

use alloc::sync::Arc;
use alloc::vec::Vec;

use x86_64::structures::paging::PageTableFlags as Flags;

use super::current;
use super::entry::{Entry, Level};
use super::machine::{Shared, SimMachine, WINDOW_STRIDE, WINDOWS};
use super::memory::OwnedFrame;
use super::walk::PageFault;
use crate::access::{FaultReason, Fetched};
use crate::context::MaySleep;
use crate::debt::Completion;
use crate::debt::Flushed;
use crate::machine::{
    Machine, PopulateError, ReserveError, Table, Translations, UnmapError, Window, Word,
};
use crate::mutant::Mutant;
use crate::shootdown::{Flush, Pending, PolicyKind, Processor, SpaceId, WaitError};
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::window::{LEAF_TABLE_SPAN, WindowLen, WindowOffset, WindowRange};

const PAGE: u64 = 4096;
/// What a real system would answer: ENOMEM, ETIMEDOUT, EDEADLK.
const NO_MEMORY: i32 = 12;
const TIMED_OUT: i32 = 110;
const WOULD_DEADLOCK: i32 = 35;

/// A range of simulated addresses. Global pages, in every address space.
#[derive(Debug)]
pub struct SimWindow {
    machine: SimMachine,
    index: u16,
    base: u64,
    len: u64,
    /// What has been unmapped and not been proved flushed. What never is stays until the window goes.
    limbo: Mutex<Vec<Limbo>>,
    /// Batches cleared so far.
    batches: AtomicU64,
}

/// A frame that some CPU may still reach.
#[derive(Debug)]
struct Limbo {
    batch: u64,
    /// Where; `None` for a page table.
    mapped_at: Option<u64>,
    frame: OwnedFrame,
}

impl Machine for SimMachine {
    type Window = SimWindow;

    fn reserve(&self, len: WindowLen, _largest: u64) -> Result<SimWindow, ReserveError> {
        if len.get() > WINDOW_STRIDE {
            return Err(ReserveError::AddressSpace { asked: len.get() });
        }
        let index = self
            .shared
            .take_window()
            .ok_or(ReserveError::TooManyWindows {
                limit: usize::from(super::machine::WINDOWS_MOST),
            })?;
        Ok(SimWindow {
            machine: self.clone(),
            index,
            base: WINDOWS + u64::from(index) * WINDOW_STRIDE,
            len: len.get(),
            limbo: Mutex::new(Vec::new()),
            batches: AtomicU64::new(0),
        })
    }
}

/// A batch whose translations are cleared: the shootdown that its frames wait for. Dropped, it leaves them to the window.
#[derive(Debug)]
pub struct SimTicket {
    pending: Option<Pending>,
    batch: u64,
    bytes: u64,
}

/// Frames set aside.
#[derive(Debug)]
pub struct SimPrefilled {
    shared: Arc<Shared>,
    frames: Vec<OwnedFrame>,
}

impl Drop for SimPrefilled {
    fn drop(&mut self) {
        for frame in self.frames.drain(..) {
            self.shared.memory.free_unmapped(frame);
        }
    }
}

impl SimWindow {
    /// The address of its first byte.
    #[must_use]
    pub fn base(&self) -> u64 {
        self.base
    }

    /// The machine that it is a window of.
    #[must_use]
    pub fn machine(&self) -> &SimMachine {
        &self.machine
    }

    fn va(&self, at: u64) -> u64 {
        self.base + at
    }

    fn fill(
        &self,
        range: WindowRange,
        mut frame: impl FnMut(u64) -> Option<OwnedFrame>,
    ) -> Result<(), PopulateError> {
        let shared = &self.machine.shared;
        let kernel = shared.space(SpaceId::EVERY);
        let flags = Flags::PRESENT | Flags::WRITABLE | Flags::GLOBAL;
        let short = |at: u64, errno| PopulateError {
            start: range.start().get(),
            asked: range.len(),
            done: at - range.start().get(),
            errno,
        };
        let mut at = range.start().get();
        while at < range.end().get() {
            super::hooks::step("map", self.va(at));
            let frame = frame(self.va(at)).ok_or(short(at, NO_MEMORY))?;
            let entry = Entry::new(frame.number(), flags).owning();
            if kernel
                .map(&shared.memory, self.va(at), Level::Table, entry)
                .is_err()
            {
                shared.memory.free_unmapped(frame);
                return Err(short(at, NO_MEMORY));
            }
            at += PAGE;
        }
        Ok(())
    }

    /// Clears the entries of `range`. What they mapped is in limbo from then on; whether a table is as well.
    fn clear_range(&self, range: WindowRange, batch: u64) -> bool {
        let mut freed_tables = false;
        let mut at = range.start().get();
        while at < range.end().get() {
            let whole =
                at.is_multiple_of(LEAF_TABLE_SPAN) && range.end().get() - at >= LEAF_TABLE_SPAN;
            if whole && self.frees_leaf_tables() {
                freed_tables |= self.clear_entry(self.va(at), Level::Directory, batch);
                at += LEAF_TABLE_SPAN;
            } else {
                self.clear_entry(self.va(at), Level::Table, batch);
                at += PAGE;
            }
        }
        freed_tables
    }

    /// Clears the entry of `level` for `va`; whether there was one.
    fn clear_entry(&self, va: u64, level: Level, batch: u64) -> bool {
        super::hooks::step("clear", va);
        let old = self
            .machine
            .replace_entry(SpaceId::EVERY, va, level, Entry::ABSENT);
        if old.has(Flags::PRESENT) {
            self.retire(old, level, va, batch);
        }
        old.has(Flags::PRESENT)
    }

    /// What the cleared entry `old` of `level` had led to is in limbo from now on: a frame, or a table with all below it.
    fn retire(&self, old: Entry, level: Level, va: u64, batch: u64) {
        self.machine
            .unlink(old, level, va, &mut |mapped_at, frame| {
                self.limbo.lock().push(Limbo {
                    batch,
                    mapped_at,
                    frame,
                });
            });
    }

    /// What a batch has left in limbo, once it is proved flushed.
    fn out_of_limbo(&self, batch: u64) -> Vec<OwnedFrame> {
        let mut limbo = self.limbo.lock();
        let of_batch = limbo.extract_if(.., |limbo| limbo.batch == batch);
        of_batch.map(|limbo| limbo.frame).collect()
    }

    /// A mutant's source of frames: the one that was mapped at `va` and is not proved flushed.
    fn old_frame(&self, va: u64) -> Option<OwnedFrame> {
        let entry = || {
            self.machine
                .entry(SpaceId::EVERY, va, Level::Table)
                .has(Flags::PRESENT)
        };
        let mut turn = 0;
        while entry() {
            self.relax(turn);
            turn += 1;
        }
        let mut limbo = self.limbo.lock();
        let old = limbo.iter().position(|old| old.mapped_at == Some(va))?;
        Some(limbo.swap_remove(old).frame)
    }

    fn held(result: Result<u32, PageFault>) -> u32 {
        match result {
            Ok(value) => value,
            Err(fault) => panic!("access to memory that should have been held: {fault}"),
        }
    }
}

/// One word of a [`SimWindow`].
#[derive(Debug, Clone, Copy)]
pub struct SimWord<'w> {
    window: &'w SimWindow,
    at: u64,
}

/// Evenly spaced words of a [`SimWindow`].
#[derive(Debug, Clone, Copy)]
pub struct SimTable<'w, const STRIDE: u64> {
    window: &'w SimWindow,
    count: u64,
}

impl<'w, const STRIDE: u64> Table for SimTable<'w, STRIDE> {
    type Word = SimWord<'w>;

    fn nth(self, index: u64) -> Option<SimWord<'w>> {
        (index < self.count).then(|| SimWord {
            window: self.window,
            at: index * STRIDE,
        })
    }
}

impl SimWord<'_> {
    fn va(self) -> u64 {
        self.window.va(self.at)
    }

    fn update(self, change: impl FnMut(u32) -> Option<u32>) -> Result<u32, PageFault> {
        current::with(&self.window.machine, |cpu| {
            cpu.update_u32(self.va(), change)
        })
    }
}

impl Word for SimWord<'_> {
    fn fetch_add(self, n: u32) -> Fetched {
        let added = self.update(|old| Some(old.wrapping_add(n)));
        match added {
            Ok(old) => Fetched::old(old),
            Err(_) => Fetched::fault(FaultReason::NotPresent),
        }
    }

    fn release(self) {
        let subtracted = self.update(|old| Some(old.wrapping_sub(1)));
        // What is given back while a failed run is torn down may have been lost before: that is told already.
        if subtracted.is_ok() || !std::thread::panicking() {
            SimWindow::held(subtracted);
        }
    }

    fn compare_exchange(self, current: u32, new: u32) -> Result<u32, u32> {
        let found = self.update(|old| (old == current).then_some(new));
        let found = SimWindow::held(found);
        if found == current {
            Ok(found)
        } else {
            Err(found)
        }
    }

    fn exchange(self, new: u32) -> u32 {
        SimWindow::held(self.update(|_| Some(new)))
    }

    fn load(self, _order: Ordering) -> u32 {
        SimWindow::held(current::with(&self.window.machine, |cpu| {
            cpu.load_u32(self.va())
        }))
    }

    fn store(self, value: u32, _order: Ordering) {
        self.exchange(value);
    }
}

impl Translations for SimWindow {
    type Ticket = SimTicket;

    fn wait(&self, ticket: &SimTicket, _ctx: &MaySleep) -> Result<Completion, UnmapError> {
        let Some(pending) = &ticket.pending else {
            return Ok(Completion::WalkQuiescent);
        };
        let shared = &self.machine.shared;
        let refused = |errno| UnmapError::Refused {
            bytes: ticket.bytes,
            errno,
        };
        let reached = current::with(&self.machine, |cpu| {
            shared.engine.wait(cpu, pending, Completion::WalkQuiescent)
        });
        match reached {
            Ok(reached) => {
                match Flushed::after(reached, self.out_of_limbo(ticket.batch)) {
                    Ok(flushed) => shared.memory.free(flushed),
                    Err(_) => unreachable!("waited for the end of a shootdown"),
                }
                Ok(reached.grade())
            }
            Err(WaitError::Unanswered {
                reached: Some(grade),
                ..
            }) => Err(UnmapError::NotQuiescent { grade }),
            Err(WaitError::Unanswered { reached: None, .. }) => Err(refused(TIMED_OUT)),
            Err(WaitError::InterruptsOff { .. }) => Err(refused(WOULD_DEADLOCK)),
        }
    }
}

impl Window for SimWindow {
    type Word<'w> = SimWord<'w>;
    type Table<'w, const STRIDE: u64> = SimTable<'w, STRIDE>;
    type Prefilled = SimPrefilled;

    fn table<const STRIDE: u64>(&self, count: u64) -> Option<SimTable<'_, STRIDE>> {
        let fits = count.checked_mul(STRIDE)? <= self.len;
        (fits && STRIDE.is_multiple_of(4)).then_some(SimTable {
            window: self,
            count,
        })
    }

    fn word(&self, at: WindowOffset) -> Option<SimWord<'_>> {
        let inside = at.get().checked_add(4)? <= self.len;
        (inside && at.get().is_multiple_of(4)).then_some(SimWord {
            window: self,
            at: at.get(),
        })
    }

    fn populate(&self, range: WindowRange, _ctx: &MaySleep) -> Result<(), PopulateError> {
        self.fill(range, |va| {
            if Mutant::OldFrameReinstalled.active()
                && let Some(old) = self.old_frame(va)
            {
                return Some(old);
            }
            self.machine.shared.memory.alloc()
        })
    }

    fn prefill(&self, bytes: u64, _ctx: &MaySleep) -> Result<SimPrefilled, PopulateError> {
        let mut prefilled = SimPrefilled {
            shared: Arc::clone(&self.machine.shared),
            frames: Vec::new(),
        };
        for page in 0..bytes / PAGE {
            let frame = self.machine.shared.memory.alloc().ok_or(PopulateError {
                start: 0,
                asked: bytes,
                done: page * PAGE,
                errno: NO_MEMORY,
            })?;
            prefilled.frames.push(frame);
        }
        Ok(prefilled)
    }

    fn populate_from(
        &self,
        range: WindowRange,
        mut prefilled: SimPrefilled,
    ) -> Result<(), PopulateError> {
        self.fill(range, |_| prefilled.frames.pop())
    }

    fn clear(&self, ranges: &[WindowRange]) -> Result<SimTicket, UnmapError> {
        let outside = ranges.iter().any(|range| range.end().get() > self.len);
        let bytes = ranges.iter().map(|range| range.len()).sum();
        if outside {
            return Err(UnmapError::Refused { bytes, errno: 22 });
        }
        let shared = &self.machine.shared;
        let policy = shared.config.policy;
        let place = self.machine.place(SpaceId::EVERY, self.base);
        // Relaxed: a number of one's own, and nothing else.
        let batch = self.batches.fetch_add(1, Ordering::Relaxed);
        let mut freed_tables = false;
        let aimed = current::with(&self.machine, |cpu| {
            self.machine.aim_early(cpu, policy, place)
        });
        for range in ranges {
            freed_tables |= self.clear_range(*range, batch);
        }
        let first = ranges.iter().map(|range| range.start().get()).min();
        let last = ranges.iter().map(|range| range.end().get()).max();
        let (Some(first), Some(last)) = (first, last) else {
            return Ok(SimTicket {
                pending: None,
                batch,
                bytes,
            });
        };
        // One shootdown for the batch: of the stretch that covers it, as Linux gathers.
        let mut flush = Flush::pages(self.va(first), (last - first) / PAGE);
        if freed_tables {
            flush = flush.with_tables();
        }
        let pending = current::with(&self.machine, |cpu| {
            shared.engine.begin_aimed(cpu, policy, &flush, place, aimed)
        });
        Ok(SimTicket {
            pending: Some(pending),
            batch,
            bytes,
        })
    }

    fn frees_leaf_tables(&self) -> bool {
        self.machine.shared.config.frees_leaf_tables
    }

    fn is_foreign(&self) -> bool {
        false
    }

    fn relax(&self, turn: u32) {
        current::with(&self.machine, |cpu| cpu.relax(turn));
    }
}

impl Drop for SimWindow {
    /// Everything is unmapped, tables included, and flushed before the addresses can be given out again; that also ends what was
    /// left in limbo. Where no flush can be proved, addresses and frames are lost.
    fn drop(&mut self) {
        let batch = self.batches.fetch_add(1, Ordering::Relaxed);
        for part in 0..WINDOW_STRIDE >> Level::Pointers.shift() {
            let va = self.va(part << Level::Pointers.shift());
            self.clear_entry(va, Level::Pointers, batch);
        }
        let machine = self.machine.clone();
        let shared = &machine.shared;
        if Mutant::RangeReusedUnflushed.active() {
            shared.give_window_back(self.index);
            return;
        }
        let place = machine.place(SpaceId::EVERY, self.base);
        let reached = current::with_any(&machine, |cpu| {
            let flush = Flush::EVERYTHING;
            let pending = shared
                .engine
                .begin(cpu, PolicyKind::KernelRange, &flush, place);
            shared
                .engine
                .wait(cpu, &pending, Completion::WalkQuiescent)
                .ok()
        });
        let Some(reached) = reached.flatten() else {
            return;
        };
        let limbo = core::mem::take(&mut *self.limbo.lock());
        let frames: Vec<_> = limbo.into_iter().map(|limbo| limbo.frame).collect();
        if let Ok(flushed) = Flushed::after(reached, frames) {
            shared.memory.free(flushed);
            shared.give_window_back(self.index);
        }
    }
}
