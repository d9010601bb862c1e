//! Hazard: those who wait get in the way of those who work.

use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use pageless_fault::{
    Completion, FaultReason, Fetched, Machine, MaySleep, PopulateError, ReserveError, Table,
    Translations, UnmapError, Window, WindowLen, WindowOffset, WindowRange, Word,
};
use pageless_pfn::{FrameCount, PagedPfn, Pfn, PfnFlags, PfnRange, PfnT};

use crate::memmap::{Config, Memmap};

/// Turns that somebody must have waited before a fill ends.
const TURNS: u32 = 100;

struct SlowMachine;

/// One page, whose fill takes until somebody has waited for it.
struct SlowWindow {
    words: Vec<AtomicU32>,
    filling: AtomicBool,
    present: AtomicBool,
    /// Increments tried, with and without effect.
    accesses: AtomicU32,
    turns: AtomicU32,
}

impl Machine for SlowMachine {
    type Window = SlowWindow;
    fn reserve(&self, _: WindowLen, _: u64) -> Result<SlowWindow, ReserveError> {
        Ok(SlowWindow {
            words: (0..1024).map(|_| AtomicU32::new(0)).collect(),
            filling: AtomicBool::new(false),
            present: AtomicBool::new(false),
            accesses: AtomicU32::new(0),
            turns: AtomicU32::new(0),
        })
    }
}

#[derive(Clone, Copy)]
struct SlowWord<'w>(&'w SlowWindow, usize);

impl Word for SlowWord<'_> {
    fn fetch_add(self, n: u32) -> Fetched {
        self.0.accesses.fetch_add(1, Ordering::Relaxed);
        if self.0.present.load(Ordering::Acquire) {
            Fetched::old(self.0.words[self.1].fetch_add(n, Ordering::Acquire))
        } else {
            Fetched::fault(FaultReason::NotPresent)
        }
    }
    fn release(self) {
        self.0.words[self.1].fetch_sub(1, Ordering::Release);
    }
    fn compare_exchange(self, current: u32, new: u32) -> Result<u32, u32> {
        self.0.words[self.1].compare_exchange(current, new, Ordering::AcqRel, Ordering::Relaxed)
    }
    fn exchange(self, new: u32) -> u32 {
        self.0.words[self.1].swap(new, Ordering::Release)
    }
    fn load(self, order: Ordering) -> u32 {
        self.0.words[self.1].load(order)
    }
    fn store(self, value: u32, order: Ordering) {
        self.0.words[self.1].store(value, order);
    }
}

#[derive(Clone, Copy)]
struct SlowTable<'w, const STRIDE: u64>(&'w SlowWindow);

impl<'w, const STRIDE: u64> Table for SlowTable<'w, STRIDE> {
    type Word = SlowWord<'w>;
    fn nth(self, index: u64) -> Option<SlowWord<'w>> {
        self.0.word(WindowOffset::new(index * STRIDE))
    }
}

impl Translations for SlowWindow {
    type Ticket = ();

    fn wait(&self, (): &(), _: &MaySleep) -> Result<Completion, UnmapError> {
        Ok(Completion::WalkQuiescent)
    }
}

impl Window for SlowWindow {
    type Word<'w> = SlowWord<'w>;
    type Table<'w, const STRIDE: u64> = SlowTable<'w, STRIDE>;
    type Prefilled = ();
    fn table<const STRIDE: u64>(&self, _: u64) -> Option<SlowTable<'_, STRIDE>> {
        Some(SlowTable(self))
    }
    fn word(&self, at: WindowOffset) -> Option<SlowWord<'_>> {
        let word = (at.get() / 4) as usize;
        (word < self.words.len()).then_some(SlowWord(self, word))
    }
    fn populate(&self, _: WindowRange, _: &MaySleep) -> Result<(), PopulateError> {
        self.filling.store(true, Ordering::Release);
        while self.turns.load(Ordering::Acquire) < TURNS {
            std::thread::yield_now();
        }
        self.present.store(true, Ordering::Release);
        Ok(())
    }
    fn prefill(&self, _: u64, _: &MaySleep) -> Result<(), PopulateError> {
        Ok(())
    }
    fn populate_from(&self, _: WindowRange, (): ()) -> Result<(), PopulateError> {
        Ok(())
    }
    fn clear(&self, _: &[WindowRange]) -> Result<(), UnmapError> {
        Ok(())
    }
    fn frees_leaf_tables(&self) -> bool {
        true
    }
    fn is_foreign(&self) -> bool {
        false
    }
    fn relax(&self, _: u32) {
        self.turns.fetch_add(1, Ordering::Release);
        std::thread::yield_now();
    }
}

fn paged(n: u64) -> PagedPfn {
    PfnT::new(Pfn::try_new(n).unwrap(), PfnFlags::MAP)
        .paged()
        .unwrap()
}

#[test]
fn whoever_waits_for_a_fill_faults_once_however_long_it_takes() {
    let pfns = PfnRange::try_new(Pfn::try_new(0).unwrap(), FrameCount::new(64)).unwrap();
    let memmap = Memmap::attach(&SlowMachine, pfns, Config::default()).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| drop(memmap.get(&MaySleep::claim(), paged(0)).unwrap()));
        while !memmap.window.filling.load(Ordering::Acquire) {
            std::thread::yield_now();
        }
        drop(memmap.get(&MaySleep::claim(), paged(1)).unwrap());
    });
    assert!(memmap.window.turns.load(Ordering::Relaxed) >= TURNS);
    // Each of the two faults once, and then has its reference.
    assert_eq!(memmap.window.accesses.load(Ordering::Relaxed), 4);
    assert_eq!(memmap.counters().waits, 1);
}
