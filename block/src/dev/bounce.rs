//! Frames without descriptors for devices that cannot use them: by copying, and never silently.

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

use pageless_pfn::{ByteLen, PhysSegment};
use thiserror::Error;

use super::trail::Trail;
use crate::access::{AccessError, FrameAccess, copy_frames};
use crate::bio::SegmentList;
use crate::clock::Clock;
use crate::device::{Abort, BlockDevice, Submitted};
use crate::failpoint::Failpoint;
use crate::flags::BioFlags;
use crate::limits::split::{Cut, Cutter, Shape};
use crate::limits::{Features, Limits};
use crate::observe::event::{Action, Probe};
use crate::op::Op;
use crate::position::BytePos;
use crate::request::{Done, QueueId, Request, Tag};
use crate::status::{BlkError, Failure};
use crate::sync::Lock;

/// What bouncing has cost so far. A request that the device had no room for is copied again when it
/// is tried again, and counted again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BounceCounters {
    /// Requests whose memory was replaced.
    pub requests: u64,
    /// Bytes copied on the way to the device.
    pub bytes_out: u64,
    /// Bytes copied on the way back.
    pub bytes_in: u64,
    /// Requests that went as they were.
    pub passed: u64,
    /// Times a request had to wait, because all buffers were in use.
    pub waited: u64,
}

/// Accepts frames without descriptors on behalf of a device that does not, and copies.
///
/// A request with such a frame in it gets a buffer from a pool, whose frames the device can use;
/// what is written is copied there before, what was read is copied back after. All other requests
/// pass as they are. What it costs is [counted](Bounce::counters), and a probe is told of each
/// ([`Action::Bounce`]).
///
/// Without it a queue refuses such bios with
/// [`BlkError::NotSupported`]: nobody pays for a copy who did not ask for it.
///
/// ```
/// use pageless_block::{BlockDevice, Bounce, Features, Limits, NullDevice, RamFrames};
/// use pageless_pfn::{ByteLen, FrameCount, Pfn};
/// let ram = RamFrames::new(Pfn::try_new(0x100)?, FrameCount::new(64))?;
/// let mut limits = Limits::new(ByteLen::new(1 << 30));
/// limits.features -= Features::PAGELESS;
/// let pool = ram.segment(0, ByteLen::new(128 << 10)).unwrap();
/// let device = Bounce::try_new(NullDevice::new(limits), &ram, pool, ByteLen::new(64 << 10))?;
/// assert!(device.limits().accepts_pageless());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Bounce<D, M> {
    device: D,
    memory: M,
    pool: PhysSegment,
    /// The length of a buffer.
    each: u64,
    limits: Limits,
    trail: Trail,
    state: Lock<State>,
}

struct State {
    /// Buffers that are not in use, by number.
    free: Vec<u64>,
    /// For those that are in use: the memory the request had instead of its bios', if it had any.
    used: BTreeMap<u64, Option<SegmentList>>,
    counters: BounceCounters,
}

impl<D: BlockDevice, M: FrameAccess> Bounce<D, M> {
    /// `device`, which can use the frames of `pool`.
    ///
    /// Nobody else uses those frames. `memory` reaches them and the frames of bios. They are cut
    /// into buffers of `each`, of which every bounced request needs one; so no request is longer
    /// than that, bounced or not. The last of several buffers is kept for [nested](Request::nested)
    /// requests.
    ///
    /// # Errors
    /// [`BounceError`].
    pub fn try_new(
        device: D,
        memory: M,
        pool: PhysSegment,
        each: ByteLen,
    ) -> Result<Self, BounceError> {
        let below = device.limits();
        let block = below.logical_block;
        if pool.frame().paged().is_err() {
            return Err(BounceError::NoDescriptors { pool });
        }
        if each < block || !each.get().is_multiple_of(block.get()) {
            return Err(BounceError::Buffer { each, block });
        }
        let count = pool.len().get() / each.get();
        if count == 0 {
            let len = pool.len();
            return Err(BounceError::Pool { len, each });
        }
        let mut limits = below;
        limits.features |= Features::PAGELESS;
        limits.features -= Features::NOWAIT | Features::DAX;
        for number in 0..count {
            let buffer = pool.slice(ByteLen::new(number * each.get()), each);
            let fits = buffer.and_then(|buffer| longest(&below, buffer));
            let fits = fits.ok_or(BounceError::Unusable { number })?;
            limits.max_request = limits.max_request.min(fits);
        }
        if let Some(atomic) = &mut limits.atomic {
            atomic.unit_max = atomic.unit_max.min(power_below(limits.max_request));
        }
        limits.atomic = limits
            .atomic
            .filter(|atomic| atomic.unit_min <= atomic.unit_max);
        Ok(Self {
            device,
            memory,
            pool,
            each: each.get(),
            limits,
            trail: Trail::default(),
            state: Lock::new(State {
                free: (0..count).rev().collect(),
                used: BTreeMap::new(),
                counters: BounceCounters::default(),
            }),
        })
    }

    /// The same, and `probe` is told of every request whose memory is replaced, with the time of
    /// `clock`.
    #[must_use]
    pub fn with_probe(mut self, probe: Arc<dyn Probe>, clock: Option<Arc<dyn Clock>>) -> Self {
        self.trail = Trail::new(probe, clock);
        self
    }

    /// The device behind it.
    pub const fn device(&self) -> &D {
        &self.device
    }

    /// What it has cost.
    pub fn counters(&self) -> BounceCounters {
        self.state.lock().counters
    }

    /// How many buffers are in use.
    pub fn in_use(&self) -> usize {
        self.state.lock().used.len()
    }

    fn buffer(&self, number: u64, len: u64) -> Option<PhysSegment> {
        let skip = number.checked_mul(self.each)?;
        self.pool.slice(ByteLen::new(skip), ByteLen::new(len))
    }

    /// Which buffer a request has, if it has one.
    fn buffer_of(&self, request: &Request) -> Option<u64> {
        let first = request.0.replaced.as_ref()?.first()?;
        let offset = first.phys().checked_offset_from(self.pool.phys())?;
        (offset < self.pool.len()).then(|| offset.get() / self.each)
    }

    /// Gives the request a buffer.
    #[cold]
    fn bounce(&self, mut request: Request) -> Submitted {
        if Failpoint::BounceAlloc.hit() {
            return request.run(|_| Err(BlkError::Resource.into()));
        }
        let number = {
            let state = &mut *self.state.lock();
            // Whoever waits for a nested request polls for nothing else: the last buffer is kept
            // for those, so that they never wait for requests that nobody polls for meanwhile.
            let kept = usize::from(request.queue() != QueueId::NESTED && !state.used.is_empty());
            match state.free.len() > kept {
                true => state.free.pop(),
                false => None,
            }
        };
        let Some(number) = number else {
            self.state.lock().counters.waited += 1;
            return Submitted::Busy(request);
        };
        let Some(buffer) = self.buffer(number, request.len().get()) else {
            // Longer than a buffer, and so not within the limits.
            self.state.lock().free.push(number);
            return request.run(|_| Err(BlkError::Invalid.into()));
        };
        let out = request.op() != Op::Read && request.op() != Op::DriverIn;
        if out && let Err(failure) = self.copy(&request, buffer, request.len().get(), true) {
            self.state.lock().free.push(number);
            return request.run(|_| Err(failure.error.into()));
        }
        let own = request.replace_memory(Some(SegmentList::from_iter([buffer])));
        {
            let state = &mut *self.state.lock();
            state.used.insert(number, own);
            state.counters.requests += 1;
            if out {
                state.counters.bytes_out += request.len().get();
            }
        }
        self.trail.tell(Action::Bounce, &request, 0);
        match self.device.submit(request) {
            Submitted::Done(done) => Submitted::Done(self.finish(done)),
            Submitted::Kept => Submitted::Kept,
            Submitted::Busy(mut request) => {
                self.give_back(&mut request, number);
                Submitted::Busy(request)
            }
        }
    }

    /// The request has its own memory again, and the buffer may go to another.
    fn give_back(&self, request: &mut Request, number: u64) {
        let state = &mut *self.state.lock();
        request.replace_memory(state.used.remove(&number).flatten());
        state.free.push(number);
    }

    /// What the device has finished: copies back what was read.
    #[inline]
    fn finish(&self, done: Done) -> Done {
        match self.buffer_of(&done.0) {
            Some(number) => self.bounce_back(done, number),
            None => done,
        }
    }

    #[cold]
    fn bounce_back(&self, done: Done, number: u64) -> Done {
        let mut result = done.result();
        let mut request = done.reopen();
        let own = match self.state.lock().used.get_mut(&number) {
            Some(own) => own.take(),
            None => None,
        };
        request.replace_memory(own);
        if matches!(request.op(), Op::Read | Op::DriverIn) {
            // Of what failed half-way the first half was read all the same.
            let len = match result {
                Ok(()) => request.len().get(),
                Err(failure) => failure.done.get(),
            };
            if let Some(buffer) = self.buffer(number, len) {
                match self.copy(&request, buffer, len, false) {
                    Ok(()) => self.state.lock().counters.bytes_in += len,
                    Err(failure) => result = Err(failure),
                }
            }
        }
        let mut state = self.state.lock();
        state.used.remove(&number);
        state.free.push(number);
        drop(state);
        request.complete(result)
    }

    /// Copies `len` bytes between the request's memory and the buffer.
    fn copy(
        &self,
        request: &Request,
        buffer: PhysSegment,
        len: u64,
        out: bool,
    ) -> Result<(), Failure> {
        let mut at = 0;
        for memory in request.segments() {
            let here = memory.len().get().min(len - at);
            let part = |of: PhysSegment, skip| of.slice(ByteLen::new(skip), ByteLen::new(here));
            let (Some(memory), Some(buffer)) = (part(memory, 0), part(buffer, at)) else {
                break;
            };
            let (from, to) = if out {
                (memory, buffer)
            } else {
                (buffer, memory)
            };
            copy_frames(&self.memory, from, &self.memory, to).map_err(|error: AccessError| {
                Failure {
                    error: error.into(),
                    done: ByteLen::new(at),
                }
            })?;
            at += here;
        }
        Ok(())
    }
}

/// How much of a buffer the device takes in one request.
fn longest(below: &Limits, buffer: PhysSegment) -> Option<ByteLen> {
    let mut limits = *below;
    // Where on the device a request goes is not the buffer's business.
    limits.chunk = None;
    limits.zones = None;
    limits.features -= Features::ZONED;
    let shape = Shape {
        op: Op::Write,
        flags: BioFlags::empty(),
        position: BytePos::new(0),
        len: buffer.len(),
        segments: &[buffer],
    };
    match Cutter::new(&limits).cut(&shape) {
        Cut::Fits => Some(buffer.len()),
        Cut::After(len) => Some(len),
        Cut::Refused(_) => None,
    }
}

/// The largest power of two that is not longer.
fn power_below(len: ByteLen) -> ByteLen {
    ByteLen::new(len.get().checked_ilog2().map_or(0, |log| 1 << log))
}

impl<D: BlockDevice, M: FrameAccess> BlockDevice for Bounce<D, M> {
    fn limits(&self) -> Limits {
        self.limits
    }

    #[inline]
    fn submit(&self, request: Request) -> Submitted {
        if request
            .segments()
            .all(|memory| memory.frame().paged().is_ok())
        {
            self.state.lock().counters.passed += 1;
            return self.device.submit(request);
        }
        self.bounce(request)
    }

    fn poll(&self, queue: QueueId, done: &mut dyn FnMut(Done)) {
        self.device
            .poll(queue, &mut |finished| done(self.finish(finished)));
    }

    fn abort(&self, queue: QueueId, tag: Tag) -> Abort {
        let abort = self.device.abort(queue, tag);
        match abort {
            Abort::Aborted(mut request) => {
                if let Some(number) = self.buffer_of(&request) {
                    self.give_back(&mut request, number);
                }
                Abort::Aborted(request)
            }
            Abort::Running => Abort::Running,
        }
    }

    fn expect(&self, op: Op, position: BytePos) {
        self.device.expect(op, position);
    }
}

impl<D: fmt::Debug, M> fmt::Debug for Bounce<D, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bounce")
            .field("device", &self.device)
            .field("pool", &self.pool)
            .field("each", &self.each)
            .finish_non_exhaustive()
    }
}

/// Why nothing can be bounced that way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum BounceError {
    /// The pool's frames have no descriptors either.
    #[error("the frames of the pool at {pool} have no descriptors either")]
    NoDescriptors {
        /// The pool.
        pool: PhysSegment,
    },
    /// Choose a multiple of the block.
    #[error("buffers of {each}: must be a multiple of the logical block of {block}")]
    Buffer {
        /// The length asked for.
        each: ByteLen,
        /// The device's logical block.
        block: ByteLen,
    },
    /// There is no room for a single buffer.
    #[error("a pool of {len} has no room for a buffer of {each}")]
    Pool {
        /// How long the pool is.
        len: ByteLen,
        /// The length asked for.
        each: ByteLen,
    },
    /// The device does not take memory that is aligned as that buffer is.
    #[error("the device cannot use buffer {number} of the pool")]
    Unusable {
        /// Which one, counted from 0.
        number: u64,
    },
}
