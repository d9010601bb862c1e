//! What is known of a slab beside its memory.

use alloc::boxed::Box;

use pageless_fault::VirtAddr;
use pageless_fault::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use pageless_pfn::Pfn;

/// A slab. Its list of free objects is whoever's that has the slab.
#[derive(Debug)]
pub(super) struct Slab {
    /// How many there were before it.
    pub(super) serial: u64,
    /// The head of its block: what it is found by.
    pub(super) head: Pfn,
    /// Where it begins.
    pub(super) base: VirtAddr,
    /// A bit for each object: 1 is out, or withdrawn; 0 is free, or lost. Relaxed: each bit is changed in one step, and who has the object
    /// next has taken a lock in between.
    out: Box<[AtomicU64]>,
    /// A bit for each object: 1 is kept from everybody, since somebody wrote it while it was free. As `out`.
    withdrawn: Box<[AtomicU64]>,
    /// Free objects that no link leads to any more. Changed under the lock of the list; Relaxed.
    pub(super) lost: AtomicU32,
}

impl Slab {
    pub(super) fn new(serial: u64, head: Pfn, base: VirtAddr, objects: u32) -> Self {
        let words = || (0..objects.div_ceil(64)).map(|_| AtomicU64::new(0));
        Slab {
            serial,
            head,
            base,
            out: words().collect(),
            withdrawn: words().collect(),
            lost: AtomicU32::new(0),
        }
    }

    /// Says that an object is out. False if it was.
    pub(super) fn take(&self, index: u32) -> bool {
        let (word, bit) = bit(&self.out, index);
        word.fetch_or(bit, Ordering::Relaxed) & bit == 0
    }

    /// Keeps an object that is out from everybody.
    pub(super) fn withdraw(&self, index: u32) {
        let (word, bit) = bit(&self.withdrawn, index);
        word.fetch_or(bit, Ordering::Relaxed);
    }

    /// Says that an object is free. False if it was, or if nobody has it to give.
    pub(super) fn give(&self, index: u32) -> bool {
        let (word, bit) = bit(&self.withdrawn, index);
        if word.load(Ordering::Relaxed) & bit != 0 {
            return false;
        }
        let (word, bit) = self::bit(&self.out, index);
        word.fetch_and(!bit, Ordering::Relaxed) & bit != 0
    }

    /// Whether an object is free.
    pub(super) fn is_free(&self, index: u32) -> bool {
        let (word, bit) = bit(&self.out, index);
        word.load(Ordering::Relaxed) & bit == 0
    }

    /// Objects that are out or withdrawn.
    pub(super) fn taken(&self) -> u32 {
        ones(&self.out)
    }

    /// Objects that are of no use any more.
    pub(super) fn damaged(&self) -> u32 {
        self.lost.load(Ordering::Relaxed) + ones(&self.withdrawn)
    }

    /// Objects that somebody has.
    pub(super) fn out(&self) -> u32 {
        self.taken().saturating_sub(ones(&self.withdrawn))
    }
}

/// The word that an object's bit is in, and the bit.
fn bit(words: &[AtomicU64], index: u32) -> (&AtomicU64, u64) {
    (&words[index as usize / 64], 1 << (index % 64))
}

fn ones(words: &[AtomicU64]) -> u32 {
    let words = words.iter().map(|word| word.load(Ordering::Relaxed));
    words.map(u64::count_ones).sum()
}

/// Free objects of a slab, each with the number of the next one in its memory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Freelist {
    /// Counted from 1; 0 if there is none.
    pub(super) first: u32,
    pub(super) len: u32,
}
