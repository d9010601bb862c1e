//! Zspages: the frames of a few objects, which of the objects are in use, and the lists by how full they are.
//!
//! The words of a zspage's record:
//!
//! | word | bits | in use |
//! |---|---|---|
//! | 0 | 12..0 | objects in use, at most 2048 |
//! | | 17..13 | the list that it is in |
//! | | 63..32 | huge class only: the slot of its object |
//! | 1 | 31..0, 63..32 | the zspage before it and behind it in the list + 1; 0: none |
//! | 2.. | | one bit for each object: it is in use |
//! | then | | the numbers of its frames |
//!
//! All but the frames belongs to whoever holds the lock of the class, which orders the accesses: they are relaxed. The frames are written
//! before the first object in them is published in its [slot](super::slot), and read by those who hold an object there.

use pageless_fault::sync::atomic::{AtomicU64, Ordering};
use pageless_pfn::{PAGE_SIZE, Pfn};

use super::class::ClassShape;
use super::source::Frame;
use super::span::{Span, plus};
use super::table::{FREE, WordTable};

const INUSE: u64 = FREE;
const GROUP_SHIFT: u32 = 13;
const GROUP: u64 = 0x1f << GROUP_SHIFT;
const OWNER_SHIFT: u32 = 32;
const WORD_BITS: usize = 64;
/// Words before the bits.
const HEAD: usize = 2;

/// Words of the record of a zspage of this shape.
pub(super) fn stride(shape: ClassShape) -> usize {
    HEAD + bit_words(shape) + usize::from(shape.pages)
}

fn bit_words(shape: ClassShape) -> usize {
    usize::from(shape.objects).div_ceil(WORD_BITS)
}

/// How full a zspage is (Linux: `enum fullness_group`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Group(u8);

impl Group {
    pub(super) const EMPTY: Group = Group(0);
    pub(super) const FULL: Group = Group(11);
    /// Compaction could not empty it, and will not try again; what has to stay can as well be filled.
    pub(super) const ASIDE: Group = Group(12);
    /// The one that compaction is emptying.
    pub(super) const SOURCE: Group = Group(13);
    /// Groups by fullness.
    pub(super) const COUNT: usize = 12;

    fn of(inuse: u16, objects: u16) -> Self {
        match inuse {
            0 => Self::EMPTY,
            all if all == objects => Self::FULL,
            some => Group((u32::from(some) * 100 / u32::from(objects) / 10 + 1) as u8),
        }
    }

    pub(super) fn index(self) -> usize {
        usize::from(self.0)
    }

    /// Those that have room, fullest first.
    pub(super) fn with_room() -> impl Iterator<Item = Group> {
        (0..Self::FULL.0).rev().map(Group)
    }

    /// Those that are neither empty nor full, sparsest first.
    pub(super) fn partial() -> impl DoubleEndedIterator<Item = Group> {
        (1..Self::FULL.0).map(Group)
    }

    /// All lists.
    pub(super) fn all() -> impl Iterator<Item = Group> {
        (0..=Self::SOURCE.0).map(Group)
    }
}

/// The record of a zspage.
#[derive(Clone, Copy)]
pub(super) struct Zspage<'t> {
    pub(super) id: u32,
    shape: ClassShape,
    words: &'t [AtomicU64],
}

impl<'t> Zspage<'t> {
    pub(super) fn new(table: &'t WordTable, id: u32, shape: ClassShape) -> Self {
        Zspage {
            id,
            shape,
            words: table.words(id),
        }
    }

    fn get(&self, word: usize) -> u64 {
        self.words[word].load(Ordering::Relaxed)
    }

    fn set(&self, word: usize, value: u64) {
        self.words[word].store(value, Ordering::Relaxed);
    }

    /// A zspage without objects, in no list; its frames come later.
    pub(super) fn clear(&self) {
        for word in 0..HEAD + bit_words(self.shape) {
            self.set(word, 0);
        }
    }

    /// Says which its `nth` frame is.
    pub(super) fn set_frame(&self, nth: usize, frame: Frame) {
        self.set(HEAD + bit_words(self.shape) + nth, frame.pfn().get());
    }

    /// Takes the `nth` frame out of it: for the one who takes it apart.
    pub(super) fn frame(&self, nth: usize) -> Frame {
        Frame::from_unused(self.pfn(nth))
    }

    pub(super) fn pfn(&self, nth: usize) -> Pfn {
        match Pfn::try_new(self.get(HEAD + bit_words(self.shape) + nth)) {
            Ok(pfn) => pfn,
            Err(_) => unreachable!("it was a frame's number when it was written"),
        }
    }

    pub(super) fn shape(&self) -> ClassShape {
        self.shape
    }

    pub(super) fn inuse(&self) -> u16 {
        (self.get(0) & INUSE) as u16
    }

    pub(super) fn group(&self) -> Group {
        Group(((self.get(0) & GROUP) >> GROUP_SHIFT) as u8)
    }

    /// How full it is, whatever list it is in.
    pub(super) fn fullness(&self) -> Group {
        Group::of(self.inuse(), self.shape.objects)
    }

    pub(super) fn is_used(&self, index: u16) -> bool {
        let (word, bit) = Self::bit(index);
        self.get(word) & bit != 0
    }

    fn bit(index: u16) -> (usize, u64) {
        let index = usize::from(index);
        (HEAD + index / WORD_BITS, 1 << (index % WORD_BITS))
    }

    /// The first object that is not in use.
    pub(super) fn first_unused(&self) -> Option<u16> {
        let words = HEAD..HEAD + bit_words(self.shape);
        let (at, bits) = words
            .map(|w| (w, self.get(w)))
            .find(|(_, b)| *b != u64::MAX)?;
        let index = (at - HEAD) * WORD_BITS + bits.trailing_ones() as usize;
        (index < usize::from(self.shape.objects)).then_some(index as u16)
    }

    /// The first object in use from `from` on.
    pub(super) fn next_used(&self, from: u16) -> Option<u16> {
        (from..self.shape.objects).find(|index| self.is_used(*index))
    }

    pub(super) fn mark(&self, index: u16, used: bool) {
        let (word, bit) = Self::bit(index);
        debug_assert_ne!(self.is_used(index), used);
        self.set(word, self.get(word) ^ bit);
        self.set(
            0,
            if used {
                self.get(0) + 1
            } else {
                self.get(0) - 1
            },
        );
    }

    /// The slot of the one object of a huge zspage.
    pub(super) fn owner(&self) -> u32 {
        (self.get(0) >> OWNER_SHIFT) as u32
    }

    pub(super) fn set_owner(&self, slot: u32) {
        let rest = self.get(0) & ((1 << OWNER_SHIFT) - 1);
        self.set(0, u64::from(slot) << OWNER_SHIFT | rest);
    }

    /// Where `len` bytes are, `skip` bytes behind the start of object `index`.
    pub(super) fn span(&self, index: u16, skip: usize, len: usize) -> Span {
        let page = PAGE_SIZE as usize;
        let start = usize::from(index) * usize::from(self.shape.size) + skip;
        let (nth, offset) = (start / page, start % page);
        let first_len = len.min(page - offset);
        let second = (first_len < len).then(|| self.pfn(nth + 1).phys());
        Span {
            first: plus(self.pfn(nth).phys(), offset),
            first_len,
            second,
            second_len: len - first_len,
        }
    }
}

/// What the lock of a class protects, beside the records of its zspages.
#[derive(Debug, Default)]
pub(super) struct Lists {
    /// First zspage of each list + 1; 0: none.
    heads: [u32; Group::COUNT + 2],
    /// Zspages by fullness, whatever list they are in.
    pub(super) groups: [u32; Group::COUNT],
    pub(super) zspages: u32,
    /// Objects in use.
    pub(super) used: u64,
    /// Bytes asked for by those.
    pub(super) bytes: u64,
}

impl Lists {
    pub(super) fn head(&self, group: Group) -> Option<u32> {
        self.heads[group.index()].checked_sub(1)
    }

    /// The zspage behind `zspage` in its list.
    pub(super) fn behind(zspage: &Zspage<'_>) -> Option<u32> {
        ((zspage.get(1) >> 32) as u32).checked_sub(1)
    }

    /// The zspage before `zspage` in its list.
    pub(super) fn before(zspage: &Zspage<'_>) -> Option<u32> {
        (zspage.get(1) as u32).checked_sub(1)
    }

    /// Puts `zspage` in front of `group`'s list.
    pub(super) fn link(&mut self, table: &WordTable, zspage: &Zspage<'_>, group: Group) {
        let head = &mut self.heads[group.index()];
        zspage.set(1, u64::from(*head) << 32);
        if let Some(next) = head.checked_sub(1) {
            let next = Zspage::new(table, next, zspage.shape);
            next.set(
                1,
                next.get(1) & !u64::from(u32::MAX) | u64::from(zspage.id + 1),
            );
        }
        *head = zspage.id + 1;
        let rest = zspage.get(0) & !GROUP;
        zspage.set(0, rest | u64::from(group.0) << GROUP_SHIFT);
    }

    /// Takes `zspage` out of its list.
    pub(super) fn unlink(&mut self, table: &WordTable, zspage: &Zspage<'_>) {
        let links = zspage.get(1);
        let (before, behind) = (links as u32, (links >> 32) as u32);
        match before.checked_sub(1) {
            Some(before) => {
                let before = Zspage::new(table, before, zspage.shape);
                before.set(
                    1,
                    before.get(1) & u64::from(u32::MAX) | u64::from(behind) << 32,
                );
            }
            None => self.heads[zspage.group().index()] = behind,
        }
        if let Some(behind) = behind.checked_sub(1) {
            let behind = Zspage::new(table, behind, zspage.shape);
            behind.set(1, behind.get(1) & !u64::from(u32::MAX) | u64::from(before));
        }
    }

    /// A new zspage, without objects.
    pub(super) fn insert(&mut self, table: &WordTable, zspage: &Zspage<'_>) {
        self.zspages += 1;
        self.groups[Group::EMPTY.index()] += 1;
        self.link(table, zspage, Group::EMPTY);
    }

    /// Takes a zspage without objects out of the books.
    pub(super) fn remove(&mut self, table: &WordTable, zspage: &Zspage<'_>) {
        debug_assert_eq!(zspage.inuse(), 0);
        self.unlink(table, zspage);
        self.groups[Group::EMPTY.index()] -= 1;
        self.zspages -= 1;
    }

    /// Marks an object of `zspage` and puts the zspage where it belongs then.
    pub(super) fn mark(&mut self, table: &WordTable, zspage: &Zspage<'_>, index: u16, used: bool) {
        let before = zspage.fullness();
        zspage.mark(index, used);
        let after = zspage.fullness();
        if before != after {
            self.groups[before.index()] -= 1;
            self.groups[after.index()] += 1;
            let stays = match zspage.group() {
                Group::SOURCE => true,
                Group::ASIDE => after != Group::FULL,
                _ => false,
            };
            if !stays {
                self.unlink(table, zspage);
                self.link(table, zspage, after);
            }
        }
    }

    /// The fullest zspage that has room.
    pub(super) fn with_room(&self) -> Option<u32> {
        Group::with_room().find_map(|group| self.head(group))
    }
}
