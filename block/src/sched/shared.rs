//! A scheduler as the contexts of a queue share it.

use alloc::boxed::Box;

use super::Elevator;
use crate::clock::Nanos;
use crate::limits::Limits;
use crate::request::Request;
use crate::request::merge::{Incoming, Merge};
use crate::sync::Lock;
use crate::sync::atomic::{AtomicUsize, Ordering};

/// An [`Elevator`] under a lock, and beside it how many requests it has: who finds none there has no use
/// for the lock.
pub(crate) struct SharedElevator {
    elevator: Lock<Box<dyn Elevator>>,
    /// What [`Elevator::len`] said last. Written under the lock, read without.
    ///
    /// A reader that misses an insertion gives up where it could have gone on. That loses nothing: who has
    /// inserted dispatches next, and whoever waits for a completion polls, which dispatches too.
    waiting: AtomicUsize,
}

impl SharedElevator {
    pub(crate) fn new(elevator: Box<dyn Elevator>) -> Self {
        Self {
            waiting: AtomicUsize::new(elevator.len()),
            elevator: Lock::new(elevator),
        }
    }

    /// As [`Elevator::merge`].
    #[inline]
    pub(crate) fn merge(&self, incoming: Incoming, limits: &Limits) -> Result<Merge, Incoming> {
        // Relaxed: the requests are behind the lock, this is a number.
        if self.waiting.load(Ordering::Relaxed) == 0 {
            return Err(incoming);
        }
        self.elevator.lock().merge(incoming, limits)
    }

    /// As [`Elevator::insert`].
    #[inline]
    pub(crate) fn insert(&self, request: Request, now: Nanos) -> Result<(), Request> {
        let mut elevator = self.elevator.lock();
        let inserted = elevator.insert(request, now);
        // Relaxed here and below: as in `merge`.
        self.waiting.store(elevator.len(), Ordering::Relaxed);
        inserted
    }

    /// As [`Elevator::dispatch`].
    #[inline]
    pub(crate) fn dispatch(&self, now: Nanos) -> Option<Request> {
        if self.waiting.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let mut elevator = self.elevator.lock();
        let request = elevator.dispatch(now);
        self.waiting.store(elevator.len(), Ordering::Relaxed);
        request
    }
}
