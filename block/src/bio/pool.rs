//! Bios that are used again: no allocation while an I/O loop runs.

use alloc::boxed::Box;
use alloc::vec::Vec;

use pageless_pfn::{ByteLen, PhysSegment};

use crate::bio::completion::Notify;
use crate::bio::direction::{FromDevice, NoData, ToDevice};
use crate::bio::{Bio, Inner};
use crate::failpoint::Failpoint;
use crate::flags::BioFlags;
use crate::op::Op;
use crate::position::Sector;
use crate::priority::Priority;

/// A stock of bios. Takes memory from the heap only when it is empty, and keeps what it is given.
///
/// Every [`Context`](crate::Context) has one. A bio from one pool may be given to another.
///
/// ```
/// use pageless_block::{BioPool, Sector};
/// use pageless_pfn::{ByteLen, FrameOffset, Pfn, PhysSegment};
/// let frame = Pfn::try_new(0x100)?.into();
/// let segment = PhysSegment::try_new(frame, FrameOffset::ZERO, ByteLen::new(4096))?;
/// let mut pool = BioPool::with_capacity(8);
/// let bio = pool.read(Sector::new(0), segment);
/// assert_eq!(pool.available(), 7);
/// pool.put(bio);
/// assert_eq!(pool.available(), 8);
/// # Ok::<(), Box<dyn core::error::Error>>(())
/// ```
#[derive(Default)]
pub struct BioPool {
    #[expect(clippy::vec_box, reason = "the boxes are what is handed out")]
    free: Vec<Box<Inner>>,
}

impl BioPool {
    /// An empty pool.
    pub const fn new() -> Self {
        Self { free: Vec::new() }
    }

    /// A pool of `bios` bios.
    pub fn with_capacity(bios: usize) -> Self {
        Self {
            free: (0..bios).map(|_| Box::new(Inner::empty())).collect(),
        }
    }

    /// How many can be had without an allocation.
    pub fn available(&self) -> usize {
        self.free.len()
    }

    /// As [`Bio::read`].
    #[inline]
    pub fn read(&mut self, sector: Sector, segment: PhysSegment) -> Bio<FromDevice> {
        Bio::from_inner(self.with_one(Op::Read, sector, segment))
    }

    /// As [`Bio::write`].
    #[inline]
    pub fn write(&mut self, sector: Sector, segment: PhysSegment) -> Bio<ToDevice> {
        Bio::from_inner(self.with_one(Op::Write, sector, segment))
    }

    /// As [`Bio::flush`].
    #[inline]
    pub fn flush(&mut self) -> Bio<NoData> {
        let inner = self.take(Op::Write, Sector::new(0), ByteLen::ZERO);
        Bio::from_inner(inner).with_flags(BioFlags::PREFLUSH)
    }

    /// As [`Bio::with_range`]: any operation, about `len` bytes of the device, without segments.
    #[inline]
    pub fn with_range(&mut self, op: Op, sector: Sector, len: ByteLen) -> Bio {
        Bio::from_inner(self.take(op, sector, len))
    }

    /// Takes a bio that is of no more use. What its completion was to go to is dropped.
    #[inline]
    pub fn put<D>(&mut self, bio: Bio<D>) {
        self.put_inner(bio.inner);
    }

    #[inline]
    fn with_one(&mut self, op: Op, sector: Sector, segment: PhysSegment) -> Box<Inner> {
        let mut inner = self.take(op, sector, segment.len());
        inner.segments.push(segment);
        inner
    }

    #[inline]
    fn take(&mut self, op: Op, sector: Sector, len: ByteLen) -> Box<Inner> {
        let mut inner = match self.free.pop() {
            Some(inner) => inner,
            None => fresh(),
        };
        inner.op = op;
        inner.flags = BioFlags::empty();
        inner.priority = Priority::NONE;
        inner.sector = sector;
        inner.len = len.get();
        inner.token = 0;
        inner
    }

    /// A bio to become a piece of another, or `None` if there is no memory.
    pub(crate) fn take_piece(&mut self) -> Option<Box<Inner>> {
        if Failpoint::BioAlloc.hit() {
            return None;
        }
        Some(self.take(Op::Flush, Sector::new(0), ByteLen::ZERO))
    }

    #[inline]
    pub(crate) fn put_inner(&mut self, mut inner: Box<Inner>) {
        // Every field that `take` does not set must be as in an empty one. Looking costs less than
        // writing: the stores of an I/O path wait behind those of the copy.
        if inner.odd {
            make_even(&mut inner);
        }
        inner.segments.clear();
        self.free.push(inner);
    }
}

#[cold]
#[inline(never)]
fn make_even(inner: &mut Inner) {
    inner.odd = false;
    inner.notify = Notify::Reap;
    inner.part_of = None;
    inner.waits_for = None;
    inner.before = 0;
    inner.written = None;
}

#[cold]
fn fresh() -> Box<Inner> {
    Box::new(Inner::empty())
}

impl core::fmt::Debug for BioPool {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "BioPool({} bios)", self.free.len())
    }
}
