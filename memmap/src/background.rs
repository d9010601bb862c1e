//! The background reclaimer: a thread that keeps what is held between the watermarks, so that those who
//! fault need not.

use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use pageless_fault::{MaySleep, Window};

use crate::memmap::Memmap;
use crate::reclaim::Goal;

/// A thread that reclaims for one memmap. Stopped and joined on drop.
#[derive(Debug)]
pub struct BackgroundReclaimer<W: Window + 'static> {
    memmap: Arc<Memmap<W>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl<W: Window + 'static> BackgroundReclaimer<W>
where
    W::Prefilled: 'static,
{
    /// Starts the thread. A memmap has one at most: a second one takes over from the first, which then
    /// sleeps until it is dropped.
    ///
    /// # Errors
    ///
    /// The system has no thread to give.
    pub fn start(memmap: Arc<Memmap<W>>) -> std::io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let thread = std::thread::Builder::new()
            .name(String::from("pageless-reclaim"))
            .spawn({
                let memmap = Arc::clone(&memmap);
                let stop = Arc::clone(&stop);
                move || run(&memmap, &stop)
            })?;
        memmap.books.lock().background = Some(thread.thread().clone());
        Ok(BackgroundReclaimer {
            memmap,
            stop,
            thread: Some(thread),
        })
    }
}

fn run<W: Window>(memmap: &Memmap<W>, stop: &AtomicBool) {
    let ctx = MaySleep::claim();
    // Acquire pairs with the Release in `drop`.
    while !stop.load(Ordering::Acquire) {
        let charged = memmap.books.lock().directory.charged();
        let mut progress = false;
        if charged > memmap.budget.high() {
            let goal = Goal {
                down_to: memmap.budget.low(),
                scan: usize::MAX,
            };
            // A failed flush is in the counters, and will meet whoever faults next.
            progress = memmap
                .background_reclaim(&ctx, goal)
                .is_ok_and(|reclaimed| reclaimed.chunks > 0);
        }
        let _ = memmap.refill_reserve(&ctx);
        if !progress {
            std::thread::park();
        }
    }
}

impl<W: Window> Drop for BackgroundReclaimer<W> {
    fn drop(&mut self) {
        let Some(thread) = self.thread.take() else {
            return;
        };
        // In a forked child there is no such thread, and nobody to let go of a lock held at the fork.
        if self.memmap.window.is_foreign() {
            return;
        }
        let mut books = self.memmap.books.lock();
        if books
            .background
            .as_ref()
            .is_some_and(|background| background.id() == thread.thread().id())
        {
            books.background = None;
        }
        drop(books);
        // Release pairs with the Acquire in `run`.
        self.stop.store(true, Ordering::Release);
        thread.thread().unpark();
        // A panic in the reclaimer has been reported by its own thread.
        let _ = thread.join();
    }
}
