//! Simulated physical memory: frames with a tag that tells their lives apart, and poison between two lives.
#![forbid(unsafe_code)]

use alloc::boxed::Box;
use alloc::vec::Vec;

use pageless_pfn::Pfn;

use super::entry::Entry;
use crate::debt::Flushed;
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// 64-bit words in a frame, and entries in a page table.
pub(crate) const WORDS: usize = 512;

/// What a free frame is full of: `0xDEAD`, then 16 bits of its tag, then 19 of its number, and a present bit. Read as a
/// page-table entry it is present and has reserved bits set, so a walk through a freed table traps.
const POISON: u64 = 0xDEAD_0000_0000_0001;

/// How often a frame has been freed. A translation remembers the tag it was made under; one that meets
/// another tag is stale.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct FrameTag(pub(crate) u64);

impl FrameTag {
    /// Times the frame has been freed.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }
}

#[derive(Debug)]
struct Frame {
    words: [AtomicU64; WORDS],
    /// See [`FrameTag`]. Written only by whoever owns the frame.
    tag: AtomicU64,
}

/// The frames of a simulated machine.
#[derive(Debug)]
pub struct Memory {
    id: MemoryId,
    frames: Box<[Frame]>,
    /// Last in, first out: a frame freed too early is met again as soon as possible.
    free: Mutex<Vec<OwnedFrame>>,
}

/// A frame that belongs to whoever holds this. Dropping it loses the frame: it is never used again.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a frame that nobody frees is lost"]
pub struct OwnedFrame {
    number: u32,
    memory: MemoryId,
}

/// Tells the memories of a process apart, so that a frame cannot go to the wrong one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct MemoryId(u32);

impl OwnedFrame {
    /// Its number.
    #[must_use]
    pub fn pfn(&self) -> Pfn {
        pfn(u64::from(self.number))
    }

    pub(crate) fn number(&self) -> u64 {
        u64::from(self.number)
    }
}

fn pfn(number: u64) -> Pfn {
    match Pfn::try_new(number) {
        Ok(pfn) => pfn,
        Err(_) => unreachable!("a simulated frame number above 2^32"),
    }
}

impl Memory {
    /// `count` frames, all free.
    #[must_use]
    pub fn new(count: u32) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let memory = MemoryId(NEXT.fetch_add(1, Ordering::Relaxed));
        let frames = (0..count)
            .map(|number| Frame {
                words: core::array::from_fn(|_| AtomicU64::new(poison(u64::from(number), 0))),
                tag: AtomicU64::new(0),
            })
            .collect();
        Memory {
            id: memory,
            frames,
            // The lowest number is handed out first.
            free: Mutex::new(
                (0..count)
                    .rev()
                    .map(|number| OwnedFrame { number, memory })
                    .collect(),
            ),
        }
    }

    /// Frames in all.
    #[must_use]
    pub fn frames(&self) -> u64 {
        self.frames.len() as u64
    }

    /// Frames that are free.
    #[must_use]
    pub fn free_frames(&self) -> u64 {
        self.free.lock().len() as u64
    }

    /// A free frame, zeroed; `None` if there is none.
    pub fn alloc(&self) -> Option<OwnedFrame> {
        let frame = self.free.lock().pop()?;
        for word in &self.frames[frame.number as usize].words {
            // Ordered before its readers by whoever publishes the frame: entries are stored with Release.
            word.store(0, Ordering::Relaxed);
        }
        Some(frame)
    }

    /// Gives frames back that no CPU can reach any more: they get a new tag, and poison.
    ///
    /// # Panics
    ///
    /// A frame of another machine.
    pub fn free(&self, flushed: Flushed<impl IntoIterator<Item = OwnedFrame>>) {
        for frame in flushed.into_inner() {
            self.free_unmapped(frame);
        }
    }

    /// The frame that the cleared leaf `entry` owned; `None` if it only pointed there.
    pub(crate) fn owned_by(&self, entry: Entry) -> Option<OwnedFrame> {
        entry.is_owner().then(|| self.frame_of(entry))
    }

    /// The frame of the table that the cleared `entry` pointed to. Tables are always owned by the entry above.
    pub(crate) fn frame_of(&self, entry: Entry) -> OwnedFrame {
        OwnedFrame {
            number: entry.frame() as u32,
            memory: self.id,
        }
    }

    /// Gives a frame back that has no translation, or whose translations are proved gone.
    pub(crate) fn free_unmapped(&self, frame: OwnedFrame) {
        assert_eq!(frame.memory, self.id, "a frame of another machine");
        self.end_life(frame.number);
        self.free.lock().push(frame);
    }

    /// Frame `number` gets a new tag, and poison: whoever owns it says that nobody uses it any more, and keeps it.
    ///
    /// # Panics
    ///
    /// It is beyond the memory.
    pub(crate) fn end_life(&self, number: u32) {
        let slot = &self.frames[number as usize];
        // The tag first: an access that still arrives finds itself stale whatever it reads. SeqCst, and so is the detector's load:
        // one order of all tags and of the accesses' own look at them.
        let tag = slot.tag.fetch_add(1, Ordering::SeqCst) + 1;
        let poison = poison(u64::from(number), tag);
        for word in &slot.words {
            word.store(poison, Ordering::Relaxed);
        }
    }

    /// The tag of frame `number`. Frames beyond the memory have none.
    #[inline]
    pub(crate) fn tag(&self, number: u64) -> Option<FrameTag> {
        let frame = self.frames.get(usize::try_from(number).ok()?)?;
        // SeqCst pairs with the one in `free_unmapped`.
        Some(FrameTag(frame.tag.load(Ordering::SeqCst)))
    }

    /// Word `index` of frame `number`; `None` beyond the memory.
    #[inline]
    pub(crate) fn word(&self, number: u64, index: usize) -> Option<&AtomicU64> {
        self.frames
            .get(usize::try_from(number).ok()?)?
            .words
            .get(index)
    }

    /// A copy of frame `number`, as a tool would dump it; `None` beyond the memory.
    #[must_use]
    pub fn snapshot(&self, number: Pfn) -> Option<[u64; WORDS]> {
        let frame = self.frames.get(usize::try_from(number.get()).ok()?)?;
        Some(core::array::from_fn(|n| {
            frame.words[n].load(Ordering::Relaxed)
        }))
    }
}

const fn poison(number: u64, tag: u64) -> u64 {
    POISON | (tag & 0xffff) << 32 | (number & 0x7_ffff) << 12
}
