//! A machine with one translation for each page, an explicit time between clearing a translation and
//! the end of its shootdown, and a hook at each step.
//!
//! While a page is cleared but not flushed, a CPU may still use the old translation or may already
//! miss: `stale` decides which, so that a test can have either.

use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock};

use pageless_fault::{
    Completion, FaultReason, Fetched, Machine, MaySleep, PopulateError, ReserveError, Table,
    Translations, UnmapError, Window, WindowLen, WindowOffset, WindowRange, Word,
};

const PAGE: u64 = 4096;
const WORDS: usize = PAGE as usize / 4;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Translation {
    Absent,
    Present,
    /// Cleared, and not yet proved gone from every CPU.
    Cleared,
}

/// What is about to happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    Populate(u64),
    Prefill,
    Clear,
    /// All entries are cleared; the shootdown is under way.
    Flush,
    /// A descriptor word, by offset, is about to be frozen.
    Freeze(u64),
}

type Hook = Arc<dyn Fn(Step) + Send + Sync>;

#[derive(Default)]
pub(crate) struct Control {
    hook: Mutex<Option<Hook>>,
    /// Whether CPUs still hit the old translation between clearing and flushing.
    pub(crate) stale: AtomicBool,
    /// What no correct core ever does.
    pub(crate) violations: Mutex<Vec<String>>,
    /// The next populate brings this many bytes in and then fails.
    pub(crate) short_fill: Mutex<Option<u64>>,
    /// Shootdowns come no further than this.
    pub(crate) grade: Mutex<Option<Completion>>,
}

impl Control {
    pub(crate) fn on(&self, hook: impl Fn(Step) + Send + Sync + 'static) {
        *self.hook.lock().unwrap() = Some(Arc::new(hook));
    }

    pub(crate) fn off(&self) {
        *self.hook.lock().unwrap() = None;
    }

    fn step(&self, step: Step) {
        let hook = self.hook.lock().unwrap().clone();
        if let Some(hook) = hook {
            hook(step);
        }
    }

    fn violation(&self, what: String) {
        self.violations.lock().unwrap().push(what);
    }

    pub(crate) fn assert_clean(&self) {
        let violations = self.violations.lock().unwrap();
        assert!(violations.is_empty(), "{violations:?}");
    }
}

#[derive(Clone, Default)]
pub(crate) struct ModelMachine {
    pub(crate) control: Arc<Control>,
}

pub(crate) struct ModelWindow {
    /// Each page's words, made when it is first filled: most never are.
    memory: Vec<OnceLock<Box<[AtomicU32; WORDS]>>>,
    pages: Mutex<Vec<Translation>>,
    control: Arc<Control>,
}

impl Machine for ModelMachine {
    type Window = ModelWindow;

    fn reserve(&self, len: WindowLen, _largest: u64) -> Result<ModelWindow, ReserveError> {
        Ok(ModelWindow {
            memory: (0..len.get() / PAGE).map(|_| OnceLock::new()).collect(),
            pages: Mutex::new(vec![Translation::Absent; (len.get() / PAGE) as usize]),
            control: Arc::clone(&self.control),
        })
    }
}

impl ModelWindow {
    fn pages(&self) -> MutexGuard<'_, Vec<Translation>> {
        self.pages.lock().unwrap()
    }

    fn fill(&self, range: WindowRange) -> Result<(), PopulateError> {
        self.control.step(Step::Populate(range.start().get()));
        let short = self.control.short_fill.lock().unwrap().take();
        let bytes = short.unwrap_or(range.len());
        let mut pages = self.pages();
        for page in range.start().get() / PAGE..(range.start().get() + bytes) / PAGE {
            if pages[page as usize] != Translation::Absent {
                self.control.violation(format!(
                    "page {page} filled while {:?}",
                    pages[page as usize]
                ));
            }
            let memory = &self.memory[page as usize];
            for word in memory.get().into_iter().flat_map(|words| words.iter()) {
                word.store(0, Ordering::Relaxed);
            }
            memory.get_or_init(|| Box::new([const { AtomicU32::new(0) }; WORDS]));
            pages[page as usize] = Translation::Present;
        }
        match short {
            None => Ok(()),
            Some(done) => Err(PopulateError {
                start: range.start().get(),
                asked: range.len(),
                done,
                errno: 12,
            }),
        }
    }
}

pub(crate) struct ModelTable<'w, const STRIDE: u64> {
    window: &'w ModelWindow,
    count: u64,
}

impl<const STRIDE: u64> Clone for ModelTable<'_, STRIDE> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<const STRIDE: u64> Copy for ModelTable<'_, STRIDE> {}

impl<'w, const STRIDE: u64> Table for ModelTable<'w, STRIDE> {
    type Word = ModelWord<'w>;

    fn nth(self, index: u64) -> Option<ModelWord<'w>> {
        (index < self.count).then(|| ModelWord {
            window: self.window,
            at: index * STRIDE,
        })
    }
}

#[derive(Clone, Copy)]
pub(crate) struct ModelWord<'w> {
    window: &'w ModelWindow,
    at: u64,
}

impl ModelWord<'_> {
    /// The word, if a CPU finds a translation for it. The lock makes the access one instruction.
    fn access<T>(self, effect: impl FnOnce(&AtomicU32) -> T) -> Option<T> {
        let pages = self.window.pages();
        let hit = match pages[(self.at / PAGE) as usize] {
            Translation::Present => true,
            Translation::Cleared => self.window.control.stale.load(Ordering::Relaxed),
            Translation::Absent => false,
        };
        hit.then(|| {
            let words = self.window.memory[(self.at / PAGE) as usize].get().unwrap();
            effect(&words[(self.at % PAGE / 4) as usize])
        })
    }

    /// For accesses that are made only where memory is known to be.
    fn held<T>(self, effect: impl FnOnce(&AtomicU32) -> T) -> T {
        self.access(effect)
            .unwrap_or_else(|| panic!("access to absent memory at {:#x}", self.at))
    }
}

impl Word for ModelWord<'_> {
    fn fetch_add(self, n: u32) -> Fetched {
        self.access(|word| Fetched::old(word.fetch_add(n, Ordering::Acquire)))
            .unwrap_or(Fetched::fault(FaultReason::NotPresent))
    }

    fn release(self) {
        self.held(|word| word.fetch_sub(1, Ordering::Release));
    }

    fn compare_exchange(self, current: u32, new: u32) -> Result<u32, u32> {
        if new == pageless_memmap::FROZEN {
            self.window.control.step(Step::Freeze(self.at));
        }
        self.held(|word| word.compare_exchange(current, new, Ordering::AcqRel, Ordering::Relaxed))
    }

    fn exchange(self, new: u32) -> u32 {
        self.held(|word| word.swap(new, Ordering::Release))
    }

    fn load(self, order: Ordering) -> u32 {
        self.held(|word| word.load(order))
    }

    fn store(self, value: u32, order: Ordering) {
        self.held(|word| word.store(value, order));
    }
}

impl Translations for ModelWindow {
    type Ticket = Vec<WindowRange>;

    fn wait(&self, ranges: &Vec<WindowRange>, _ctx: &MaySleep) -> Result<Completion, UnmapError> {
        self.control.step(Step::Flush);
        if let Some(grade) = self.control.grade.lock().unwrap().take() {
            return Ok(grade);
        }
        let mut pages = self.pages();
        for range in ranges {
            for page in range.start().get() / PAGE..range.end().get() / PAGE {
                if pages[page as usize] == Translation::Cleared {
                    pages[page as usize] = Translation::Absent;
                }
            }
        }
        Ok(Completion::WalkQuiescent)
    }
}

impl Window for ModelWindow {
    type Word<'w> = ModelWord<'w>;
    type Table<'w, const STRIDE: u64> = ModelTable<'w, STRIDE>;
    type Prefilled = ();

    fn table<const STRIDE: u64>(&self, count: u64) -> Option<ModelTable<'_, STRIDE>> {
        Some(ModelTable {
            window: self,
            count,
        })
    }

    fn word(&self, at: WindowOffset) -> Option<ModelWord<'_>> {
        (at.get() < self.memory.len() as u64 * PAGE).then(|| ModelWord {
            window: self,
            at: at.get(),
        })
    }

    fn populate(&self, range: WindowRange, _ctx: &MaySleep) -> Result<(), PopulateError> {
        self.fill(range)
    }

    fn prefill(&self, _bytes: u64, _ctx: &MaySleep) -> Result<(), PopulateError> {
        self.control.step(Step::Prefill);
        Ok(())
    }

    fn populate_from(&self, range: WindowRange, _prefilled: ()) -> Result<(), PopulateError> {
        self.fill(range)
    }

    fn clear(&self, ranges: &[WindowRange]) -> Result<Vec<WindowRange>, UnmapError> {
        self.control.step(Step::Clear);
        let mut pages = self.pages();
        for range in ranges {
            for page in range.start().get() / PAGE..range.end().get() / PAGE {
                if pages[page as usize] == Translation::Present {
                    pages[page as usize] = Translation::Cleared;
                }
            }
        }
        Ok(ranges.to_vec())
    }

    fn frees_leaf_tables(&self) -> bool {
        true
    }

    fn is_foreign(&self) -> bool {
        false
    }

    fn relax(&self, _turn: u32) {
        std::thread::yield_now();
    }
}
