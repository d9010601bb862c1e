//! Where finished requests wait for the context they belong to.
//!
//! Several contexts may share a hardware queue, and whoever polls the device finds the requests of all of
//! them. A request that belongs to another context is put into that one's mailbox, and so is a bio
//! whose last part finished elsewhere.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::sync::Arc;

use crate::bio;
use crate::request::{Done, Request};
use crate::sync::Lock;
use crate::sync::atomic::{AtomicUsize, Ordering};

/// What others have for a context.
#[derive(Debug)]
pub(crate) enum Letter {
    /// A request the device has finished with.
    Request(Done),
    /// A bio all of whose parts are done.
    Bio(Box<bio::Inner>),
}

/// What others have found for one context.
#[derive(Debug)]
pub(crate) struct Mailbox {
    letters: Lock<VecDeque<Letter>>,
    /// How many there are: 0 is what the owner sees nearly always, without taking the lock.
    count: AtomicUsize,
}

impl Mailbox {
    pub(crate) fn new() -> Self {
        Self {
            letters: Lock::default(),
            count: AtomicUsize::new(0),
        }
    }

    /// Puts a letter in.
    pub(crate) fn push(&self, letter: Letter) {
        let mut letters = self.letters.lock();
        letters.push_back(letter);
        // Release, for `pop`; what matters is behind the lock in any case.
        self.count.store(letters.len(), Ordering::Release);
    }

    /// Takes the one out that has been there longest.
    #[inline]
    pub(crate) fn pop(&self) -> Option<Letter> {
        // Acquire: pairs with the Release in `push`. A letter that is missed is seen the next time.
        if self.count.load(Ordering::Acquire) == 0 {
            return None;
        }
        self.pop_slow()
    }

    #[cold]
    fn pop_slow(&self) -> Option<Letter> {
        let mut letters = self.letters.lock();
        let letter = letters.pop_front();
        self.count.store(letters.len(), Ordering::Release);
        letter
    }

    /// Puts `done` into the mailbox of the context it belongs to.
    pub(crate) fn send_home(done: Done) {
        match done.0.0.home.clone() {
            Some(home) => home.push(Letter::Request(done)),
            // A queue's own flush: whoever finds it sees to it, and never comes here.
            None => panic!("driver bug: {done:?} belongs to nobody who submits here"),
        }
    }

    /// Whether this is the home of `request`.
    #[inline]
    pub(crate) fn is_home(self: &Arc<Self>, request: &Request) -> bool {
        request
            .0
            .home
            .as_ref()
            .is_some_and(|home| Arc::ptr_eq(home, self))
    }
}
