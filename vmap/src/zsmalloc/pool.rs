//! The pool: objects come and go.

use alloc::vec::Vec;
use core::fmt;

use pageless_fault::sync::Mutex;
use pageless_fault::sync::atomic::{AtomicU64, Ordering};
use pageless_fault::{Cpus, FrameMemory, NoSuchFrame};

use crate::frames::Gfp;

use super::class::{ChainSize, ClassShape, ClassTable, MAX_OBJECT};
use super::error::{AccessError, FreeRefused, MallocError, NotFreed};
use super::handle::{Handle, PoolId};
use super::slot::{self, Location, Pin, ZSPAGES};
use super::source::FrameSource;
use super::span::Span;
use super::table::WordTable;
use super::zspage::{self, Lists, Zspage};

/// Records in the first segments of a table: of slots, of zspages.
const FIRST_SLOTS: usize = 64;
const FIRST_ZSPAGES: usize = 8;

/// One class of a pool.
pub(super) struct Class {
    pub(super) shape: ClassShape,
    pub(super) lists: Mutex<Lists>,
    /// Where its zspages' records are.
    table: usize,
}

/// An allocator for objects of 1 to 4096 bytes that wastes little: see the [module](super).
pub struct Zsmalloc<F: FrameSource> {
    source: F,
    id: PoolId,
    table: ClassTable,
    classes: Vec<Class>,
    /// Records of zspages, by their length: classes whose records are as long share them.
    records: Vec<WordTable>,
    pub(super) slots: WordTable,
    /// Frames that compaction has given back.
    pub(super) compacted: AtomicU64,
}

impl<F: FrameSource> Zsmalloc<F> {
    /// A pool without objects, with Linux's classes.
    #[must_use]
    pub fn new(source: F) -> Self {
        Self::with_chain(source, ChainSize::DEFAULT)
    }

    /// A pool whose zspages have at most `chain` frames.
    #[must_use]
    pub fn with_chain(source: F, chain: ChainSize) -> Self {
        let table = ClassTable::new(chain);
        let mut strides: Vec<usize> = Vec::new();
        let mut classes = Vec::with_capacity(table.shapes().len());
        for &shape in table.shapes() {
            let stride = zspage::stride(shape);
            let table = strides.iter().position(|s| *s == stride);
            classes.push(Class {
                shape,
                lists: Mutex::new(Lists::default()),
                table: table.unwrap_or_else(|| {
                    strides.push(stride);
                    strides.len() - 1
                }),
            });
        }
        let records = |stride| WordTable::new(stride, FIRST_ZSPAGES, ZSPAGES);
        Zsmalloc {
            source,
            id: PoolId::next(),
            table,
            classes,
            records: strides.into_iter().map(records).collect(),
            slots: WordTable::new(1, FIRST_SLOTS, u32::MAX - 2),
            compacted: AtomicU64::new(0),
        }
    }

    /// The classes.
    #[must_use]
    pub fn class_table(&self) -> &ClassTable {
        &self.table
    }

    /// Where the frames come from.
    #[must_use]
    pub fn source(&self) -> &F {
        &self.source
    }

    pub(super) fn memory(&self) -> &F::Memory {
        self.source.memory()
    }

    pub(super) fn classes(&self) -> &[Class] {
        &self.classes
    }

    pub(super) fn records(&self) -> &[WordTable] {
        &self.records
    }

    pub(super) fn records_of(&self, class: &Class) -> &WordTable {
        &self.records[class.table]
    }

    pub(super) fn zspage(&self, class: &Class, id: u32) -> Zspage<'_> {
        Zspage::new(self.records_of(class), id, class.shape)
    }

    pub(super) fn slot(&self, slot: u32) -> &AtomicU64 {
        &self.slots.words(slot)[0]
    }

    /// Room for `size` bytes; what they are nobody knows until they are [written](Self::write). Neither sleeps nor waits but as `gfp`
    /// lets the source of frames.
    ///
    /// # Errors
    ///
    /// See [`MallocError`]: 0 bytes, more than 4096, or no memory. Nothing has changed then.
    pub fn malloc(&self, gfp: &Gfp<'_>, size: usize) -> Result<Handle, MallocError> {
        let index = match self.table.index_of(size) {
            Some(index) => index,
            None if size == 0 => return Err(MallocError::Invalid),
            None => return Err(MallocError::TooLarge { size }),
        };
        let slot = self.slots.take()?;
        match self.place(gfp, &self.classes[index], slot, size) {
            Ok(()) => Ok(Handle::new(self.id, index, slot)),
            Err(error) => {
                self.slots.give_back(slot);
                Err(error)
            }
        }
    }

    /// Finds room in `class` for the object of `slot`.
    fn place(
        &self,
        gfp: &Gfp<'_>,
        class: &Class,
        slot: u32,
        size: usize,
    ) -> Result<(), MallocError> {
        let table = self.records_of(class);
        let mut lists = class.lists.lock();
        let id = match lists.with_room() {
            Some(id) => id,
            None => {
                // The source may sleep.
                drop(lists);
                let zspage = self.build(gfp, class)?;
                lists = class.lists.lock();
                lists.insert(table, &zspage);
                zspage.id
            }
        };
        let zspage = self.zspage(class, id);
        let Some(index) = zspage.first_unused() else {
            unreachable!("a zspage that has room");
        };
        if let Err(error) = self.set_header(&zspage, index, slot) {
            if zspage.inuse() == 0 {
                lists.remove(table, &zspage);
                drop(lists);
                self.take_apart(class, zspage);
            }
            return Err(error.into());
        }
        lists.mark(table, &zspage, index, true);
        lists.used += 1;
        lists.bytes += size as u64;
        let location = Location {
            zspage: id,
            index,
            len: size as u16,
        };
        // Under the lock: compaction finds the object by its bit, and then its slot.
        slot::publish(self.slot(slot), location);
        Ok(())
    }

    /// A zspage without objects, in no list.
    fn build(&self, gfp: &Gfp<'_>, class: &Class) -> Result<Zspage<'_>, MallocError> {
        let table = self.records_of(class);
        let zspage = self.zspage(class, table.take()?);
        zspage.clear();
        for nth in 0..class.shape.pages {
            match self.source.take(gfp) {
                Ok(frame) => zspage.set_frame(nth.into(), frame),
                Err(_) => {
                    self.give_back(zspage, nth);
                    table.give_back(zspage.id);
                    return Err(MallocError::NoFrame {
                        had: nth,
                        wanted: class.shape.pages,
                    });
                }
            }
        }
        Ok(zspage)
    }

    /// Gives the frames of a zspage back that is in no list and has no objects, and its record.
    pub(super) fn take_apart(&self, class: &Class, zspage: Zspage<'_>) {
        self.give_back(zspage, class.shape.pages);
        self.records_of(class).give_back(zspage.id);
    }

    /// Gives the first `frames` frames of a zspage back.
    fn give_back(&self, zspage: Zspage<'_>, frames: u8) {
        for nth in 0..frames {
            self.source.give_back(zspage.frame(nth.into()));
        }
    }

    fn set_header(&self, zspage: &Zspage<'_>, index: u16, slot: u32) -> Result<(), NoSuchFrame> {
        let header = zspage.shape().header();
        if header == 0 {
            zspage.set_owner(slot);
            return Ok(());
        }
        let span = zspage.span(index, 0, header);
        self.memory()
            .write(span.first, &header_of(slot).to_le_bytes())
    }

    /// The slot of an object in use; `None` if its header is no header.
    pub(super) fn owner(
        &self,
        zspage: &Zspage<'_>,
        index: u16,
    ) -> Result<Option<u32>, NoSuchFrame> {
        if zspage.shape().header() == 0 {
            return Ok(Some(zspage.owner()));
        }
        let mut header = [0; 8];
        let span = zspage.span(index, 0, header.len());
        self.memory().read(span.first, &mut header)?;
        let header = u64::from_le_bytes(header);
        let slot = (header >> 1) as u32;
        Ok((header == header_of(slot)).then_some(slot))
    }

    /// The slot of an object in use, if its header names one that names the object: somebody may have written over it.
    pub(super) fn slot_of(&self, zspage: &Zspage<'_>, index: u16) -> Option<&AtomicU64> {
        let owner = self.owner(zspage, index).ok().flatten()?;
        let slot = (owner < self.slots.len()).then(|| self.slot(owner))?;
        let Location {
            zspage: id,
            index: at,
            ..
        } = slot::peek(slot);
        ((id, at) == (zspage.id, index)).then_some(slot)
    }

    /// Gives an object back, and the frames of its zspage if it was the last one there. In any context that the source's
    /// [`give_back`](FrameSource::give_back) allows.
    ///
    /// # Errors
    ///
    /// See [`FreeRefused`]; the handle comes back.
    pub fn free(&self, handle: Handle) -> Result<(), NotFreed> {
        if handle.pool() != self.id.get() {
            let why = FreeRefused::ForeignHandle {
                theirs: handle.pool(),
                ours: self.id.get(),
            };
            return Err(NotFreed { handle, why });
        }
        let class = &self.classes[handle.class()];
        let table = self.records_of(class);
        let mut lists = class.lists.lock();
        // Whoever reads borrows the handle, and nobody moves the object without the lock.
        let Some(pin) = Pin::try_alone(self.slot(handle.slot())) else {
            let why = FreeRefused::Held;
            return Err(NotFreed { handle, why });
        };
        let Location { zspage, index, len } = pin.location();
        pin.retire();
        let zspage = self.zspage(class, zspage);
        lists.mark(table, &zspage, index, false);
        lists.used -= 1;
        lists.bytes -= u64::from(len);
        let emptied = zspage.inuse() == 0;
        if emptied {
            lists.remove(table, &zspage);
        }
        drop(lists);
        self.slots.give_back(handle.slot());
        if emptied {
            self.take_apart(class, zspage);
        }
        Ok(())
    }

    /// Bytes of the object, as they were asked for.
    ///
    /// # Errors
    ///
    /// [`AccessError::ForeignHandle`].
    pub fn size_of(&self, handle: &Handle) -> Result<usize, AccessError> {
        let (_, slot) = self.resolve(handle)?;
        Ok(usize::from(slot::peek(slot).len))
    }

    /// The class of the object.
    ///
    /// # Errors
    ///
    /// [`AccessError::ForeignHandle`].
    pub fn class_of(&self, handle: &Handle) -> Result<ClassShape, AccessError> {
        Ok(self.resolve(handle)?.0.shape)
    }

    fn resolve(&self, handle: &Handle) -> Result<(&Class, &AtomicU64), AccessError> {
        if handle.pool() != self.id.get() {
            return Err(AccessError::ForeignHandle {
                theirs: handle.pool(),
                ours: self.id.get(),
            });
        }
        Ok((&self.classes[handle.class()], self.slot(handle.slot())))
    }

    /// Holds the object where it is, beside other readers or alone.
    pub(super) fn hold(&self, handle: &Handle, alone: bool) -> Result<Held<'_>, AccessError> {
        let (class, slot) = self.resolve(handle)?;
        let relax = |turn| self.memory().relax(turn);
        let pin = match alone {
            true => Pin::alone(slot, relax),
            false => Pin::shared(slot, relax),
        };
        let Location { zspage, index, len } = pin.location();
        let zspage = self.zspage(class, zspage);
        Ok(Held {
            span: zspage.span(index, class.shape.header(), usize::from(len)),
            pin,
        })
    }
}

/// An object that stays where it is.
#[derive(Debug)]
pub(super) struct Held<'p> {
    pub(super) span: Span,
    pub(super) pin: Pin<'p>,
}

/// What stands at the start of an object in use: an odd number, as in Linux.
fn header_of(slot: u32) -> u64 {
    u64::from(slot) << 1 | 1
}

const _: () = assert!(MAX_OBJECT <= u16::MAX as usize);

impl<F: FrameSource> Drop for Zsmalloc<F> {
    /// Gives all frames back, those of objects whose handles still exist as well. A zspage with a mapping that was never taken away
    /// keeps its frames.
    fn drop(&mut self) {
        for class in &self.classes {
            let mut lists = class.lists.lock();
            for group in zspage::Group::all() {
                while let Some(id) = lists.head(group) {
                    let zspage = self.zspage(class, id);
                    lists.unlink(self.records_of(class), &zspage);
                    if self.is_unheld(&zspage) {
                        self.take_apart(class, zspage);
                    }
                }
            }
        }
    }
}

impl<F: FrameSource> Zsmalloc<F> {
    /// Whether nobody holds any object of `zspage`.
    fn is_unheld(&self, zspage: &Zspage<'_>) -> bool {
        let mut next = zspage.next_used(0);
        while let Some(index) = next {
            if !self.slot_of(zspage, index).is_some_and(slot::is_unpinned) {
                return false;
            }
            next = zspage.next_used(index + 1);
        }
        true
    }
}

impl<F: FrameSource> fmt::Debug for Zsmalloc<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Zsmalloc")
            .field("id", &self.id)
            .field("compacted", &self.compacted.load(Ordering::Relaxed))
            .finish_non_exhaustive()
    }
}
