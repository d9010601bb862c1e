//! A volatile write cache, and what is left when the power goes.

mod blocks;

use alloc::vec::Vec;
use core::fmt;

use pageless_pfn::{ByteLen, PhysSegment};
use thiserror::Error;

use super::members::{nested_part, part_of};
use crate::access::FrameAccess;
use crate::device::{Abort, BlockDevice, Submitted};
use crate::failpoint::Failpoint;
use crate::flags::BioFlags;
use crate::limits::split::{Cut, Cutter, Shape};
use crate::limits::{Features, Limits};
use crate::op::Op;
use crate::position::BytePos;
use crate::request::nested::carry_out;
use crate::request::{Done, QueueId, Request, Tag};
use crate::status::{BlkError, Failure};
use crate::sync::Lock;
use blocks::{Blocks, Content};

/// What a [`WriteCache`] is to be like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WriteCacheConfig {
    /// How much it keeps at most. Beyond that it writes back what it has had for longest.
    pub capacity: ByteLen,
    /// Whether it takes [`BioFlags::FUA`], by writing through. Without it a queue sends a flush
    /// after such a write.
    pub fua: bool,
    /// Whether it also writes back when nobody asks it to, as caches do.
    pub write_back: Option<WriteBack>,
}

impl Default for WriteCacheConfig {
    fn default() -> Self {
        Self {
            capacity: ByteLen::new(32 << 20),
            fua: false,
            write_back: None,
        }
    }
}

/// How often a block goes down by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WriteBack {
    /// The same seed and the same requests are the same write-backs.
    pub seed: u64,
    /// After one in so many requests that change something, some block is written back.
    pub one_in: u32,
}

/// A device with a volatile write cache in front of it: what was written is there for every reader
/// and lost with the power, until a flush or FUA has brought it down.
///
/// Writes, discards and write-zeroes are kept, by logical block, each of which is atomic: it
/// reaches the device as a whole or not at all, at any time and in any order. Reads see them.
/// [`WriteCache::power_cut`] is the accident.
///
/// | operation | what happens |
/// |---|---|
/// | READ | from the cache, and what is not in it from the device |
/// | WRITE, DISCARD, WRITE_ZEROES | kept; a discard reads as zeroes for as long as it is kept |
/// | WRITE with FUA | carried out by the device, durably, before it completes |
/// | FLUSH | all that is kept goes down, then the device is flushed |
/// | SECURE_ERASE, long discards | as FUA: carried out by the device |
///
/// It waits for the device while it writes down, and others wait for it meanwhile. A device with room
/// for so many requests must have some for [nested](Request::nested) ones besides, which nobody
/// else's requests take: while this waits, nobody polls for those.
///
/// ```
/// use pageless_block::{Bio, FrameAccess, Pmem, PmemFrames, PowerCut, RamFrames, Sector};
/// use pageless_block::{WriteCache, WriteCacheConfig, submit_sync};
/// use pageless_pfn::{ByteLen, FrameCount, Pfn};
/// let ram = RamFrames::new(Pfn::try_new(0x100)?, FrameCount::new(16))?;
/// let frames = PmemFrames::memfd(Pfn::try_new(1 << 30)?, ByteLen::new(1 << 20))?;
/// let staging = ram.segment(0, ByteLen::new(4096)).unwrap();
/// let config = WriteCacheConfig::default();
/// let device = WriteCache::try_new(Pmem::new(frames, &ram), &ram, staging, config)?;
///
/// let buffer = ram.segment(4096, ByteLen::new(512)).unwrap();
/// ram.write_bytes(buffer, b"kept")?;
/// submit_sync(&device, Bio::write(Sector::new(0), buffer))?.result()?;
/// submit_sync(&device, Bio::flush())?.result()?;
/// ram.write_bytes(buffer, b"lost")?;
/// submit_sync(&device, Bio::write(Sector::new(0), buffer))?.result()?;
/// device.power_cut(PowerCut::AllLost);
/// submit_sync(&device, Bio::read(Sector::new(0), buffer))?.result()?;
/// let mut found = [0; 4];
/// ram.read_bytes(buffer, &mut found)?;
/// assert_eq!(&found, b"kept");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct WriteCache<D, M> {
    device: D,
    memory: M,
    /// Frames from which blocks go down.
    staging: PhysSegment,
    below: Cutter,
    limits: Limits,
    block: u64,
    /// The most blocks it keeps.
    room: usize,
    kept: Lock<Kept>,
}

struct Kept {
    blocks: Blocks,
    write_back: Option<(fastrand::Rng, u32)>,
}

impl<D: BlockDevice, M: FrameAccess> WriteCache<D, M> {
    /// An empty cache in front of `device`.
    ///
    /// `memory` reaches the frames of bios. `staging` are frames that nobody else uses, which
    /// `memory` and the device reach as well: at least a logical block of them; with more, more
    /// goes down in one request.
    ///
    /// # Errors
    /// [`WriteCacheError`].
    pub fn try_new(
        device: D,
        memory: M,
        staging: PhysSegment,
        config: WriteCacheConfig,
    ) -> Result<Self, WriteCacheError> {
        let below = device.limits();
        let block = below.logical_block;
        if below.zones.is_some() {
            return Err(WriteCacheError::Zoned);
        }
        if below.dma_alignment > block {
            let alignment = below.dma_alignment;
            return Err(WriteCacheError::Alignment { alignment, block });
        }
        for (what, len) in [("staging", staging.len()), ("capacity", config.capacity)] {
            if len < block {
                return Err(WriteCacheError::NoBlock { what, len, block });
            }
        }
        let mut limits = below;
        // Blocks reach the device one by one.
        limits.atomic = None;
        limits.features -= Features::DAX | Features::NOWAIT | Features::FUA;
        limits.features |= Features::WRITE_CACHE;
        limits.features.set(Features::FUA, config.fua);
        let write_back = config
            .write_back
            .map(|how| (fastrand::Rng::with_seed(how.seed), how.one_in.max(1)));
        let room = config.capacity.get() / block.get();
        Ok(Self {
            device,
            memory,
            staging,
            below: Cutter::new(&below),
            limits,
            block: block.get(),
            room: usize::try_from(room).unwrap_or(usize::MAX),
            kept: Lock::new(Kept {
                blocks: Blocks::default(),
                write_back,
            }),
        })
    }

    /// The device behind the cache.
    pub const fn device(&self) -> &D {
        &self.device
    }

    /// How many bytes would be lost with the power.
    pub fn dirty(&self) -> ByteLen {
        ByteLen::new(self.kept.lock().blocks.len() as u64 * self.block)
    }

    /// The power goes and comes back: the cache is empty, and the device has what the accident
    /// says.
    ///
    /// Requests that are in the middle of something are waited for. What the device has not taken
    /// in because it failed counts as lost.
    pub fn power_cut(&self, what: PowerCut) -> PowerCutReport {
        let mut kept = self.kept.lock();
        let mut report = PowerCutReport::default();
        if let PowerCut::Some { seed } = what {
            let mut rng = fastrand::Rng::with_seed(seed);
            // Nearly all, nearly none and everything in between are equally likely.
            let likely = rng.u8(..);
            let mut lucky: Vec<u64> = kept.blocks.numbers().collect();
            rng.shuffle(&mut lucky);
            lucky.retain(|_| rng.u8(..) <= likely);
            for number in lucky {
                report.reached += u64::from(self.write_back(&mut kept.blocks, number, 1).is_ok());
            }
        }
        report.lost = kept.blocks.len() as u64;
        kept.blocks.clear();
        report
    }

    /// The blocks that a request is about: the first, and how many.
    fn blocks_of(&self, request: &Request) -> (u64, u64) {
        (
            request.position().get() / self.block,
            request.len().get() / self.block,
        )
    }

    fn read(&self, request: Request) -> Submitted {
        let kept = self.kept.lock();
        let (first, count) = self.blocks_of(&request);
        if kept
            .blocks
            .next_from(first)
            .is_none_or(|next| next - first >= count)
        {
            // Whoever writes there now does so at the same time as this reads, and waits for
            // nothing.
            drop(kept);
            return self.device.submit(request);
        }
        request.run(|request| self.overlaid(&kept.blocks, request))
    }

    /// Reads what is kept from the cache and the rest from the device. The lock is held throughout:
    /// what is not kept now must not be written, read back and written back in between.
    fn overlaid(&self, blocks: &Blocks, request: &Request) -> Result<(), Failure> {
        let (first, count) = self.blocks_of(request);
        let mut at = 0;
        while at < count {
            let from = at * self.block;
            if let Some(content) = blocks.get(first + at) {
                self.fill(request, from, content)
                    .map_err(|error| after(from, error.into()))?;
                at += 1;
                continue;
            }
            let next = blocks
                .next_from(first + at)
                .map_or(count, |next| next - first);
            let len = (next.min(count) - at) * self.block;
            carry_out(&self.device, nested_part(request, from, len))
                .map_err(|failure| after(from, failure))?;
            at += len / self.block;
        }
        Ok(())
    }

    /// Fills the block of memory at byte `from`.
    fn fill(&self, request: &Request, from: u64, content: &Content) -> Result<(), BlkError> {
        let mut done = 0;
        for segment in part_of(request.segments(), from, self.block) {
            let len = segment.len().get() as usize;
            match content {
                Content::Data(bytes) => {
                    self.memory.write_bytes(segment, &bytes[done..done + len])?;
                }
                Content::Zeroes { .. } | Content::Discarded => self.memory.zero_bytes(segment)?,
            }
            done += len;
        }
        Ok(())
    }

    /// Takes a copy of the block of memory at byte `from`.
    fn copy(&self, request: &Request, from: u64) -> Result<Content, BlkError> {
        let len = self.block as usize;
        let mut bytes = Vec::new();
        if Failpoint::CacheAlloc.hit() || bytes.try_reserve_exact(len).is_err() {
            return Err(BlkError::Resource);
        }
        bytes.resize(len, 0);
        let mut done = 0;
        for segment in part_of(request.segments(), from, self.block) {
            let len = segment.len().get() as usize;
            self.memory
                .read_bytes(segment, &mut bytes[done..done + len])?;
            done += len;
        }
        Ok(Content::Data(bytes.into_boxed_slice()))
    }

    /// Keeps what a request brings.
    fn keep(&self, request: &Request) -> Result<(), Failure> {
        let kept = &mut *self.kept.lock();
        let (first, count) = self.blocks_of(request);
        for at in 0..count {
            let from = at * self.block;
            let content = match request.op() {
                Op::Discard => Ok(Content::Discarded),
                Op::WriteZeroes => Ok(Content::Zeroes {
                    nounmap: request.flags().contains(BioFlags::NOUNMAP),
                }),
                _ => self.copy(request, from),
            };
            let content = content.map_err(|error| after(from, error.into()))?;
            self.make_room(&mut kept.blocks, first + at)
                .map_err(|failure| after(from, failure.error.into()))?;
            kept.blocks.put(first + at, content);
        }
        if let Some((rng, one_in)) = &mut kept.write_back
            && rng.u32(..*one_in) == 0
            && let Some(number) = kept.blocks.next_around(rng.u64(..self.block_count()))
        {
            // Nobody asked for it: what failed is kept, and tried again by a flush.
            let _ = self.write_back(&mut kept.blocks, number, 1);
        }
        Ok(())
    }

    fn block_count(&self) -> u64 {
        (self.limits.capacity.get() / self.block).max(1)
    }

    /// Writes back what was kept for longest, until there is room for a block.
    fn make_room(&self, blocks: &mut Blocks, number: u64) -> Result<(), Failure> {
        while blocks.len() >= self.room && blocks.get(number).is_none() {
            let Some(oldest) = blocks.oldest() else {
                return Ok(());
            };
            self.write_back(blocks, oldest, 1)?;
        }
        Ok(())
    }

    /// Writes the block down, and neighbours after it that go along, `most` at most. They are not
    /// kept any more then.
    fn write_back(&self, blocks: &mut Blocks, first: u64, most: u64) -> Result<(), Failure> {
        let Some(kind) = blocks.get(first).map(Content::kind) else {
            return Ok(());
        };
        let mut count = 0;
        while count < most {
            match blocks.get(first + count) {
                Some(content) if content.kind() == kind => {}
                _ => break,
            }
            if let Some(Content::Data(bytes)) = blocks.get(first + count) {
                let skip = ByteLen::new(count * self.block);
                let Some(slot) = self.staging.slice(skip, ByteLen::new(self.block)) else {
                    break;
                };
                self.memory.write_bytes(slot, bytes)?;
            }
            count += 1;
        }
        let (op, flags) = kind;
        let mut request = self.prepared(op, flags, first * self.block, count * self.block)?;
        request.0.flags = flags;
        count = request.len().get() / self.block;
        let result = carry_out(&self.device, request);
        let done = match result {
            Ok(()) => count,
            Err(failure) => failure.done.get() / self.block,
        };
        for number in first..first + done {
            blocks.take(number);
        }
        result
    }

    /// A request for the device about as much of this as it takes.
    fn prepared(
        &self,
        op: Op,
        flags: BioFlags,
        position: u64,
        len: u64,
    ) -> Result<Request, BlkError> {
        let segments = |len| match op {
            Op::Write => self.staging.slice(ByteLen::ZERO, ByteLen::new(len)),
            _ => None,
        };
        let position = BytePos::new(position);
        let cut = self.below.cut(&Shape {
            op,
            flags,
            position,
            len: ByteLen::new(len),
            segments: segments(len).as_slice(),
        });
        let len = match cut {
            Cut::Fits => len,
            Cut::After(len) => len.get(),
            Cut::Refused(error) => return Err(error),
        };
        let len = ByteLen::new(len);
        Ok(Request::nested(
            op,
            flags,
            position,
            len,
            segments(len.get()),
        ))
    }

    /// Lets the device carry a request out durably, whatever was kept for the place.
    fn write_through(&self, request: &Request) -> Result<(), Failure> {
        let kept = &mut *self.kept.lock();
        let below = self.below.limits().features;
        let mut nested = nested_part(request, 0, request.len().get());
        let fua = below.contains(Features::WRITE_CACHE | Features::FUA);
        nested.set_fua(fua && request.op() == Op::Write);
        let mut result = carry_out(&self.device, nested);
        let written = match result {
            Ok(()) => request.len(),
            Err(failure) => failure.done,
        };
        if below.contains(Features::WRITE_CACHE) && !fua && !written.is_zero() {
            let flush = Request::nested(
                Op::Flush,
                BioFlags::empty(),
                BytePos::new(0),
                ByteLen::ZERO,
                None,
            );
            // Without it nothing of it is durable.
            if let Err(failure) = carry_out(&self.device, flush) {
                result = Err(failure.error.into());
            }
        }
        let (first, _) = self.blocks_of(request);
        for number in first..first + written.get() / self.block {
            kept.blocks.take(number);
        }
        result
    }

    fn flush(&self, request: Request) -> Submitted {
        let mut kept = self.kept.lock();
        while let Some(number) = kept.blocks.next_from(0) {
            if let Err(failure) = self.write_back(&mut kept.blocks, number, u64::MAX) {
                drop(kept);
                return request.run(|_| Err(failure.error.into()));
            }
        }
        drop(kept);
        match self.below.limits().features.contains(Features::WRITE_CACHE) {
            // What went down has been completed there, so this flush is for it.
            true => self.device.submit(request),
            false => request.run(|_| Ok(())),
        }
    }
}

/// A failure after `from` bytes that went well.
fn after(from: u64, failure: Failure) -> Failure {
    Failure {
        error: failure.error,
        done: ByteLen::new(from.saturating_add(failure.done.get())),
    }
}

impl<D: BlockDevice, M: FrameAccess> BlockDevice for WriteCache<D, M> {
    fn limits(&self) -> Limits {
        self.limits
    }

    fn submit(&self, request: Request) -> Submitted {
        // A long range would drive out everything else, and is nothing to keep.
        let (_, count) = self.blocks_of(&request);
        let long = count > self.room as u64 / 4;
        match request.op() {
            Op::Read => self.read(request),
            Op::Flush => self.flush(request),
            Op::Write if !request.flags().contains(BioFlags::FUA) => {
                request.run(|request| self.keep(request))
            }
            Op::Discard | Op::WriteZeroes if !long => request.run(|request| self.keep(request)),
            Op::Write | Op::Discard | Op::WriteZeroes | Op::SecureErase => {
                request.run(|request| self.write_through(request))
            }
            _ => request.run(|_| Err(BlkError::NotSupported.into())),
        }
    }

    fn poll(&self, queue: QueueId, done: &mut dyn FnMut(Done)) {
        self.device.poll(queue, done);
    }

    fn abort(&self, queue: QueueId, tag: Tag) -> Abort {
        self.device.abort(queue, tag)
    }

    fn expect(&self, op: Op, position: BytePos) {
        self.device.expect(op, position);
    }
}

impl<D: fmt::Debug, M> fmt::Debug for WriteCache<D, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WriteCache")
            .field("device", &self.device)
            .field("room", &self.room)
            .finish_non_exhaustive()
    }
}

/// What becomes of what was not flushed when the power goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PowerCut {
    /// All of it is lost.
    AllLost,
    /// Some blocks had reached the device before, in no particular order, and the others are lost.
    /// Nothing was promised of either.
    Some {
        /// The same seed and the same blocks are the same accident.
        seed: u64,
    },
}

/// What a power cut came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PowerCutReport {
    /// Logical blocks that had reached the device.
    pub reached: u64,
    /// Logical blocks that are lost.
    pub lost: u64,
}

/// Why a device cannot have such a cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum WriteCacheError {
    /// Zones are written in order, and caches write in any.
    #[error("the device has zones, which are written in order")]
    Zoned,
    /// The device could not be given a block.
    #[error("the device wants memory aligned to {alignment}, more than a logical block of {block}")]
    Alignment {
        /// What it wants.
        alignment: ByteLen,
        /// Its logical block.
        block: ByteLen,
    },
    /// Give it more.
    #[error("{what} of {len}: must have room for a logical block of {block}")]
    NoBlock {
        /// What is too short.
        what: &'static str,
        /// How long it is.
        len: ByteLen,
        /// The device's logical block.
        block: ByteLen,
    },
}
