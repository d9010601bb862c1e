//! Numbered records of a few words that grow without ever moving: who knows a number reaches its record without a lock.
//!
//! The records stand in segments, eight of each size before the size doubles, so that at most an eighth of a table is not used yet:
//! metadata counts as memory.
//!
//! A record that nobody has is in a list of free ones, linked through its first word:
//!
//! | bits of the first word | free | in use |
//! |---|---|---|
//! | 12..0 | all ones | anything else |
//! | 45..13 | number of the next free record + 1, 0: it is the last | whatever its holder wants |

use alloc::boxed::Box;
use alloc::vec::Vec;

use pageless_fault::sync::Mutex;
use pageless_fault::sync::atomic::{AtomicU64, Ordering};
use spin::Once;

/// What the low bits of a free record's first word are.
pub(super) const FREE: u64 = (1 << LINK_SHIFT) - 1;
const LINK_SHIFT: u32 = 13;
/// Segments of one size.
const EACH: usize = 8;
/// Enough for 2^32 records.
const OCTAVES: usize = 24;

type Segment = Box<[AtomicU64]>;
type Octave = Box<[Once<Segment>]>;

/// No record could be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoRecord {
    /// All numbers are in use.
    Full { records: u32 },
    /// The heap had not so many bytes.
    Heap { bytes: usize },
}

pub(super) struct WordTable {
    /// Words in a record.
    stride: usize,
    /// Records in each of the first segments.
    first: usize,
    /// Numbers are below this.
    limit: u32,
    octaves: [Once<Octave>; OCTAVES],
    /// Number of the first free record + 1 (0: none) in the low half; in the high half a count of changes, so that a list that has
    /// come back to the same first record is not taken for the old one.
    free: AtomicU64,
    /// How many segments there are.
    segments: Mutex<usize>,
    /// Bytes of all segments.
    bytes: AtomicU64,
}

impl WordTable {
    pub(super) fn new(stride: usize, first: usize, limit: u32) -> Self {
        WordTable {
            stride,
            first,
            limit,
            octaves: [const { Once::new() }; OCTAVES],
            free: AtomicU64::new(0),
            segments: Mutex::new(0),
            bytes: AtomicU64::new(0),
        }
    }

    /// The words of record `id`, which exists.
    pub(super) fn words(&self, id: u32) -> &[AtomicU64] {
        let steps = id as usize / self.first + EACH;
        let octave = steps.ilog2() - EACH.ilog2();
        let within = (steps >> octave) - EACH;
        let skipped = self.first_of(octave as usize, within);
        let at = (id as usize - skipped) * self.stride;
        let segment = self.octaves[octave as usize].get();
        match segment.and_then(|segments| segments[within].get()) {
            Some(segment) => &segment[at..at + self.stride],
            None => unreachable!("a record that was never handed out"),
        }
    }

    /// The number of the first record in a segment.
    fn first_of(&self, octave: usize, within: usize) -> usize {
        (((EACH + within) << octave) - EACH) * self.first
    }

    /// Bytes of all records, the unused ones included.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// How many records there are, the unused ones included. Takes a lock.
    pub(super) fn len(&self) -> u32 {
        let segments = self.segments.lock();
        (self.first_of(*segments / EACH, *segments % EACH) as u32).min(self.limit)
    }

    /// Takes a free record; all its words but the first are as the last holder left them.
    pub(super) fn take(&self) -> Result<u32, NoRecord> {
        loop {
            // Acquire: pairs with the Release in `give_back_chain`; the link behind the first record is the one that was written.
            let head = self.free.load(Ordering::Acquire);
            let Some(id) = (head as u32).checked_sub(1) else {
                self.grow()?;
                continue;
            };
            // If somebody else has taken it meanwhile, this is no link; the count of changes then differs.
            let next = self.words(id)[0].load(Ordering::Relaxed) >> LINK_SHIFT;
            let after = Self::changed(head, next as u32);
            if self
                .free
                .compare_exchange_weak(head, after, Ordering::Acquire, Ordering::Relaxed)
                .is_ok()
            {
                return Ok(id);
            }
        }
    }

    /// Gives record `id` back.
    pub(super) fn give_back(&self, id: u32) {
        self.give_back_chain(id, id);
    }

    /// Gives back records that are linked from `first` to `last` already.
    fn give_back_chain(&self, first: u32, last: u32) {
        let mut head = self.free.load(Ordering::Relaxed);
        loop {
            let link = u64::from(head as u32) << LINK_SHIFT | FREE;
            self.words(last)[0].store(link, Ordering::Relaxed);
            let after = Self::changed(head, first + 1);
            // Release: pairs with the Acquires in `take`.
            match self
                .free
                .compare_exchange_weak(head, after, Ordering::Release, Ordering::Relaxed)
            {
                Ok(_) => return,
                Err(found) => head = found,
            }
        }
    }

    fn changed(head: u64, first: u32) -> u64 {
        ((head >> 32) + 1) << 32 | u64::from(first)
    }

    /// Adds a segment, unless somebody has just done so.
    #[cold]
    fn grow(&self) -> Result<(), NoRecord> {
        let mut segments = self.segments.lock();
        if self.free.load(Ordering::Relaxed) as u32 != 0 {
            return Ok(());
        }
        let (octave, within) = (*segments / EACH, *segments % EACH);
        let start = self.first_of(octave, within);
        let full = NoRecord::Full {
            records: (start as u32).min(self.limit),
        };
        let room = (self.limit as usize).saturating_sub(start);
        if octave >= OCTAVES || room == 0 {
            return Err(full);
        }
        let records = (self.first << octave).min(room);
        let segment = boxed(records * self.stride, || AtomicU64::new(FREE))?;
        let bytes = size_of_val(&*segment);
        let octave = self.octaves[octave].try_call_once(|| boxed(EACH, Once::new))?;
        octave[within].call_once(|| segment);
        *segments += 1;
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);

        let (first, last) = (start as u32, (start + records - 1) as u32);
        for id in first..last {
            let link = u64::from(id + 2) << LINK_SHIFT | FREE;
            self.words(id)[0].store(link, Ordering::Relaxed);
        }
        self.give_back_chain(first, last);
        Ok(())
    }
}

/// `len` values, or the number of bytes that the heap did not have.
fn boxed<T>(len: usize, value: impl FnMut() -> T) -> Result<Box<[T]>, NoRecord> {
    let mut all = Vec::new();
    all.try_reserve_exact(len).map_err(|_| NoRecord::Heap {
        bytes: len * size_of::<T>(),
    })?;
    all.resize_with(len, value);
    Ok(all.into_boxed_slice())
}

#[cfg(all(test, not(loom)))]
mod tests {
    use alloc::vec::Vec;

    use super::*;

    #[test]
    fn every_number_has_words_of_its_own() {
        let table = WordTable::new(3, 4, 1 << 20);
        let ids: Vec<u32> = (0..3000).map(|_| table.take().unwrap()).collect();
        for id in &ids {
            for (nth, word) in table.words(*id).iter().enumerate() {
                word.store(u64::from(*id) << 8 | nth as u64, Ordering::Relaxed);
            }
        }
        for id in &ids {
            let words = table.words(*id).iter().map(|w| w.load(Ordering::Relaxed));
            assert!(words.eq((0..3).map(|nth| u64::from(*id) << 8 | nth)));
        }
        let in_use = 3000 * 3 * 8;
        assert!(table.bytes() <= in_use + in_use / 8, "{}", table.bytes());
    }

    #[test]
    fn what_has_come_back_goes_out_again_and_there_are_no_more_than_the_limit() {
        let table = WordTable::new(1, 4, 70);
        for _ in 0..3 {
            let mut ids: Vec<u32> = (0..70).map(|_| table.take().unwrap()).collect();
            let full = NoRecord::Full { records: 70 };
            assert_eq!(table.take(), Err(full));
            assert_eq!(table.len(), 70);
            for id in &ids {
                table.give_back(*id);
            }
            ids.sort_unstable();
            assert!(ids.into_iter().eq(0..70));
        }
    }

    /// A record that is taken, given back and taken again while somebody else is about to take it.
    #[cfg(feature = "std")]
    #[test]
    fn no_number_is_handed_out_twice() {
        use core::sync::atomic::AtomicU32;

        let table = WordTable::new(1, 4, 64);
        let holders: Vec<AtomicU32> = (0..64).map(|_| AtomicU32::new(0)).collect();
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    for _ in 0..20_000 {
                        let ids = [table.take().unwrap(), table.take().unwrap()];
                        for id in ids {
                            let before = holders[id as usize].fetch_add(1, Ordering::Relaxed);
                            assert_eq!(before, 0, "{id} is in use");
                            table.words(id)[0].store(1, Ordering::Relaxed);
                        }
                        for id in ids {
                            holders[id as usize].fetch_sub(1, Ordering::Relaxed);
                            table.give_back(id);
                        }
                    }
                });
            }
        });
    }
}

#[cfg(all(test, loom))]
mod loom {
    use ::loom::model;
    use ::loom::sync::Arc;
    use ::loom::thread;

    use super::*;

    #[test]
    fn no_record_has_two_holders_though_the_first_free_one_comes_back() {
        model(|| {
            let table = Arc::new(WordTable::new(1, 2, 2));
            // The records exist before there are threads: growing is behind a lock.
            let id = table.take().unwrap();
            table.give_back(id);
            let other = Arc::clone(&table);
            let thread = thread::spawn(move || {
                // Away and back again: the list begins with the same record, and goes on with none.
                let both = [other.take(), other.take()];
                if let [Ok(first), Ok(_kept)] = both {
                    other.words(first)[0].store(FREE - 1, Ordering::Relaxed);
                    other.give_back(first);
                }
                both[1].ok().or(both[0].ok())
            });
            let mine = table.take().ok();
            if let Some(id) = mine {
                table.words(id)[0].store(FREE - 2, Ordering::Relaxed);
            }
            let theirs = thread.join().unwrap();
            assert!(mine.is_none() || mine != theirs, "{mine:?} has two holders");
            for id in [mine, theirs].into_iter().flatten() {
                table.give_back(id);
            }
            let both = [table.take().unwrap(), table.take().unwrap()];
            assert_ne!(both[0], both[1]);
            assert!(table.take().is_err());
        });
    }
}
