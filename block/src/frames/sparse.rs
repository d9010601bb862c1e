//! Memory for a device that takes room only where it was written.

use alloc::boxed::Box;
use core::slice;

use hashbrown::HashMap;
use pageless_pfn::{ByteLen, FrameCount, PAGE_SIZE, PhysSegment};
use rustc_hash::FxBuildHasher;
use thiserror::Error;

use super::heap::Frame;
use crate::access::{AccessError, FrameAccess};
use crate::copy::Span;
use crate::failpoint::Failpoint;
use crate::position::BytePos;
use crate::status::{BlkError, Failure};
use crate::sync::Lock;
use crate::sync::atomic::{AtomicU64, Ordering};

/// Locks, a power of two: frame `n` is behind the `n % SHARDS`-th, so that neighbours do not meet.
const SHARDS: usize = 64;

/// Bytes of which only those that were written take memory: a frame comes into being with the first
/// write to it, and goes with the first discard of all of it. Where there is none, zeroes are read.
///
/// What brd keeps in an xarray (drivers/block/brd.c). Shared by reference among threads; each frame
/// is read and written as a whole, and only what lies in several frames can be torn.
///
/// ```
/// use pageless_block::{BytePos, HeapFrames, FrameAccess, SparseFrames};
/// use pageless_pfn::{ByteLen, FrameCount, Pfn};
/// let ram = HeapFrames::new(Pfn::try_new(0x100)?, FrameCount::new(1))?;
/// let buffer = ram.segment(0, ByteLen::new(512)).unwrap();
/// ram.write_bytes(buffer, &[7; 512])?;
///
/// let store = SparseFrames::new(ByteLen::new(1 << 50));
/// let at = BytePos::new((1 << 50) - 512);
/// store.write(at, &ram, buffer)?;
/// assert_eq!(store.resident(), FrameCount::new(1));
/// store.read(BytePos::new(0), &ram, buffer)?;
/// let mut back = [1; 512];
/// ram.read_bytes(buffer, &mut back)?;
/// assert_eq!(back, [0; 512]);
/// # Ok::<(), Box<dyn core::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct SparseFrames {
    capacity: ByteLen,
    /// The most frames at a time.
    limit: u64,
    /// How many frames there are, those included that somebody is about to make.
    resident: AtomicU64,
    shards: Box<[Shard]>,
}

/// Apart from its neighbours, which other threads write to.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Shard(Lock<HashMap<u64, Box<Frame>, FxBuildHasher>>);

/// A part of one frame: which, and where in it.
#[derive(Clone, Copy)]
struct Piece {
    frame: u64,
    offset: u64,
    /// Bytes before this piece.
    before: u64,
    len: u64,
}

impl SparseFrames {
    /// So many bytes, all zeroes, none of them in memory.
    pub fn new(capacity: ByteLen) -> Self {
        Self::with_limit(capacity, FrameCount::new(u64::MAX))
    }

    /// The same with room for so many frames at a time only: a thinly provisioned device that can
    /// be full before it is written everywhere.
    pub fn with_limit(capacity: ByteLen, limit: FrameCount) -> Self {
        Self {
            capacity,
            limit: limit.get(),
            resident: AtomicU64::new(0),
            shards: (0..SHARDS).map(|_| Shard::default()).collect(),
        }
    }

    /// How many bytes, in memory or not.
    pub const fn capacity(&self) -> ByteLen {
        self.capacity
    }

    /// How many frames are in memory.
    pub fn resident(&self) -> FrameCount {
        // A number and nothing else: frames are found under their locks.
        FrameCount::new(self.resident.load(Ordering::Relaxed))
    }

    /// Copies from `at` on to the memory `to`.
    ///
    /// # Errors
    /// [`SparseError`]; the first bytes may have been copied, or all.
    pub fn read(
        &self,
        at: BytePos,
        access: &(impl FrameAccess + ?Sized),
        to: PhysSegment,
    ) -> Result<(), SparseError> {
        self.pieces(at, to.len())?.try_for_each(|piece| {
            let Some(memory) = slice_of(to, piece) else {
                return Ok(());
            };
            let frames = self.shard(piece.frame).0.lock();
            match frames.get(&piece.frame) {
                Some(frame) => each_span(frame, piece, access, memory, |ours, theirs| {
                    ours.copy_to(theirs)
                })?,
                None => {
                    drop(frames);
                    access.zero_bytes(memory)?;
                }
            }
            Ok(())
        })
    }

    /// Copies the memory `from` to `at`, where frames come into being as needed.
    ///
    /// # Errors
    /// [`SparseError`]; the first bytes may have been copied.
    pub fn write(
        &self,
        at: BytePos,
        access: &(impl FrameAccess + ?Sized),
        from: PhysSegment,
    ) -> Result<(), SparseError> {
        self.pieces(at, from.len())?.try_for_each(|piece| {
            let Some(memory) = slice_of(from, piece) else {
                return Ok(());
            };
            let copy = |frame: &Frame| {
                each_span(frame, piece, access, memory, |ours, theirs| {
                    theirs.copy_to(ours)
                })
            };
            let shard = &self.shard(piece.frame).0;
            if let Some(frame) = shard.lock().get(&piece.frame) {
                return Ok(copy(frame)?);
            }
            // Without the lock: the allocator may take its time.
            let new = self.new_frame()?;
            let mut frames = shard.lock();
            if frames.try_reserve(1).is_err() {
                drop(frames);
                self.let_go(1);
                return Err(SparseError::NoMemory {
                    resident: self.resident(),
                });
            }
            match frames.try_insert(piece.frame, new) {
                Ok(frame) => Ok(copy(frame)?),
                // Somebody was faster.
                Err(taken) => {
                    self.let_go(1);
                    Ok(copy(taken.entry.get())?)
                }
            }
        })
    }

    /// Makes every byte of a range zero: frames that it covers go, others are written to.
    ///
    /// # Errors
    /// [`SparseError::PastEnd`]; nothing has changed then.
    pub fn zero(&self, at: BytePos, len: ByteLen) -> Result<(), SparseError> {
        let (first, last) = self.whole_frames(at, len)?;
        self.remove(first, last);
        // At most two pieces are left: the ends.
        for piece in self.pieces(at, len)?.ends() {
            if (first..last).contains(&piece.frame) {
                continue;
            }
            if let Some(frame) = self.shard(piece.frame).0.lock().get(&piece.frame)
                && let Some(span) = Frame::span(slice::from_ref(frame), piece.offset, piece.len)
            {
                span.zero();
            }
        }
        Ok(())
    }

    /// Gives back the frames that a range covers: they read as zeroes. What it covers of others
    /// stays.
    ///
    /// # Errors
    /// [`SparseError::PastEnd`]; nothing has changed then.
    pub fn discard(&self, at: BytePos, len: ByteLen) -> Result<(), SparseError> {
        let (first, last) = self.whole_frames(at, len)?;
        self.remove(first, last);
        Ok(())
    }

    /// Counts frames anew.
    ///
    /// # Errors
    /// Names what does not hold. Only while nobody writes or discards is an error one.
    pub fn self_check(&self) -> Result<(), &'static str> {
        let mut count = 0;
        for (index, shard) in self.shards.iter().enumerate() {
            let frames = shard.0.lock();
            count += frames.len() as u64;
            if frames.keys().any(|n| *n as usize % SHARDS != index) {
                return Err("a frame is behind the wrong lock");
            }
            if frames.keys().any(|n| n * PAGE_SIZE >= self.capacity.get()) {
                return Err("a frame past the end");
            }
        }
        if count != self.resident().get() {
            return Err("frames are miscounted");
        }
        Ok(())
    }

    fn shard(&self, frame: u64) -> &Shard {
        &self.shards[frame as usize % SHARDS]
    }

    fn new_frame(&self) -> Result<Box<Frame>, SparseError> {
        // Relaxed: the count is a number and nothing else.
        let reserved = self
            .resident
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |count| {
                (count < self.limit).then_some(count + 1)
            });
        if let Err(resident) = reserved {
            let resident = FrameCount::new(resident);
            return Err(SparseError::Full { resident });
        }
        let frame = match Failpoint::StoreAlloc.hit() {
            true => None,
            false => Frame::try_zeroed(),
        };
        frame.ok_or_else(|| {
            self.let_go(1);
            SparseError::NoMemory {
                resident: self.resident(),
            }
        })
    }

    fn let_go(&self, count: u64) {
        self.resident.fetch_sub(count, Ordering::Relaxed);
    }

    /// Gives frames `first` to before `last` back.
    fn remove(&self, first: u64, last: u64) {
        for (index, shard) in self.shards.iter().enumerate() {
            let mut frames = shard.0.lock();
            let were = frames.len();
            // Whatever is fewer: the frames of the range behind this lock, or those there are.
            if last.saturating_sub(first) / (SHARDS as u64) < were as u64 {
                let skip = (index as u64).wrapping_sub(first) % SHARDS as u64;
                for frame in (first.saturating_add(skip)..last).step_by(SHARDS) {
                    frames.remove(&frame);
                }
            } else {
                frames.retain(|frame, _| !(first..last).contains(frame));
            }
            self.let_go((were - frames.len()) as u64);
        }
    }

    /// The frames that lie in a range as a whole, from the first to before the last. The last one
    /// of the device counts as whole where the device ends in it.
    fn whole_frames(&self, at: BytePos, len: ByteLen) -> Result<(u64, u64), SparseError> {
        let end = self.end_of(at, len)?;
        let last = match end == self.capacity.get() {
            true => end.div_ceil(PAGE_SIZE),
            false => end / PAGE_SIZE,
        };
        Ok((at.get().div_ceil(PAGE_SIZE), last))
    }

    fn pieces(&self, at: BytePos, len: ByteLen) -> Result<Pieces, SparseError> {
        let end = self.end_of(at, len)?;
        Ok(Pieces {
            start: at.get(),
            at: at.get(),
            end,
        })
    }

    fn end_of(&self, at: BytePos, len: ByteLen) -> Result<u64, SparseError> {
        match at.checked_add(len) {
            Some(end) if end.get() <= self.capacity.get() => Ok(end.get()),
            _ => Err(SparseError::PastEnd {
                at,
                len,
                capacity: self.capacity,
            }),
        }
    }
}

/// A range, frame by frame.
struct Pieces {
    start: u64,
    at: u64,
    end: u64,
}

impl Pieces {
    /// The first piece and, if it is another one, the last.
    fn ends(mut self) -> impl Iterator<Item = Piece> {
        let first = self.next();
        self.at = self
            .at
            .max(self.end.saturating_sub(1) / PAGE_SIZE * PAGE_SIZE);
        first.into_iter().chain(self.next())
    }
}

impl Iterator for Pieces {
    type Item = Piece;

    fn next(&mut self) -> Option<Piece> {
        let left = self.end.checked_sub(self.at).filter(|left| *left > 0)?;
        let offset = self.at % PAGE_SIZE;
        let piece = Piece {
            frame: self.at / PAGE_SIZE,
            offset,
            before: self.at - self.start,
            len: left.min(PAGE_SIZE - offset),
        };
        self.at += piece.len;
        Some(piece)
    }
}

/// The memory that goes with a piece.
fn slice_of(memory: PhysSegment, piece: Piece) -> Option<PhysSegment> {
    memory.slice(ByteLen::new(piece.before), ByteLen::new(piece.len))
}

/// Calls `copy` with a frame's bytes and the memory's, span by span.
fn each_span(
    frame: &Frame,
    piece: Piece,
    access: &(impl FrameAccess + ?Sized),
    memory: PhysSegment,
    copy: impl Fn(&Span<'_>, &Span<'_>) -> usize,
) -> Result<(), AccessError> {
    let mut done = 0;
    while let Some(rest) = memory.slice(ByteLen::new(done), ByteLen::new(piece.len - done)) {
        let offset = piece.offset + done;
        let Some(ours) = Frame::span(slice::from_ref(frame), offset, piece.len - done) else {
            break;
        };
        done += access.with(rest, |theirs| copy(&ours, &theirs))? as u64;
    }
    Ok(())
}

/// Why bytes could not be read or written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SparseError {
    /// Not all of them are there.
    #[error("{len} at {at} of {capacity}")]
    PastEnd {
        /// Where they would begin.
        at: BytePos,
        /// How many.
        len: ByteLen,
        /// How many there are.
        capacity: ByteLen,
    },
    /// No further frame is allowed: discard some, or raise the limit.
    #[error("no room: {resident} are in use")]
    Full {
        /// How many frames there are.
        resident: FrameCount,
    },
    /// The heap has no room for a further frame.
    #[error("no memory for a frame more than {resident}")]
    NoMemory {
        /// How many frames there are.
        resident: FrameCount,
    },
    /// The memory on the other side cannot be reached.
    #[error(transparent)]
    Access(#[from] AccessError),
}

impl From<SparseError> for BlkError {
    fn from(error: SparseError) -> Self {
        match error {
            SparseError::PastEnd { .. } => Self::Io,
            SparseError::Full { .. } | SparseError::NoMemory { .. } => Self::NoSpace,
            SparseError::Access(error) => error.into(),
        }
    }
}

impl From<SparseError> for Failure {
    fn from(error: SparseError) -> Self {
        BlkError::from(error).into()
    }
}
