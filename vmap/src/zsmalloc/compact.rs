//! Compaction: objects move from sparse zspages to dense ones, and the frames that are left over go back.
//!
//! Handles stay as they are: they name a slot, and the slot says where the object is. An object moves while nobody holds it: compaction
//! takes it for itself alone or, if it is held, passes over it. So a reader sees it whole, at the old place or at the new one.

use pageless_fault::NoSuchFrame;
use pageless_fault::sync::atomic::Ordering;

use super::pool::{Class, Zsmalloc};
use super::slot::{Location, Pin};
use super::source::FrameSource;
use super::zspage::{Group, Lists, Zspage};

/// Bytes that are moved at once.
const CHUNK: usize = 512;

/// How far a zspage could be emptied.
enum Evacuated {
    /// All objects that nobody holds have moved.
    Tried,
    /// No other zspage has room.
    NoRoom,
}

impl<F: FrameSource> Zsmalloc<F> {
    /// Moves objects together and gives the frames back that become free; says how many those are. Objects that are being read or
    /// written stay where they are. Holds the lock of a class for one zspage at a time, and needs no memory.
    pub fn compact(&self) -> u64 {
        // The classes with the most to gain first.
        let classes = self.classes().iter().rev();
        let freed = classes.map(|class| self.compact_class(class)).sum();
        self.compacted.fetch_add(freed, Ordering::Relaxed);
        freed
    }

    /// Frames that compaction would give back now, if nobody held any object (Linux: `zs_can_compact`, over all classes).
    #[must_use]
    pub fn can_compact(&self) -> u64 {
        let classes = self.classes().iter();
        classes
            .map(|class| freeable(class, &class.lists.lock()))
            .sum()
    }

    fn compact_class(&self, class: &Class) -> u64 {
        let table = self.records_of(class);
        let mut freed = 0;
        let mut lists = class.lists.lock();
        while freeable(class, &lists) > 0 {
            let Some(id) = Group::partial().find_map(|group| lists.head(group)) else {
                break;
            };
            let source = self.zspage(class, id);
            lists.unlink(table, &source);
            lists.link(table, &source, Group::SOURCE);
            let evacuated = self.evacuate(class, &mut lists, &source);
            if source.inuse() == 0 {
                lists.remove(table, &source);
                drop(lists);
                self.take_apart(class, source);
                freed += u64::from(class.shape.pages);
                lists = class.lists.lock();
                continue;
            }
            lists.unlink(table, &source);
            lists.link(table, &source, Group::ASIDE);
            if let Evacuated::NoRoom = evacuated {
                break;
            }
        }
        while let Some(id) = lists.head(Group::ASIDE) {
            let zspage = self.zspage(class, id);
            lists.unlink(table, &zspage);
            lists.link(table, &zspage, zspage.fullness());
        }
        freed
    }

    /// Moves the objects of `source`, which is in no list that one allocates from, to those that have to stay, and to the fullest
    /// that have room.
    fn evacuate(&self, class: &Class, lists: &mut Lists, source: &Zspage<'_>) -> Evacuated {
        let table = self.records_of(class);
        let mut next = source.next_used(0);
        while let Some(index) = next {
            next = source.next_used(index + 1);
            // A header that is none is for `self_check` to report.
            let Some(slot) = self.slot_of(source, index) else {
                continue;
            };
            let Some(pin) = Pin::try_alone(slot) else {
                continue;
            };
            let mut targets = core::iter::once(Group::ASIDE).chain(Group::partial().rev());
            let Some(id) = targets.find_map(|group| lists.head(group)) else {
                return Evacuated::NoRoom;
            };
            let target = self.zspage(class, id);
            let Some(free) = target.first_unused() else {
                unreachable!("a zspage that is not full");
            };
            let from = pin.location();
            debug_assert_eq!((from.zspage, from.index), (source.id, index));
            let bytes = class.shape.header() + usize::from(from.len);
            if self.copy(source, index, &target, free, bytes).is_err() {
                continue;
            }
            lists.mark(table, &target, free, true);
            lists.mark(table, source, index, false);
            pin.moved_to(Location {
                zspage: id,
                index: free,
                len: from.len,
            });
        }
        Evacuated::Tried
    }

    /// Copies an object with its header.
    fn copy(
        &self,
        source: &Zspage<'_>,
        from: u16,
        target: &Zspage<'_>,
        to: u16,
        bytes: usize,
    ) -> Result<(), NoSuchFrame> {
        let (from, to) = (source.span(from, 0, bytes), target.span(to, 0, bytes));
        let mut buffer = [0; CHUNK];
        for offset in (0..bytes).step_by(CHUNK) {
            let buffer = &mut buffer[..CHUNK.min(bytes - offset)];
            from.read(self.memory(), offset, buffer)?;
            to.write(self.memory(), offset, buffer)?;
        }
        Ok(())
    }
}

/// Frames of as many zspages as the unused objects of a class would fill.
pub(super) fn freeable(class: &Class, lists: &Lists) -> u64 {
    let objects = u64::from(class.shape.objects);
    let unused = u64::from(lists.zspages) * objects - lists.used;
    unused / objects * u64::from(class.shape.pages)
}
