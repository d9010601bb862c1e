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
/// Release: pairs with the Acquire in [`Pin::attempt`]; whoever holds it finds it at this place.
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
            if let Some(pin) = Self::attempt(slot, alone) {
                return pin;
            }
            relax(turn);
            turn = turn.saturating_add(1);
        }
    }

    /// Holds it alone, unless anybody holds it now.
    pub(super) fn try_alone(slot: &'p AtomicU64) -> Option<Self> {
        Self::attempt(slot, true)
    }

    /// Holds it, unless somebody else is in the way, or was quicker.
    fn attempt(slot: &'p AtomicU64, alone: bool) -> Option<Self> {
        let word = slot.load(Ordering::Relaxed);
        let after = match (alone, word & PINS) {
            (true, pins) if pins == 0 || Mutant::HeldObjectMoved.active() => word | ALONE,
            (false, pins) if pins < READERS => word + 1,
            _ => return None,
        };
        // Acquire: pairs with the Release in `publish` (the object is there), and with the one in `drop`: what the last holder
        // read has been read, what he wrote is seen.
        slot.compare_exchange(word, after, Ordering::Acquire, Ordering::Relaxed)
            .ok()?;
        Some(Pin {
            slot,
            location: Location::of(word),
            alone,
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
        // Release: pairs with the Acquire in `attempt`.
        if self.alone {
            self.slot.fetch_and(!PINS, Ordering::Release);
        } else {
            self.slot.fetch_sub(1, Ordering::Release);
        }
    }
}

#[cfg(all(test, loom))]
mod loom {
    use ::loom::model;
    use ::loom::sync::Arc;
    use ::loom::thread;

    use super::*;

    const FROM: Location = Location {
        zspage: 0,
        index: 0,
        len: 16,
    };
    const TO: Location = Location {
        zspage: 0,
        index: 1,
        len: 16,
    };

    /// A slot, and memory for an object at each of two places. Its words are as a machine copies them: one by one, unordered.
    struct Memory {
        slot: AtomicU64,
        places: [[AtomicU64; 2]; 2],
    }

    impl Memory {
        fn holding(value: u64) -> Arc<Self> {
            let word = |value| AtomicU64::new(value);
            let memory = Memory {
                slot: word(0),
                places: [[word(value), word(value)], [word(0), word(0)]],
            };
            publish(&memory.slot, FROM);
            Arc::new(memory)
        }

        /// What a reader sees, unless somebody is in its way.
        fn read(&self) -> Option<[u64; 2]> {
            let pin = Pin::attempt(&self.slot, false)?;
            let place = &self.places[usize::from(pin.location().index)];
            Some([0, 1].map(|word| place[word].load(Ordering::Relaxed)))
        }

        /// Whether nobody was in the way of a writer.
        fn write(&self, value: u64) -> bool {
            let Some(pin) = Pin::try_alone(&self.slot) else {
                return false;
            };
            for word in &self.places[usize::from(pin.location().index)] {
                word.store(value, Ordering::Relaxed);
            }
            true
        }

        /// Moves the object, if nobody holds it, and lets its old place be used for something else.
        fn compact(&self) {
            let Some(pin) = Pin::try_alone(&self.slot) else {
                return;
            };
            let [from, to] = &self.places;
            for (from, to) in from.iter().zip(to) {
                to.store(from.load(Ordering::Relaxed), Ordering::Relaxed);
                from.store(0xdead, Ordering::Relaxed);
            }
            pin.moved_to(TO);
        }
    }

    #[test]
    fn a_reader_sees_the_whole_object_wherever_it_is() {
        model(|| {
            let memory = Memory::holding(7);
            let moving = Arc::clone(&memory);
            let mover = thread::spawn(move || moving.compact());
            let seen = memory.read();
            assert!([None, Some([7, 7])].contains(&seen), "{seen:?}");
            mover.join().unwrap();
            assert_eq!(memory.read(), Some([7, 7]));
        });
    }

    #[test]
    fn two_readers_and_a_move_do_not_disturb_each_other() {
        model(|| {
            let memory = Memory::holding(7);
            let (moving, reading) = (Arc::clone(&memory), Arc::clone(&memory));
            let mover = thread::spawn(move || moving.compact());
            let reader = thread::spawn(move || reading.read());
            for seen in [memory.read(), reader.join().unwrap()] {
                assert!([None, Some([7, 7])].contains(&seen), "{seen:?}");
            }
            mover.join().unwrap();
            assert!(is_unpinned(&memory.slot));
        });
    }

    #[test]
    fn what_is_written_before_or_after_a_move_is_whole_and_is_not_lost() {
        model(|| {
            let memory = Memory::holding(7);
            let (moving, writing) = (Arc::clone(&memory), Arc::clone(&memory));
            let mover = thread::spawn(move || moving.compact());
            let writer = thread::spawn(move || writing.write(8));
            let seen = memory.read();
            assert!(
                [None, Some([7, 7]), Some([8, 8])].contains(&seen),
                "{seen:?}"
            );
            mover.join().unwrap();
            let now = if writer.join().unwrap() { 8 } else { 7 };
            assert_eq!(memory.read(), Some([now, now]));
        });
    }
}
