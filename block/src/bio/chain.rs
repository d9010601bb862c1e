//! What joins a bio with its parts: the pieces it was split into, or bios chained to it.
//!
//! ```text
//!  part ---Link--+                          whoever brings `remaining` to 0 takes the whole out,
//!  part ---Link--+--> Chain { remaining,    and completes it in its own call
//!  part ---Link--+            whole }
//! ```

use alloc::boxed::Box;
use alloc::sync::Arc;
use core::fmt;

use crate::bio::Inner;
use crate::queue::mailbox::{Letter, Mailbox};
use crate::status::BlkError;
use crate::sync::Lock;
use crate::sync::atomic::{AtomicU32, Ordering};

/// A bio that waits for its parts.
pub(crate) struct Chain {
    /// What is still to come: each part that has not finished, and 1 until the whole is parked here.
    ///
    /// 0: all is over; who brought it there has the whole.
    remaining: AtomicU32,
    outcome: Lock<Outcome>,
    /// Whether the parts are pieces of the whole, which then has no outcome of its own.
    pieces: bool,
}

/// A bio, and the mailbox of the context it was submitted to.
type Whole = (Box<Inner>, Arc<Mailbox>);

#[derive(Default)]
struct Outcome {
    whole: Option<Whole>,
    /// The first failure, by its place in the whole: bytes before it, and what it was.
    failure: Option<(u64, BlkError)>,
}

impl Chain {
    fn new(pieces: bool) -> Self {
        Self {
            remaining: AtomicU32::new(1),
            outcome: Lock::default(),
            pieces,
        }
    }

    /// A chain whose parts are pieces of one bio.
    pub(crate) fn of_pieces() -> Arc<Self> {
        Arc::new(Self::new(true))
    }

    /// A link of a further part to `whole`.
    pub(crate) fn of(whole: &mut Inner) -> Link {
        let chain = whole
            .waits_for
            .get_or_insert_with(|| Arc::new(Self::new(false)));
        Self::link(chain)
    }

    /// A link for one more part. The whole must not be parked yet.
    pub(crate) fn link(self: &Arc<Self>) -> Link {
        // Relaxed: the count is at least 1 until `park`, which comes after this in program order.
        self.remaining.fetch_add(1, Ordering::Relaxed);
        Link {
            chain: Arc::clone(self),
            settled: false,
        }
    }

    /// The whole has no part for its bytes from `at` on: they failed.
    pub(crate) fn fail(&self, at: u64, error: BlkError) {
        let failure = &mut self.outcome.lock().failure;
        if failure.is_none_or(|(first, _)| at < first) {
            *failure = Some((at, error));
        }
    }

    /// Leaves the whole here until its parts are done; gives it back if they are.
    pub(crate) fn park(&self, whole: Box<Inner>, home: &Arc<Mailbox>) -> Option<Whole> {
        self.outcome.lock().whole = Some((whole, Arc::clone(home)));
        self.one_less()
    }

    fn one_less(&self) -> Option<Whole> {
        // AcqRel: who brings it to 0 sees what the others did before their own decrement.
        if self.remaining.fetch_sub(1, Ordering::AcqRel) != 1 {
            return None;
        }
        let mut outcome = self.outcome.lock();
        let (mut whole, home) = outcome.whole.take()?;
        match outcome.failure {
            Some((at, error)) if self.pieces => {
                whole.result = Err(error);
                whole.done = at;
            }
            Some((_, error)) => whole.result = whole.result.and(Err(error)),
            None if self.pieces => {
                whole.result = Ok(());
                whole.done = whole.len;
            }
            None => {}
        }
        Some((whole, home))
    }
}

/// That somebody waits for a part. Dropping it unsettled is as loud as losing a request.
pub(crate) struct Link {
    chain: Arc<Chain>,
    settled: bool,
}

impl Link {
    /// Whether the part is a piece of a bio that was split, and so never was submitted by itself.
    fn is_piece(&self) -> bool {
        self.chain.pieces
    }

    /// The part has finished; the whole, if it was the last.
    pub(crate) fn part_done(mut self, part: &Inner) -> Option<Whole> {
        self.settled = true;
        if let Err(error) = part.result {
            self.chain
                .fail(part.before.saturating_add(part.done), error);
        }
        self.chain.one_less()
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        if self.settled {
            return;
        }
        #[cfg(feature = "std")]
        if std::thread::panicking() {
            std::eprintln!("a part of a bio was dropped without completion while panicking");
            return;
        }
        panic!("a part of a bio was dropped without completion: the bio waits for it for ever");
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Link(..)")
    }
}

/// Brings a bio whose own I/O is over to its end: through the bios it is a part of, until one of them
/// waits for others, belongs to another context than `home`'s, or there is none above. What is over
/// is returned; parts, whose memory is of no more use, go to `recycle`, which is told whether somebody
/// submitted them.
#[inline]
pub(crate) fn finish(
    mut bio: Box<Inner>,
    home: &Arc<Mailbox>,
    mut recycle: impl FnMut(Box<Inner>, bool),
) -> Option<Box<Inner>> {
    loop {
        let above = if let Some(chain) = bio.waits_for.take() {
            chain.park(bio, home)
        } else if let Some(link) = bio.part_of.take() {
            let submitted = !link.is_piece();
            let above = link.part_done(&bio);
            recycle(bio, submitted);
            above
        } else {
            return Some(bio);
        };
        let (whole, its_home) = above?;
        if !Arc::ptr_eq(&its_home, home) {
            its_home.push(Letter::Bio(whole));
            return None;
        }
        bio = whole;
    }
}
