//! Where the object behind a handle is, and who holds it there.
//!
//! One word for each handle:
//!
//! | bits | in use |
//! |---|---|
//! | 63..36 | number of the zspage |
//! | 35..25 | number of the object in it |
//! | 24..13 | bytes asked for, less 1 |
//! | 12..0 | who holds it: `0` nobody, `1..=8190` so many readers, `8191` somebody alone |
//!
//! A free one is as in [`table`](super::table).
//!
//! ```text
//!            pin                      unpin
//!   0 nobody <------> readers         a reader waits while somebody holds it alone
//!     ^
//!     +--------------> alone          whoever writes or frees; compaction, which passes over what it cannot have at once
//! ```

use pageless_fault::sync::atomic::{AtomicU64, Ordering};

use crate::mutant::Mutant;

use super::class::{CLASS_DELTA, ChainSize, MAX_OBJECT, MIN_CLASS};

/// Zspages of one shape that a pool can have.
pub(super) const ZSPAGES: u32 = 1 << 28;

const PINS: u64 = (1 << 13) - 1;
const ALONE: u64 = PINS;
const READERS: u64 = ALONE - 1;
const LEN_SHIFT: u32 = 13;
const INDEX_SHIFT: u32 = 25;
const ZSPAGE_SHIFT: u32 = 36;

const _: () = assert!(PINS == super::table::FREE);
const _: () = assert!(MAX_OBJECT <= 1 << (INDEX_SHIFT - LEN_SHIFT));
const _: () =
    assert!(ChainSize::LARGEST * MAX_OBJECT / MIN_CLASS <= 1 << (ZSPAGE_SHIFT - INDEX_SHIFT));
const _: () = assert!((ZSPAGES as u64 - 1) << ZSPAGE_SHIFT >> ZSPAGE_SHIFT == ZSPAGES as u64 - 1);
const _: () = assert!(CLASS_DELTA > 0);

/// Where an object is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Location {
    pub(super) zspage: u32,
    pub(super) index: u16,
    /// Bytes asked for: 1 to 4096.
    pub(super) len: u16,
}

impl Location {
    fn word(self) -> u64 {
        u64::from(self.zspage) << ZSPAGE_SHIFT
            | u64::from(self.index) << INDEX_SHIFT
            | u64::from(self.len - 1) << LEN_SHIFT
    }

    fn of(word: u64) -> Self {
        Location {
            zspage: (word >> ZSPAGE_SHIFT) as u32,
            index: ((word >> INDEX_SHIFT) & ((1 << (ZSPAGE_SHIFT - INDEX_SHIFT)) - 1)) as u16,
            len: ((word >> LEN_SHIFT) & ((1 << (INDEX_SHIFT - LEN_SHIFT)) - 1)) as u16 + 1,
        }
    }
}

/// Puts an object into its slot, or to another place, and lets go of it.
///
/// Release: pairs with the Acquires in [`Pin::shared`] and [`Pin::try_alone`]; whoever holds it finds it at this place.
pub(super) fn publish(slot: &AtomicU64, location: Location) {
    slot.store(location.word(), Ordering::Release);
}

/// Where the object is now, whoever holds it. For those that nobody can move it away from.
pub(super) fn peek(slot: &AtomicU64) -> Location {
    Location::of(slot.load(Ordering::Relaxed))
}

/// Whether nobody holds the object.
pub(super) fn is_unpinned(slot: &AtomicU64) -> bool {
    slot.load(Ordering::Relaxed) & PINS == 0
}

/// A held object: it stays where it is until this is dropped. Forgotten, it stays there for good.
#[derive(Debug)]
pub(super) struct Pin<'p> {
    slot: &'p AtomicU64,
    location: Location,
    alone: bool,
}

impl<'p> Pin<'p> {
    /// Holds it beside other readers. Waits for whoever holds it alone.
    pub(super) fn shared(slot: &'p AtomicU64, relax: impl Fn(u32)) -> Self {
        Self::take(slot, false, relax)
    }

    /// Holds it alone. Waits for everybody else.
    pub(super) fn alone(slot: &'p AtomicU64, relax: impl Fn(u32)) -> Self {
        Self::take(slot, true, relax)
    }

    fn take(slot: &'p AtomicU64, alone: bool, relax: impl Fn(u32)) -> Self {
        let mut turn = 0_u32;
        loop {
            let word = slot.load(Ordering::Relaxed);
            let pins = word & PINS;
            let after = match (alone, pins) {
                (true, 0) => Some(word | ALONE),
                (false, pins) if pins < READERS => Some(word + 1),
                _ => None,
            };
            // Acquire: pairs with the Release in `publish` (the object is there), and with the one in `drop`: what the last holder
            // read has been read, what he wrote is seen.
            if let Some(after) = after
                && slot
                    .compare_exchange_weak(word, after, Ordering::Acquire, Ordering::Relaxed)
                    .is_ok()
            {
                return Pin {
                    slot,
                    location: Location::of(word),
                    alone,
                };
            }
            relax(turn);
            turn = turn.saturating_add(1);
        }
    }

    /// Holds it alone, unless anybody holds it now.
    pub(super) fn try_alone(slot: &'p AtomicU64) -> Option<Self> {
        let word = slot.load(Ordering::Relaxed);
        if word & PINS != 0 && !Mutant::HeldObjectMoved.active() {
            return None;
        }
        // Acquire: as in `take`.
        slot.compare_exchange(word, word | ALONE, Ordering::Acquire, Ordering::Relaxed)
            .ok()?;
        Some(Pin {
            slot,
            location: Location::of(word),
            alone: true,
        })
    }

    pub(super) fn location(&self) -> Location {
        self.location
    }

    pub(super) fn is_alone(&self) -> bool {
        self.alone
    }

    /// Lets go of it at another place.
    pub(super) fn moved_to(self, location: Location) {
        debug_assert!(self.alone);
        publish(self.slot, location);
        core::mem::forget(self);
    }

    /// Keeps it held for good: its slot is about to be given back.
    pub(super) fn retire(self) {
        debug_assert!(self.alone);
        core::mem::forget(self);
    }
}

impl Drop for Pin<'_> {
    fn drop(&mut self) {
        // Release: pairs with the Acquires in `take` and `try_alone`.
        if self.alone {
            self.slot.fetch_and(!PINS, Ordering::Release);
        } else {
            self.slot.fetch_sub(1, Ordering::Release);
        }
    }
}
