//! How a bio comes back: a completion, and who gets it.

use alloc::boxed::Box;
use alloc::sync::Arc;
use core::fmt;
use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll, Waker};

use pageless_pfn::ByteLen;

use crate::bio::{Bio, Inner};
use crate::position::Sector;
use crate::status::BlkError;
use crate::sync::Lock;

/// A bio that has come back, and how it went.
#[must_use = "says whether the bio succeeded"]
pub struct Completion(Bio);

impl Completion {
    #[inline]
    pub(crate) fn new(inner: Box<Inner>) -> Self {
        Self(Bio::from_inner(inner))
    }

    /// How it went.
    ///
    /// # Errors
    /// The status of the first of its bytes that failed.
    #[inline]
    pub fn result(&self) -> Result<(), BlkError> {
        self.0.inner.result
    }

    /// Bytes from its start on that are known to be done: all of them if it succeeded, those before the
    /// first failure otherwise. Of the bytes after that nothing is known.
    #[inline]
    pub fn done(&self) -> ByteLen {
        ByteLen::new(self.0.inner.done)
    }

    /// For an append that succeeded: the sector it was written to.
    #[inline]
    pub fn written(&self) -> Option<Sector> {
        // A bio that is used again keeps what an earlier success has left there.
        self.0.inner.result.ok().and(self.0.inner.written)
    }

    /// The caller's number.
    #[inline]
    pub fn token(&self) -> u64 {
        self.0.inner.token
    }

    /// The bio as it was submitted. Its frames are the caller's again.
    #[inline]
    pub fn into_bio(self) -> Bio {
        self.0
    }

    /// The bio as it was submitted, for a look.
    #[inline]
    pub fn bio(&self) -> &Bio {
        &self.0
    }
}

impl fmt::Debug for Completion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Completion")
            .field("bio", &self.0)
            .field("result", &self.result())
            .field("done", &self.done())
            .finish()
    }
}

/// Who gets the completion of a bio.
pub(crate) enum Notify {
    /// Whoever reaps the context it was submitted to.
    Reap,
    /// A function.
    Call(Box<dyn FnOnce(Completion) + Send>),
    /// A future.
    Ticket(Arc<Slot>),
}

/// Where a completion waits for the [`Ticket`] that asks for it.
pub(crate) struct Slot(Lock<State>);

/// `Waiting` -> `Done` -> `Taken`; a ticket that is gone leaves a slot that nobody looks into.
enum State {
    /// Not finished; whom to wake.
    Waiting(Option<Waker>),
    /// Finished, not fetched.
    Done(Completion),
    /// Fetched.
    Taken,
}

impl Slot {
    /// The bio is back.
    pub(crate) fn fill(&self, completion: Completion) {
        let before = core::mem::replace(&mut *self.0.lock(), State::Done(completion));
        // The lock is free again: the waker may do anything.
        if let State::Waiting(Some(waker)) = before {
            waker.wake();
        }
    }
}

/// A future of a bio's completion. Made by [`Bio::with_ticket`].
///
/// It does no I/O: somebody has to submit the bio, and to poll its queue where the device finishes
/// later. After it has been ready it must not be polled again.
///
/// # Panics
/// When polled after it was ready.
#[must_use = "the completion comes from it"]
pub struct Ticket(Arc<Slot>);

impl Ticket {
    pub(crate) fn new() -> (Self, Arc<Slot>) {
        let slot = Arc::new(Slot(Lock::new(State::Waiting(None))));
        (Self(Arc::clone(&slot)), slot)
    }

    /// The completion, if the bio is back and it has not been fetched.
    pub fn try_take(&mut self) -> Option<Completion> {
        let mut state = self.0.0.lock();
        match core::mem::replace(&mut *state, State::Taken) {
            State::Done(completion) => Some(completion),
            other => {
                *state = other;
                None
            }
        }
    }
}

impl Future for Ticket {
    type Output = Completion;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Completion> {
        let mut state = self.0.0.lock();
        match core::mem::replace(&mut *state, State::Taken) {
            State::Done(completion) => Poll::Ready(completion),
            State::Waiting(before) => {
                let waker = match before {
                    Some(waker) if waker.will_wake(cx.waker()) => waker,
                    _ => cx.waker().clone(),
                };
                *state = State::Waiting(Some(waker));
                Poll::Pending
            }
            State::Taken => panic!("a ticket was polled after its completion had been taken"),
        }
    }
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ticket(..)")
    }
}
