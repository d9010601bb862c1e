//! A device of persistent memory: bytes move between the bio's frames and the device's own.

use alloc::sync::Arc;

use pageless_pfn::{ByteLen, PfnFlags, PfnRange, PfnT, PhysSegment};
use rustix::io::Errno;
use thiserror::Error;

use crate::access::{FrameAccess, copy_frames};
use crate::device::{BlockDevice, DeviceInfo};
use crate::frames::pmem::{LayoutError, PmemFrames};
use crate::limits::LimitError;
use crate::op::Op;
use crate::position::BytePos;
use crate::request::Request;
use crate::status::BlkError;

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
/// | FLUSH | an image is written back (`msync`); nothing to do for a memfd |
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
/// submit_sync(&device, Bio::write(Sector::new(1 << 30), buffer))?.result?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Pmem<M> {
    frames: Arc<PmemFrames>,
    memory: M,
    info: DeviceInfo,
}

impl<M: FrameAccess> Pmem<M> {
    /// The device that consists of `frames`, for bios whose frames `memory` reaches. No limit on
    /// a request, logical blocks of one sector.
    pub fn new(frames: impl Into<Arc<PmemFrames>>, memory: M) -> Self {
        let frames = frames.into();
        let info = DeviceInfo::new(frames.len());
        Self {
            frames,
            memory,
            info,
        }
    }

    /// The same with requests of at most this many bytes.
    ///
    /// # Errors
    /// [`LimitError`] if that is less than one logical block.
    pub fn with_max_request(mut self, len: ByteLen) -> Result<Self, LimitError> {
        self.info = self.info.with_max_request(len)?;
        Ok(self)
    }

    /// The same with logical blocks of this many bytes.
    ///
    /// # Errors
    /// [`LimitError`] if a logical block cannot have that size.
    pub fn with_logical_block(mut self, len: ByteLen) -> Result<Self, LimitError> {
        self.info = self.info.with_logical_block(len)?;
        Ok(self)
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
    fn transfer(&self, request: &Request) -> Result<(), BlkError> {
        let mut at = request.position();
        let own = self.frames.range();
        for memory in request.segments() {
            let device = self.own(at, memory.len())?;
            if own.intersects(memory.frames()) {
                self.transfer_own(device, memory, request.op())?;
            } else {
                copy_between(&self.frames, device, &self.memory, memory, request.op())?;
            }
            at = at.checked_add(memory.len()).ok_or(BlkError::Io)?;
        }
        Ok(())
    }

    /// The memory of the bio is the device's own, or runs from one into the other.
    #[cold]
    #[inline(never)]
    fn transfer_own(
        &self,
        device: PhysSegment,
        memory: PhysSegment,
        op: Op,
    ) -> Result<(), BlkError> {
        let all = (&*self.frames, &self.memory);
        copy_between(&self.frames, device, &all, memory, op)
    }

    /// The device's own bytes. Requests lie within it, so failing is not to be expected.
    #[inline]
    fn own(&self, at: BytePos, len: ByteLen) -> Result<PhysSegment, BlkError> {
        self.frames
            .segment(at, len, PfnFlags::empty())
            .ok_or(BlkError::Io)
    }
}

#[inline]
fn copy_between(
    frames: &PmemFrames,
    device: PhysSegment,
    memory: &impl FrameAccess,
    buffer: PhysSegment,
    op: Op,
) -> Result<(), BlkError> {
    let copied = match op {
        Op::Write => copy_frames(memory, buffer, frames, device),
        _ => copy_frames(frames, device, memory, buffer),
    };
    copied.map_err(BlkError::from)
}

impl<M: FrameAccess> BlockDevice for Pmem<M> {
    #[inline]
    fn info(&self) -> DeviceInfo {
        self.info
    }

    #[inline]
    fn execute(&self, request: &Request) -> Result<(), BlkError> {
        match request.op() {
            Op::Read | Op::Write => self.transfer(request),
            Op::Flush => self.frames.sync().map_err(status_of),
            Op::Discard => self
                .frames
                .punch(request.position(), request.len())
                .map_err(status_of),
            Op::WriteZeroes => {
                let (at, len) = (request.position(), request.len());
                if len.get() > WRITE_ZEROES_LIMIT {
                    match self.frames.punch(at, len) {
                        Err(Errno::OPNOTSUPP) => {}
                        other => return other.map_err(status_of),
                    }
                }
                Ok(self.frames.zero_bytes(self.own(at, len)?)?)
            }
            _ => Err(BlkError::NotSupported),
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
