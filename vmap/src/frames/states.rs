//! What each frame is, as one byte of its own.
//!
//! | value | name | the frame is | set under |
//! |---|---|---|---|
//! | `0x00` | tail | not the first of its block | the lock of its zone |
//! | `0x20 + k` | free | the first of a free block of order k | the lock of its zone |
//! | `0x40 + k` | taken | the first of a block of order k that somebody owns | the lock of its zone, or of the list it was parked in |
//! | `0x60 + k` | returning | the first of a taken block that its owner is giving back | nothing: whoever makes the step from *taken* gives it back |
//! | `0x80` | parked | in the list of some CPU | the lock of that list |
//!
//! ```text
//!          alloc, order > 0                      refill                alloc, order 0
//!   free ----------------------> taken    free ---------> parked ---------------------> taken
//!     ^                            |        ^     drain     | ^                           |
//!     |                            |        +---------------+ |                           |
//!     +-------- returning <--------+                          +-------- returning <-------+
//! ```
//!
//! The step *taken -> returning* is what finds a block that comes back twice, and one that was never handed out.

use alloc::collections::TryReserveError;
use alloc::vec::Vec;

use pageless_fault::sync::atomic::{AtomicU32, Ordering};
use pageless_pfn::{Pfn, PfnRange};

use super::order::Order;

/// See the [table](self).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Tail,
    Free(Order),
    Taken(Order),
    Returning(Order),
    Parked,
}

const KIND: u8 = 0xe0;
const TAIL: u8 = 0x00;
const FREE: u8 = 0x20;
const TAKEN: u8 = 0x40;
const RETURNING: u8 = 0x60;
const PARKED: u8 = 0x80;

const _: () = assert!(Order::LARGEST.get() & KIND == 0);

impl State {
    const fn byte(self) -> u8 {
        match self {
            State::Tail => TAIL,
            State::Free(order) => FREE | order.get(),
            State::Taken(order) => TAKEN | order.get(),
            State::Returning(order) => RETURNING | order.get(),
            State::Parked => PARKED,
        }
    }

    /// `None` if it is not in the table.
    fn of(byte: u8) -> Option<Self> {
        let order = Order::try_new(byte & !KIND).ok()?;
        match (byte & KIND, byte & !KIND) {
            (TAIL, 0) => Some(State::Tail),
            (FREE, _) => Some(State::Free(order)),
            (TAKEN, _) => Some(State::Taken(order)),
            (RETURNING, _) => Some(State::Returning(order)),
            (PARKED, 0) => Some(State::Parked),
            _ => None,
        }
    }
}

/// One byte for each frame, four to an atomic word.
///
/// All orderings are Relaxed: a byte says who may take the next step, and what was written before that step is published by the locks
/// that the frame goes through on its way.
pub(super) struct States {
    frames: PfnRange,
    words: Vec<AtomicU32>,
}

impl States {
    /// All tails.
    pub(super) fn new(frames: PfnRange) -> Result<Option<Self>, TryReserveError> {
        let Ok(count) = usize::try_from(frames.count().get()) else {
            return Ok(None);
        };
        let count = count.div_ceil(4);
        let mut words = Vec::new();
        words.try_reserve_exact(count)?;
        words.resize_with(count, || AtomicU32::new(0));
        Ok(Some(States { frames, words }))
    }

    /// What it takes, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.words.len() * 4
    }

    fn place(&self, pfn: Pfn) -> Option<(&AtomicU32, u32)> {
        // `new` has seen that the count fits.
        let index = self.frames.index_of(pfn)? as usize;
        Some((&self.words[index / 4], (index % 4) as u32 * 8))
    }

    /// What `pfn` is; `None` if it is not a frame of this memory, or its byte is none of the table's.
    pub(super) fn get(&self, pfn: Pfn) -> Option<State> {
        let (word, shift) = self.place(pfn)?;
        State::of((word.load(Ordering::Relaxed) >> shift) as u8)
    }

    /// Makes `to` of `from`; false if `pfn` is something else, or not a frame of this memory.
    #[must_use]
    pub(super) fn step(&self, pfn: Pfn, from: State, to: State) -> bool {
        let Some((word, shift)) = self.place(pfn) else {
            return false;
        };
        let (from, to) = (from.byte(), to.byte());
        let change = u32::from(from ^ to) << shift;
        let mut seen = word.load(Ordering::Relaxed);
        while (seen >> shift) as u8 == from {
            match word.compare_exchange_weak(
                seen,
                seen ^ change,
                Ordering::Relaxed,
                Ordering::Relaxed,
            ) {
                Ok(_) => return true,
                Err(found) => seen = found,
            }
        }
        false
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use pageless_pfn::FrameCount;

    #[test]
    fn a_byte_is_one_state_or_none() {
        let known = (0..=u8::MAX).filter_map(|byte| Some((byte, State::of(byte)?)));
        let mut count = 0;
        for (byte, state) in known {
            assert_eq!(state.byte(), byte);
            count += 1;
        }
        assert_eq!(count, 2 + 3 * (usize::from(Order::LARGEST.get()) + 1));
    }

    #[test]
    fn a_step_changes_its_own_frame_and_only_from_where_it_starts() {
        let start = Pfn::try_new(3).unwrap();
        let frames = PfnRange::try_new(start, FrameCount::new(6)).unwrap();
        let states = States::new(frames).unwrap().unwrap();
        let at = |n| Pfn::try_new(n).unwrap();
        assert!(states.step(at(5), State::Tail, State::Taken(Order::ZERO)));
        assert!(!states.step(at(5), State::Tail, State::Parked));
        assert!(!states.step(at(9), State::Tail, State::Parked));
        assert!(!states.step(at(2), State::Tail, State::Parked));
        for pfn in frames {
            let other = pfn != at(5);
            assert_eq!(states.get(pfn) == Some(State::Tail), other, "{pfn}");
        }
        assert_eq!(states.get(at(5)), Some(State::Taken(Order::ZERO)));
    }

    #[cfg(feature = "std")]
    #[test]
    fn neighbours_in_one_word_do_not_lose_each_others_steps() {
        let frames = PfnRange::try_new(Pfn::MIN, FrameCount::new(4)).unwrap();
        let states = States::new(frames).unwrap().unwrap();
        let start = std::sync::Barrier::new(4);
        std::thread::scope(|scope| {
            for pfn in frames {
                let (states, start) = (&states, &start);
                scope.spawn(move || {
                    start.wait();
                    for _ in 0..200_000 {
                        assert!(states.step(pfn, State::Tail, State::Taken(Order::LARGEST)));
                        assert!(states.step(pfn, State::Taken(Order::LARGEST), State::Tail));
                    }
                });
            }
        });
    }

    #[cfg(feature = "std")]
    #[test]
    fn of_all_who_give_a_block_back_one_does() {
        use core::sync::atomic::AtomicBool;

        let frames = PfnRange::try_new(Pfn::MIN, FrameCount::new(1)).unwrap();
        let states = States::new(frames).unwrap().unwrap();
        let (taken, returning) = (State::Taken(Order::ZERO), State::Returning(Order::ZERO));
        assert!(states.step(Pfn::MIN, State::Tail, taken));
        let busy = AtomicBool::new(false);
        let start = std::sync::Barrier::new(4);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    start.wait();
                    for _ in 0..200_000 {
                        if states.step(Pfn::MIN, taken, returning) {
                            assert!(!busy.swap(true, Ordering::Relaxed), "two of them did");
                            busy.store(false, Ordering::Relaxed);
                            assert!(states.step(Pfn::MIN, returning, taken));
                        }
                    }
                });
            }
        });
    }
}
