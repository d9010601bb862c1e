//! Requests to one CPU, and their acknowledgement.
//!
//! A bounded ring that any CPU posts to and one serves. Positions count up for ever and are never used
//! twice; position `p` lives in slot `p % capacity`.
//!
//! | `turn` of the slot of `p` | meaning | written by |
//! |---|---|---|
//! | `2p` | free, for whoever claims position `p` (or claimed and being written) | the owner, after serving `p - capacity` |
//! | `2p + 1` | holds the letter of position `p` | the poster that claimed `p` |
//!
//! | word | value | written by |
//! |---|---|---|
//! | `tail` | positions claimed | posters: compare-exchange |
//! | `rounds` | letters that found the ring full, each a request to flush everything | posters: fetch_add |
//! | `bell` | 1: something was posted since the owner last began to serve | posters set it, the owner clears it |
//! | `entered` | positions that the owner knows of: all below | the owner |
//! | `acked` | positions that are done: all below. `acked <= entered <= tail` | the owner |
//! | `rounds_entered`, `rounds_acked` | the same for rounds | the owner |
//!
//! ```text
//!   poster:  claim p --> letter --> turn = 2p + 1 --> bell = 1 ......... is_entered? ... is_acked?
//!                full: rounds + 1 ------------------> bell = 1               ^              ^
//!   owner:   bell = 0 --> turn odd? rounds grown? --> entered ---------------+              |
//!                                                     invalidate --> turn even --> acked ---+
//! ```
//!
//! An acknowledgement is a position, not a slot: one that comes late answers for its own request and for
//! those before it, never for the next one in the same slot. A full ring strengthens: what does not fit
//! becomes "flush everything", which answers for all that was posted before it.
//!
//! A poster that has claimed a position and not yet written it holds up those behind it; it waits for
//! nothing in between, so they wait for a few instructions of its own.
#![forbid(unsafe_code)]

use alloc::boxed::Box;
use core::ops::Range;

use crate::mutant::Mutant;
use crate::sync::atomic::{AtomicU64, Ordering};

/// A request, as words. The mailbox does not look inside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Letter(pub [u64; 4]);

/// A moment on the clock of whoever stamps: the mailbox only carries it. On the modelled machine,
/// modelled nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Stamp(u64);

impl Stamp {
    /// For machines that keep no time.
    pub const ZERO: Stamp = Stamp(0);

    /// The moment `at`.
    #[must_use]
    pub const fn new(at: u64) -> Self {
        Stamp(at)
    }

    /// The moment, as a number.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }
}

/// What a poster holds of its request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[must_use = "a request that nobody waits for proves nothing"]
pub enum Receipt {
    /// The letter is in the ring.
    Slot {
        /// Its position, from 0; no other request of this mailbox ever has it.
        position: u64,
    },
    /// The ring was full: the CPU will flush everything instead.
    Everything {
        /// Which time that was, from 1.
        round: u64,
    },
}

/// What the owner of a mailbox is asked to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Served {
    /// What a letter says.
    Request {
        /// The letter.
        letter: Letter,
        /// When it was posted.
        sent: Stamp,
    },
    /// Flush everything: letters found the ring full.
    Everything {
        /// How many requests are answered by this: those that found no room, and all in the ring.
        requests: u64,
        /// When the last of those that found no room was posted.
        sent: Stamp,
    },
}

/// A place for one letter: one cache line.
#[derive(Debug)]
#[repr(align(64))]
struct Slot {
    turn: AtomicU64,
    sent: AtomicU64,
    letter: [AtomicU64; 4],
    /// Of the last letter here that was entered, and acknowledged.
    entered_at: AtomicU64,
    acked_at: AtomicU64,
}

#[cfg(not(loom))]
const _: () = assert!(size_of::<Slot>() == 64);

/// What posters write.
#[derive(Debug)]
#[repr(align(64))]
struct Posted {
    tail: AtomicU64,
    rounds: AtomicU64,
    rounds_sent: AtomicU64,
    bell: AtomicU64,
}

/// What the owner writes and posters poll.
#[derive(Debug)]
#[repr(align(64))]
struct Answered {
    entered: AtomicU64,
    acked: AtomicU64,
    rounds_entered: AtomicU64,
    rounds_acked: AtomicU64,
    rounds_entered_at: AtomicU64,
    rounds_acked_at: AtomicU64,
}

/// The `turn` of a slot that is free for `position`. Positions stay below 2^63: at one a nanosecond, for
/// three centuries.
const fn free(position: u64) -> u64 {
    2 * position
}

/// The `turn` of a slot that holds the letter of `position`.
const fn filled(position: u64) -> u64 {
    2 * position + 1
}

/// The mailbox of one CPU.
///
/// ```
/// use pageless_fault::shootdown::{Letter, Mailbox, Receipt, Served, Stamp};
/// let mailbox = Mailbox::new(1);
/// let first = mailbox.post(Letter([7; 4]), Stamp::ZERO);
/// let second = mailbox.post(Letter([8; 4]), Stamp::ZERO); // no room
/// assert_eq!(second, Receipt::Everything { round: 1 });
/// mailbox.serve(Stamp::ZERO, |served| {
///     assert!(matches!(served, Served::Everything { requests: 2, .. }));
///     assert!(mailbox.is_entered(first) && !mailbox.is_acked(first)); // only when this returns
///     Stamp::new(5)
/// });
/// assert_eq!(mailbox.acked_at(second), Some(Stamp::new(5)));
/// ```
#[derive(Debug)]
pub struct Mailbox {
    posted: Posted,
    answered: Answered,
    slots: Box<[Slot]>,
    capacity: u64,
}

impl Mailbox {
    /// An empty mailbox for `capacity` letters.
    ///
    /// # Panics
    ///
    /// `capacity` is not a power of two.
    #[must_use]
    pub fn new(capacity: u16) -> Self {
        assert!(
            capacity.is_power_of_two(),
            "a mailbox for {capacity} letters: not a power of two"
        );
        let zero = || AtomicU64::new(0);
        Mailbox {
            posted: Posted {
                tail: zero(),
                rounds: zero(),
                rounds_sent: zero(),
                bell: zero(),
            },
            answered: Answered {
                entered: zero(),
                acked: zero(),
                rounds_entered: zero(),
                rounds_acked: zero(),
                rounds_entered_at: zero(),
                rounds_acked_at: zero(),
            },
            slots: (0..u64::from(capacity))
                .map(|position| Slot {
                    turn: AtomicU64::new(free(position)),
                    sent: zero(),
                    letter: core::array::from_fn(|_| zero()),
                    entered_at: zero(),
                    acked_at: zero(),
                })
                .collect(),
            capacity: u64::from(capacity),
        }
    }

    /// How many letters there is room for.
    #[must_use]
    pub const fn capacity(&self) -> u64 {
        self.capacity
    }

    fn slot(&self, position: u64) -> &Slot {
        // A power of two, and below 2^16: the cast keeps every bit.
        &self.slots[(position & (self.capacity - 1)) as usize]
    }

    /// Asks the owner for what `letter` says, or for more. Never fails and never waits; what was done
    /// before, above all clearing entries, is seen by the owner when it serves this.
    pub fn post(&self, letter: Letter, sent: Stamp) -> Receipt {
        // Relaxed: `turn` says whether it is current, and the compare-exchange that it still is.
        let mut position = self.posted.tail.load(Ordering::Relaxed);
        let receipt = loop {
            let slot = self.slot(position);
            // Acquire: pairs with the Release in `answer`: the letter before was read.
            let turn = slot.turn.load(Ordering::Acquire);
            if turn == free(position) {
                // Relaxed: a claim. What it is for is published with `turn`.
                match self.posted.tail.compare_exchange_weak(
                    position,
                    position + 1,
                    Ordering::Relaxed,
                    Ordering::Relaxed,
                ) {
                    Ok(_) => {
                        slot.sent.store(sent.0, Ordering::Relaxed);
                        for (word, value) in slot.letter.iter().zip(letter.0) {
                            word.store(value, Ordering::Relaxed);
                        }
                        // Release: pairs with the Acquire in `enter`.
                        slot.turn.store(filled(position), Ordering::Release);
                        break Receipt::Slot { position };
                    }
                    Err(now) => position = now,
                }
            } else if turn < free(position) {
                break self.strengthen(sent);
            } else {
                // Another poster was here. Its `turn` was read with Acquire, so its claim is seen as well,
                // and this makes progress.
                position = self.posted.tail.load(Ordering::Relaxed);
            }
        };
        // Release, and read-modify-writes only: pairs with the Acquire in `serve`, whichever poster
        // rang last.
        self.posted.bell.fetch_or(1, Ordering::Release);
        receipt
    }

    /// A request that finds the ring full becomes one to flush everything.
    fn strengthen(&self, sent: Stamp) -> Receipt {
        if Mutant::OverflowDropped.active() {
            return Receipt::Everything {
                round: self.posted.rounds.load(Ordering::Relaxed),
            };
        }
        self.posted.rounds_sent.fetch_max(sent.0, Ordering::Relaxed);
        // Release: pairs with the Acquire in `enter`.
        let before = self.posted.rounds.fetch_add(1, Ordering::Release);
        Receipt::Everything { round: before + 1 }
    }

    /// Whether there may be something to serve: one load, cheap enough for every instruction. Stays true
    /// until the owner serves.
    #[must_use]
    #[inline]
    pub fn pending(&self) -> bool {
        // Relaxed: `serve` looks again, with Acquire.
        self.posted.bell.load(Ordering::Relaxed) != 0
    }

    /// On the owner: it is in its handler and knows of every request posted before, and will serve them before
    /// it does anything else. The early acknowledgement: nothing is invalidated yet. How many requests
    /// are new.
    pub fn enter(&self, now: Stamp) -> u64 {
        let answered = &self.answered;
        // The owner's own words: Relaxed.
        let (before, rounds_before) = (
            answered.entered.load(Ordering::Relaxed),
            answered.rounds_entered.load(Ordering::Relaxed),
        );
        // Acquire: pairs with the Release in `strengthen`.
        let rounds = self.posted.rounds.load(Ordering::Acquire);
        let mut entered = before;
        loop {
            let slot = self.slot(entered);
            // Acquire: pairs with the Release in `post`. A position that is claimed and not written
            // is not entered: the owner could leave its handler without having served it.
            if slot.turn.load(Ordering::Acquire) != filled(entered) {
                break;
            }
            slot.entered_at.store(now.0, Ordering::Relaxed);
            entered += 1;
        }
        // Release: both pair with the Acquire in `is_entered`.
        if entered != before {
            answered.entered.store(entered, Ordering::Release);
        }
        if rounds != rounds_before {
            answered.rounds_entered_at.store(now.0, Ordering::Relaxed);
            answered.rounds_entered.store(rounds, Ordering::Release);
        }
        (entered - before) + (rounds - rounds_before)
    }

    /// On the owner: [enters](Self::enter) at `now`, then hands `f` everything entered, in order, and
    /// acknowledges each when `f` has returned with the moment it was done. How many requests were answered.
    ///
    /// Only one CPU serves, and not from within `f`. What is posted meanwhile rings again.
    pub fn serve(&self, now: Stamp, mut f: impl FnMut(Served) -> Stamp) -> u64 {
        // Acquire: pairs with the Release in `post`: what was rung for before is found below, and what
        // is not found will ring.
        self.posted.bell.swap(0, Ordering::Acquire);
        self.enter(now);

        // The owner's own words: Relaxed.
        let (acked, entered) = (
            self.answered.acked.load(Ordering::Relaxed),
            self.answered.entered.load(Ordering::Relaxed),
        );
        let (rounds_acked, rounds) = (
            self.answered.rounds_acked.load(Ordering::Relaxed),
            self.answered.rounds_entered.load(Ordering::Relaxed),
        );
        let requests = (entered - acked) + (rounds - rounds_acked);
        if rounds != rounds_acked {
            let sent = Stamp(self.posted.rounds_sent.load(Ordering::Relaxed));
            self.answer(acked..entered, Some(rounds), || {
                f(Served::Everything { requests, sent })
            });
        } else {
            for position in acked..entered {
                let slot = self.slot(position);
                // Relaxed: `enter` has read `turn` with Acquire.
                let letter = Letter(
                    slot.letter
                        .each_ref()
                        .map(|word| word.load(Ordering::Relaxed)),
                );
                let sent = Stamp(slot.sent.load(Ordering::Relaxed));
                self.answer(position..position + 1, None, || {
                    f(Served::Request { letter, sent })
                });
            }
        }
        requests
    }

    /// Acknowledges `positions` and all rounds up to `rounds`, after `invalidate`.
    fn answer(
        &self,
        positions: Range<u64>,
        rounds: Option<u64>,
        invalidate: impl FnOnce() -> Stamp,
    ) {
        let acknowledge = |at: Stamp| {
            for position in positions.clone() {
                let slot = self.slot(position);
                slot.acked_at.store(at.0, Ordering::Relaxed);
                // Release: pairs with the Acquire in `post`: the letter has been read. Before the
                // acknowledgement, so that who has seen it finds room for the next.
                slot.turn
                    .store(free(position + self.capacity), Ordering::Release);
            }
            // Release: both pair with the Acquire in `is_acked`.
            if !positions.is_empty() {
                self.answered.acked.store(positions.end, Ordering::Release);
            }
            if let Some(rounds) = rounds {
                self.answered.rounds_acked_at.store(at.0, Ordering::Relaxed);
                self.answered.rounds_acked.store(rounds, Ordering::Release);
            }
        };
        if Mutant::AckBeforeInvalidate.active() {
            acknowledge(Stamp::ZERO);
            invalidate();
        } else {
            acknowledge(invalidate());
        }
    }

    /// Whether the owner knows of the request: it is in its handler, or has been.
    #[must_use]
    pub fn is_entered(&self, receipt: Receipt) -> bool {
        // Acquire: pairs with the Release in `enter`.
        match receipt {
            Receipt::Slot { position } => self.answered.entered.load(Ordering::Acquire) > position,
            Receipt::Everything { round } => {
                self.answered.rounds_entered.load(Ordering::Acquire) >= round
            }
        }
    }

    /// Whether the request, or more than it, has been executed.
    #[must_use]
    pub fn is_acked(&self, receipt: Receipt) -> bool {
        // Acquire: pairs with the Release in `answer`.
        match receipt {
            Receipt::Slot { position } => {
                let position = if Mutant::AckOfAnotherRequest.active() {
                    position % self.capacity
                } else {
                    position
                };
                self.answered.acked.load(Ordering::Acquire) > position
            }
            Receipt::Everything { round } => {
                self.answered.rounds_acked.load(Ordering::Acquire) >= round
            }
        }
    }

    /// When the owner entered with this request, if it has. Exact until a later request in its slot, or a
    /// later round, is entered; then the moment of that one.
    #[must_use]
    pub fn entered_at(&self, receipt: Receipt) -> Option<Stamp> {
        self.is_entered(receipt).then(|| {
            Stamp(match receipt {
                Receipt::Slot { position } => {
                    self.slot(position).entered_at.load(Ordering::Relaxed)
                }
                Receipt::Everything { .. } => {
                    self.answered.rounds_entered_at.load(Ordering::Relaxed)
                }
            })
        })
    }

    /// When the request was done, if it is. Exact until a later request in its slot, or a later round, is
    /// done; then the moment of that one.
    #[must_use]
    pub fn acked_at(&self, receipt: Receipt) -> Option<Stamp> {
        self.is_acked(receipt).then(|| {
            Stamp(match receipt {
                Receipt::Slot { position } => self.slot(position).acked_at.load(Ordering::Relaxed),
                Receipt::Everything { .. } => self.answered.rounds_acked_at.load(Ordering::Relaxed),
            })
        })
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
