//! The sides: ours, the raw machinery, the kernel's own fault. Each runs in a process of its own and
//! answers what it is asked.

use super::{
    cpus,
    mapping::{Mapping, PAGE, Pages},
    ours::Ours,
    places::{Places, Tables, WINDOW},
    raw::{self, RawWindow},
    sides,
};
use core::{
    hint,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::Duration,
};
use std::{thread, time::Instant};

/// Chunks in one reclaim.
pub(crate) const BATCH: u64 = 32;

/// A window whose pages are present once they have been touched.
pub(crate) trait Window: Sized {
    /// A window of [`WINDOW`] bytes, nothing in it present.
    fn fresh() -> Self;

    /// Touches a page by number: takes a reference to a descriptor in it and puts it.
    fn touch(&self, page: u64);
}

/// The kernel's own anonymous memory, on 4 KiB pages.
pub(crate) struct Anonymous(Mapping);

impl Window for Anonymous {
    fn fresh() -> Self {
        Self(Mapping::new(WINDOW as usize, Pages::Small))
    }

    fn touch(&self, page: u64) {
        touch(self.0.start(), page);
    }
}

impl Window for RawWindow {
    fn fresh() -> Self {
        Self::new(WINDOW as usize).unwrap()
    }

    fn touch(&self, page: u64) {
        touch(self.start(), page);
    }
}

/// Increment and decrement of the count at the start of a page.
fn touch(start: *mut u8, page: u64) {
    let at = start.wrapping_add(page as usize * PAGE).cast::<AtomicU64>();
    // SAFETY: pages of a run lie in the window that `start` begins, mapped for reading and writing,
    // and are only ever used as atomics.
    let count = unsafe { &*at };
    count.fetch_add(1, Ordering::Acquire);
    count.fetch_sub(1, Ordering::Release);
}

/// A window in use, replaced by a fresh one when all its places have been touched.
struct Run<W> {
    window: W,
    places: Places,
    tables: Tables,
}

impl<W: Window> Run<W> {
    fn new(tables: Tables) -> Self {
        let (window, places) = (W::fresh(), Places::new(tables));
        for page in places.prepared() {
            window.touch(page);
        }
        Self {
            window,
            places,
            tables,
        }
    }

    /// Nanoseconds for each of `touches` first touches.
    fn sample(&mut self, touches: usize) -> f64 {
        let mut pages: Vec<u64> = Vec::with_capacity(touches);
        while pages.len() < touches {
            match self.places.next() {
                Some(page) => pages.push(page),
                None => {
                    pages.clear();
                    *self = Self::new(self.tables);
                }
            }
        }
        let start = Instant::now();
        for page in pages {
            self.window.touch(page);
        }
        start.elapsed().as_nanos() as f64 / touches as f64
    }
}

/// Serves "warm N" and "cold N": nanoseconds for each of N first touches.
fn serve_touches<W: Window>() {
    cpus::pin(0);
    let mut warm = Run::<W>::new(Tables::Warm);
    warm.sample(64);
    // Made when first asked for, and in place of the other: a process has one raw window at a time.
    let mut run = warm;
    sides::serve(|question| {
        let (tables, touches) = question.split_once(' ').unwrap();
        let tables = match tables {
            "warm" => Tables::Warm,
            _ => Tables::Cold,
        };
        if run.tables != tables {
            run = Run::new(tables);
            run.sample(64);
        }
        vec![run.sample(touches.parse().unwrap())]
    });
}

/// How a side gives [`BATCH`] present pages back.
trait Reclaim {
    /// Makes the pages of the next batch present.
    fn prepare(&mut self);

    /// Takes them away again.
    fn reclaim(&mut self);
}

/// Another thread of the process, which runs on the other CPU while it is wanted and so has to be
/// told of every translation that goes.
struct Other {
    wanted: AtomicBool,
    turns: AtomicU64,
}

impl Other {
    /// The life of that thread.
    fn live(&self) -> ! {
        cpus::pin(1);
        loop {
            while self.wanted.load(Ordering::Acquire) {
                self.turns.fetch_add(1, Ordering::Relaxed);
            }
            thread::park();
        }
    }

    /// Waits until it is seen running.
    fn wait_until_running(&self) {
        let before = self.turns.load(Ordering::Relaxed);
        while self.turns.load(Ordering::Relaxed) < before + 100 {
            hint::spin_loop();
        }
    }
}

/// Reclaims in one sample.
const RECLAIMS: u64 = 8;

/// Serves any question: nanoseconds for each of some reclaims while another thread runs.
fn serve_reclaim(mut side: impl Reclaim) {
    static OTHER: Other = Other {
        wanted: AtomicBool::new(false),
        turns: AtomicU64::new(0),
    };
    let other = thread::spawn(|| OTHER.live());
    cpus::pin(0);
    sides::serve(|_| {
        OTHER.wanted.store(true, Ordering::Release);
        other.thread().unpark();
        let mut taken = Duration::ZERO;
        for _ in 0..RECLAIMS {
            side.prepare();
            OTHER.wait_until_running();
            let start = Instant::now();
            side.reclaim();
            taken += start.elapsed();
        }
        // Only the side that is asked keeps the other CPU busy.
        OTHER.wanted.store(false, Ordering::Release);
        vec![taken.as_nanos() as f64 / RECLAIMS as f64]
    });
}

/// One `madvise` over contiguous pages of plain memory.
struct Contiguous(Anonymous);

impl Reclaim for Contiguous {
    fn prepare(&mut self) {
        (0..BATCH).for_each(|page| self.0.touch(page));
    }

    fn reclaim(&mut self) {
        let bytes = BATCH as usize * PAGE;
        // SAFETY: the range lies in the mapping, which nobody holds a reference into.
        let done = unsafe { libc::madvise(self.0.0.start().cast(), bytes, libc::MADV_DONTNEED) };
        assert_eq!(done, 0, "MADV_DONTNEED refused");
    }
}

/// One `process_madvise` over scattered pages of a raw window.
struct Vectored {
    window: RawWindow,
    pages: Vec<u64>,
}

impl Reclaim for Vectored {
    fn prepare(&mut self) {
        self.pages.iter().for_each(|page| self.window.touch(*page));
    }

    fn reclaim(&mut self) {
        let page = |page: &u64| raw::page_vector(self.window.start(), *page);
        let vectors: Vec<_> = self.pages.iter().map(page).collect();
        // SAFETY: all pages lie in the window, which nobody holds a reference into.
        unsafe { raw::unmap_scattered(&vectors) }.unwrap();
    }
}

/// Ours, the oldest chunks of many: as one batch, or as many.
struct Ordered {
    ours: Ours,
    places: Places,
    one_by_one: bool,
}

impl Ordered {
    fn new(one_by_one: bool) -> Self {
        let mut side = Self {
            ours: Ours::fresh(),
            places: Places::new(Tables::Warm),
            one_by_one,
        };
        // What is prepared last stays, so no page table ever becomes empty.
        (0..8).for_each(|_| side.prepare());
        side
    }
}

impl Reclaim for Ordered {
    fn prepare(&mut self) {
        for _ in 0..BATCH {
            let page = self.places.next().unwrap_or_else(|| {
                self.places = Places::new(Tables::Warm);
                self.places.next().unwrap()
            });
            self.ours.touch(page);
        }
    }

    fn reclaim(&mut self) {
        let steps = if self.one_by_one { BATCH } else { 1 };
        (0..steps).for_each(|_| self.ours.reclaim(BATCH / steps));
    }
}

/// The sides, by name: what is measured of each.
pub(crate) const TOUCH_OURS: &str = "touch ours";
pub(crate) const TOUCH_RAW: &str = "touch raw";
pub(crate) const TOUCH_ANONYMOUS: &str = "touch anonymous";
pub(crate) const RECLAIM_OURS: &str = "reclaim ours";
pub(crate) const RECLAIM_SINGLY: &str = "reclaim ours one by one";
pub(crate) const RECLAIM_CONTIGUOUS: &str = "reclaim contiguous";
pub(crate) const RECLAIM_VECTORED: &str = "reclaim vectored";
pub(crate) const ATTACH: &str = "attach";

/// Serves as the side called `name` until there are no more questions.
pub(crate) fn serve(name: &str) {
    match name {
        TOUCH_OURS => serve_touches::<Ours>(),
        TOUCH_RAW => serve_touches::<RawWindow>(),
        TOUCH_ANONYMOUS => serve_touches::<Anonymous>(),
        RECLAIM_OURS => serve_reclaim(Ordered::new(false)),
        RECLAIM_SINGLY => serve_reclaim(Ordered::new(true)),
        RECLAIM_CONTIGUOUS => serve_reclaim(Contiguous(Anonymous::fresh())),
        RECLAIM_VECTORED => {
            let mut places = Places::new(Tables::Warm);
            let window = RawWindow::fresh();
            places
                .prepared()
                .iter()
                .for_each(|page| window.touch(*page));
            let pages = (0..BATCH).map(|_| places.next().unwrap()).collect();
            serve_reclaim(Vectored { window, pages });
        }
        ATTACH => sides::serve(|_| super::ours::attach()),
        _ => panic!("no side is called {name:?}"),
    }
}
