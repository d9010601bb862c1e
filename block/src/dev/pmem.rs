//! A device of persistent memory: bytes move between the bio's frames and the device's own.

use alloc::sync::Arc;

use pageless_pfn::{ByteLen, PfnFlags, PfnRange, PfnT, PhysSegment};
use rustix::io::Errno;
use thiserror::Error;

use crate::access::{AccessError, FrameAccess, copy_frames, stream_frames};
use crate::device::{BlockDevice, Submitted};
use crate::flags::BioFlags;
use crate::frames::pmem::{LayoutError, PmemFrames};
use crate::limits::{Features, LimitError, Limits};
use crate::op::Op;
use crate::position::BytePos;
use crate::request::Request;
use crate::request::data::Data;
use crate::status::{BlkError, Failure};

/// Zeroes up to this many bytes are written; beyond, the range is punched out.
const WRITE_ZEROES_LIMIT: u64 = 1 << 20;

/// The persistent-memory driver.
///
/// `M` reaches the frames of the bios. Frames of the device itself are known to it as well, so
/// that a bio may copy from one part of the device to another.
///
/// | operation | what happens |
/// |---|---|
/// | READ, WRITE | a copy between the two spans, nothing else |
/// | FLUSH | an image is written back (`fdatasync`); nothing to do for a memfd |
/// | DISCARD | the range's memory or blocks are given back; it reads as zeroes |
/// | WRITE_ZEROES | up to 1 MiB zeroes are written, beyond that as DISCARD |
///
/// ```
/// use pageless_block::{Bio, FrameAccess, Pmem, PmemFrames, RamFrames, Sector, submit_sync};
/// use pageless_pfn::{ByteLen, FrameCount, Pfn};
/// let ram = RamFrames::new(Pfn::try_new(0x100)?, FrameCount::new(16))?;
/// let frames = PmemFrames::memfd(Pfn::try_new(1 << 30)?, ByteLen::new(6 << 40))?;
/// let device = Pmem::new(frames, &ram);
///
/// let buffer = ram.segment(0, ByteLen::new(4096)).unwrap();
/// ram.write_bytes(buffer, b"pageless")?;
/// submit_sync(&device, Bio::write(Sector::new(1 << 30), buffer))?.result()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Pmem<M> {
    frames: Arc<PmemFrames>,
    memory: M,
    limits: Limits,
    /// Whether writes go past the caches.
    streams: bool,
}

impl<M: FrameAccess> Pmem<M> {
    /// The device that consists of `frames`, for bios whose frames `memory` reaches. No limit on
    /// a request, logical blocks of one sector.
    pub fn new(frames: impl Into<Arc<PmemFrames>>, memory: M) -> Self {
        let frames = frames.into();
        let mut limits = Limits::new(frames.len());
        limits.max_discard = Limits::UNLIMITED;
        limits.max_write_zeroes = Limits::UNLIMITED;
        limits.features |= Features::WRITE_CACHE | Features::SYNCHRONOUS | Features::DAX;
        Self {
            frames,
            memory,
            limits,
            streams: false,
        }
    }

    /// The same with other limits: whatever `change` makes of its own. The capacity stays.
    ///
    /// # Errors
    /// [`LimitError`] if the limits make no sense then.
    pub fn with_limits(mut self, change: impl FnOnce(&mut Limits)) -> Result<Self, LimitError> {
        let capacity = self.limits.capacity;
        change(&mut self.limits);
        self.limits.capacity = capacity;
        self.limits.validate()?;
        Ok(self)
    }

    /// The same with writes that go past the caches, on x86-64, as those of Linux's pmem driver do: see
    /// [`Span::stream_to`](crate::Span::stream_to). Faster where writes range over more than the caches hold, several
    /// times slower where what is written is still in them. Durability is a flush's business either way.
    #[must_use]
    pub const fn with_streamed_writes(mut self) -> Self {
        self.streams = true;
        self
    }

    /// The frames it consists of.
    pub const fn frames(&self) -> &Arc<PmemFrames> {
        &self.frames
    }

    /// Which frames those are.
    pub fn range(&self) -> PfnRange {
        self.frames.range()
    }

    /// What reaches the frames of its bios.
    pub const fn memory(&self) -> &M {
        &self.memory
    }

    /// The frame that holds byte `at`, with `flags` and `DEV`. With [`PfnFlags::MAP`] among the
    /// flags it is one of which a descriptor may be asked for; say so only where a memmap covers
    /// the device.
    ///
    /// # Errors
    /// [`BeyondDevice`].
    #[inline]
    pub fn pfn_of(&self, at: BytePos, flags: PfnFlags) -> Result<PfnT, BeyondDevice> {
        let (len, capacity) = (ByteLen::new(1), self.frames.len());
        self.frames
            .pfn_of(at, flags)
            .ok_or(BeyondDevice { at, len, capacity })
    }

    /// `len` bytes from `at` on as a segment, with `flags` and `DEV`.
    ///
    /// # Errors
    /// [`BeyondDevice`], also where there are no bytes.
    #[inline]
    pub fn segment(
        &self,
        at: BytePos,
        len: ByteLen,
        flags: PfnFlags,
    ) -> Result<PhysSegment, BeyondDevice> {
        let capacity = self.frames.len();
        self.frames
            .segment(at, len, flags)
            .ok_or(BeyondDevice { at, len, capacity })
    }

    /// See [`PmemFrames::layout`].
    ///
    /// # Errors
    /// As there.
    pub fn layout(&self, at: BytePos, len: ByteLen) -> Result<(), LayoutError> {
        self.frames.layout(at, len)
    }

    #[inline]
    fn read(&self, request: &Request) -> Result<(), Failure> {
        self.each_part(request, |device, memory| match self.is_own(memory) {
            false => copy_frames(&*self.frames, device, &self.memory, memory),
            true => copy_frames(&*self.frames, device, &self.everything(), memory),
        })
    }

    #[inline]
    fn write(&self, request: &Request) -> Result<(), Failure> {
        self.each_part(request, |device, memory| match self.is_own(memory) {
            false if self.streams => stream_frames(&self.memory, memory, &*self.frames, device),
            false => copy_frames(&self.memory, memory, &*self.frames, device),
            true => copy_frames(&self.everything(), memory, &*self.frames, device),
        })
    }

    /// Calls `copy` with each segment of memory and the part of the device that belongs to it. The failure of one says how
    /// many bytes those before it had.
    #[inline]
    fn each_part(
        &self,
        request: &Request,
        copy: impl Fn(PhysSegment, PhysSegment) -> Result<(), AccessError>,
    ) -> Result<(), Failure> {
        let mut at = request.position();
        for memory in request.segments() {
            let here = self.own(at, memory.len())?;
            copy(here, memory).map_err(|error| Failure {
                error: error.into(),
                done: ByteLen::new(at.get() - request.position().get()),
            })?;
            at = at.checked_add(memory.len()).ok_or(BlkError::Io)?;
        }
        Ok(())
    }

    /// Whether the memory of a bio is the device's own, or runs from one into the other.
    #[inline]
    fn is_own(&self, memory: PhysSegment) -> bool {
        self.frames.range().intersects(memory.frames())
    }

    /// What reaches both.
    #[cold]
    fn everything(&self) -> (&PmemFrames, &M) {
        (&*self.frames, &self.memory)
    }

    /// The device's own bytes. Requests lie within it, so failing is not to be expected.
    #[inline]
    fn own(&self, at: BytePos, len: ByteLen) -> Result<PhysSegment, BlkError> {
        self.frames
            .segment(at, len, PfnFlags::empty())
            .ok_or(BlkError::Io)
    }
}

impl<M: FrameAccess> BlockDevice for Pmem<M> {
    #[inline]
    fn limits(&self) -> Limits {
        self.limits
    }

    #[inline]
    fn submit(&self, request: Request) -> Submitted {
        request.run(|request| match request.data() {
            Data::ToMemory(_) => self.read(request),
            Data::FromMemory(_) => self.write(request),
            Data::None => self.manage(request),
        })
    }

    /// The page walk and the first misses of a block that no cache holds then happen while the request is
    /// being made. More lines than these gain nothing, measured.
    #[inline]
    fn expect(&self, op: Op, at: BytePos) {
        match op {
            Op::Read => self.frames.expect(at, false, 4),
            // A line that is on its way to a cache is in the way of a store past it.
            Op::Write if !self.streams => self.frames.expect(at, true, 8),
            _ => {}
        }
    }
}

impl<M: FrameAccess> Pmem<M> {
    #[cold]
    #[inline(never)]
    fn manage(&self, request: &Request) -> Result<(), Failure> {
        let (at, len) = (request.position(), request.len());
        match request.op() {
            Op::Flush => Ok(self.frames.sync().map_err(status_of)?),
            Op::Discard => Ok(self.frames.punch(at, len).map_err(status_of)?),
            Op::WriteZeroes => {
                if len.get() > WRITE_ZEROES_LIMIT && !request.flags().contains(BioFlags::NOUNMAP) {
                    match self.frames.punch(at, len) {
                        Err(Errno::OPNOTSUPP) => {}
                        other => return Ok(other.map_err(status_of)?),
                    }
                }
                Ok(self.frames.zero_bytes(self.own(at, len)?)?)
            }
            _ => Err(BlkError::NotSupported.into()),
        }
    }
}

fn status_of(errno: Errno) -> BlkError {
    match errno {
        Errno::OPNOTSUPP => BlkError::NotSupported,
        Errno::NOSPC => BlkError::NoSpace,
        Errno::NOMEM => BlkError::Resource,
        _ => BlkError::Io,
    }
}

/// A place or a range that is not on the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("{len} at {at} are not on the device, which has {capacity}")]
pub struct BeyondDevice {
    /// Where it begins.
    pub at: BytePos,
    /// How many bytes.
    pub len: ByteLen,
    /// The size of the device.
    pub capacity: ByteLen,
}
