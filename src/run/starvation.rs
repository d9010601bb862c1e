//! Whether it is of use to wait for pins of others.
//!
//! A thread waits only when nothing of its own is in flight, so it holds no pins. Once every
//! thread that is left waits, nobody will give anything back. Waiting is rare: threads that find
//! room never come here, apart from saying that they have ended.

use core::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The threads of a group that have not ended, and how many of them wait.
#[derive(Debug)]
pub(super) struct Starvation {
    running: AtomicUsize,
    /// Waiters try again one at a time: otherwise one that finds no room could not tell whether
    /// another waiter has just taken it.
    waiting: Mutex<usize>,
}

/// A thread's word that it has not ended.
#[derive(Debug)]
pub(super) struct Running<'a>(&'a Starvation);

/// A thread's word that it waits and holds nothing.
#[derive(Debug)]
pub(super) struct Waiter<'a> {
    starvation: &'a Starvation,
    waits: bool,
}

/// What came of another attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Attempt {
    /// There was room.
    Done,
    /// There was none; others may still give some back.
    Later,
    /// There was none, and everybody waits.
    Never,
}

impl Starvation {
    /// For so many threads, none of which has ended.
    pub(super) const fn new(threads: usize) -> Self {
        Self {
            running: AtomicUsize::new(threads),
            waiting: Mutex::new(0),
        }
    }

    /// To be held by each of the threads until it ends.
    pub(super) const fn running(&self) -> Running<'_> {
        Running(self)
    }

    /// To be held while a thread waits.
    pub(super) fn wait(&self) -> Waiter<'_> {
        *self.lock() += 1;
        Waiter {
            starvation: self,
            waits: true,
        }
    }

    fn lock(&self) -> MutexGuard<'_, usize> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiter<'_> {
    /// Tries again, while no other waiter does. After success this waits no longer.
    pub(super) fn attempt(&mut self, again: impl FnOnce() -> bool) -> Attempt {
        let mut waiting = self.starvation.lock();
        // Read before the attempt: a thread that ends meanwhile may give back too late for it.
        let everybody = *waiting >= self.starvation.running.load(Ordering::Acquire);
        if again() {
            if core::mem::take(&mut self.waits) {
                *waiting -= 1;
            }
            Attempt::Done
        } else if everybody {
            Attempt::Never
        } else {
            Attempt::Later
        }
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        if self.waits {
            *self.starvation.lock() -= 1;
        }
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::Release);
    }
}
