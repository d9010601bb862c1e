//! What the tests of stacked devices stand on: a store that remembers what it saw, a device that
//! finishes later, and one whose power goes after so many requests.
#![expect(dead_code, reason = "each test binary uses a part of it")]

use alloc::sync::Arc;
use core::sync::atomic::{AtomicU64, Ordering};
use std::sync::Mutex;

use pageless_block::{
    Abort, BlkError, BlockDevice, BytePos, Data, Done, Failure, FrameAccess, Limits, Op, QueueId,
    RamFrames, Request, Submitted, Tag,
};
use pageless_pfn::{ByteLen, FrameCount, Pfn, PfnFlags, PfnT, PhysSegment};

pub(crate) const SECTOR: u64 = 512;
pub(crate) const RAM_BASE: u64 = 0x100;
/// What a store has after a discard: nothing that anybody wrote.
pub(crate) const DISCARDED: u8 = 0xdd;

pub(crate) fn ram(frames: u64) -> Arc<RamFrames> {
    let base = Pfn::try_new(RAM_BASE).unwrap();
    Arc::new(RamFrames::new(base, FrameCount::new(frames)).unwrap())
}

pub(crate) fn segment(ram: &RamFrames, offset: u64, len: u64) -> PhysSegment {
    ram.segment(offset, ByteLen::new(len)).unwrap()
}

/// The same bytes, said to have no descriptors.
pub(crate) fn pageless(segment: PhysSegment) -> PhysSegment {
    let frame = PfnT::new(segment.frame().pfn(), PfnFlags::DEV);
    PhysSegment::try_new(frame, segment.offset(), segment.len()).unwrap()
}

pub(crate) fn bytes_of(access: &impl FrameAccess, segment: PhysSegment) -> Vec<u8> {
    let mut out = vec![0; usize::try_from(segment.len().get()).unwrap()];
    access.read_bytes(segment, &mut out).unwrap();
    out
}

/// A request as a device saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) op: Op,
    pub(crate) fua: bool,
    pub(crate) at: u64,
    pub(crate) len: u64,
    /// Whether all of its frames have descriptors.
    pub(crate) paged: bool,
    /// The address of its first byte of memory; 0 if it has none.
    pub(crate) memory: u64,
}

impl Seen {
    fn of(request: &Request) -> Self {
        Self {
            op: request.op(),
            fua: request.flags().contains(pageless_block::BioFlags::FUA),
            at: request.position().get(),
            len: request.len().get(),
            paged: request.segments().all(|s| s.frame().paged().is_ok()),
            memory: request.segments().next().map_or(0, |s| s.phys().get()),
        }
    }
}

/// Bytes in a vector, done when it returns.
pub(crate) struct Store {
    pub(crate) limits: Limits,
    pub(crate) bytes: Mutex<Vec<u8>>,
    pub(crate) seen: Mutex<Vec<Seen>>,
    /// What it has after a discard.
    pub(crate) discarded: u8,
    ram: Arc<RamFrames>,
}

impl Store {
    pub(crate) fn new(len: u64, ram: &Arc<RamFrames>) -> Self {
        let mut limits = Limits::new(ByteLen::new(len));
        limits.max_discard = Limits::UNLIMITED;
        limits.max_write_zeroes = Limits::UNLIMITED;
        Self::with_limits(limits, ram)
    }

    pub(crate) fn with_limits(limits: Limits, ram: &Arc<RamFrames>) -> Self {
        let len = usize::try_from(limits.capacity.get()).unwrap();
        Self {
            limits,
            bytes: Mutex::new(vec![0; len]),
            seen: Mutex::default(),
            discarded: DISCARDED,
            ram: Arc::clone(ram),
        }
    }

    pub(crate) fn seen_of(&self, op: Op) -> Vec<Seen> {
        let seen = self.seen.lock().unwrap();
        seen.iter().copied().filter(|one| one.op == op).collect()
    }
}

impl BlockDevice for Store {
    fn limits(&self) -> Limits {
        self.limits
    }

    fn submit(&self, request: Request) -> Submitted {
        self.seen.lock().unwrap().push(Seen::of(&request));
        // Whoever passes requests on must have seen to it.
        let chunk = self.limits.chunk.map_or(u64::MAX, ByteLen::get);
        let (from, to) = (request.position().get(), request.end().get());
        assert!(
            request.is_empty() || from / chunk == (to - 1) / chunk,
            "{request:?} straddles a chunk of {chunk}"
        );
        assert!(!request.op().carries_data() || request.len() <= self.limits.max_request);
        request.run(|request| {
            let mut bytes = self.bytes.lock().unwrap();
            let range = usize::try_from(from).unwrap()..usize::try_from(to).unwrap();
            let Some(mut here) = bytes.get_mut(range) else {
                return Err(BlkError::Io.into());
            };
            match (request.data(), request.op()) {
                (Data::ToMemory(parts), _) => {
                    for part in parts {
                        let (now, rest) = here.split_at_mut(part.len().get() as usize);
                        part.fill(&*self.ram, now)?;
                        here = rest;
                    }
                }
                (Data::FromMemory(parts), _) => {
                    for part in parts {
                        let (now, rest) = here.split_at_mut(part.len().get() as usize);
                        part.take(&*self.ram, now)?;
                        here = rest;
                    }
                }
                (Data::None, Op::WriteZeroes) => here.fill(0),
                (Data::None, Op::Discard) => here.fill(self.discarded),
                (Data::None, Op::Flush) => {}
                (Data::None, _) => return Err(BlkError::NotSupported.into()),
            }
            Ok(())
        })
    }
}

/// Keeps requests and carries them out when polled, in an order that only its seed knows; has room
/// for a few.
pub(crate) struct Later<D> {
    device: D,
    room: usize,
    state: Mutex<(Vec<Request>, u64)>,
    pub(crate) refused: AtomicU64,
}

impl<D> Later<D> {
    pub(crate) fn new(device: D, room: usize, seed: u64) -> Self {
        Self {
            device,
            room,
            state: Mutex::new((Vec::new(), seed)),
            refused: AtomicU64::new(0),
        }
    }

    pub(crate) fn device(&self) -> &D {
        &self.device
    }

    pub(crate) fn kept(&self) -> usize {
        self.state.lock().unwrap().0.len()
    }
}

/// The next number of a sequence; `splitmix64`, for no more than a choice.
pub(crate) fn next(seed: &mut u64) -> u64 {
    *seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *seed;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl<D: BlockDevice> BlockDevice for Later<D> {
    fn limits(&self) -> Limits {
        self.device.limits()
    }

    fn submit(&self, request: Request) -> Submitted {
        let mut state = self.state.lock().unwrap();
        let ours = |one: &&Request| one.queue() == request.queue();
        if state.0.iter().filter(ours).count() >= self.room {
            self.refused.fetch_add(1, Ordering::Relaxed);
            return Submitted::Busy(request);
        }
        state.0.push(request);
        Submitted::Kept
    }

    fn poll(&self, queue: QueueId, done: &mut dyn FnMut(Done)) {
        // The lock is held while it hands over, as it may be.
        let mut state = self.state.lock().unwrap();
        let (kept, seed) = &mut *state;
        let (mut ours, others): (Vec<_>, Vec<_>) =
            kept.drain(..).partition(|one| one.queue() == queue);
        *kept = others;
        let count = ours.len().min(1 + next(seed) as usize % 3);
        for _ in 0..count {
            let at = next(seed) as usize % ours.len();
            match self.device.submit(ours.swap_remove(at)) {
                Submitted::Done(finished) => done(finished),
                Submitted::Kept => {}
                Submitted::Busy(request) => ours.push(request),
            }
        }
        kept.extend(ours);
        self.device.poll(queue, done);
    }

    fn abort(&self, queue: QueueId, tag: Tag) -> Abort {
        let kept = &mut self.state.lock().unwrap().0;
        let found = kept
            .iter()
            .position(|one| one.queue() == queue && one.tag() == tag);
        match found {
            Some(at) => Abort::Aborted(kept.swap_remove(at)),
            None => self.device.abort(queue, tag),
        }
    }

    fn expect(&self, op: Op, position: BytePos) {
        self.device.expect(op, position);
    }
}

/// How many requests have been seen, by all fuses that share it, and how many will be.
#[derive(Debug)]
pub(crate) struct Power {
    seen: AtomicU64,
    limit: AtomicU64,
}

impl Power {
    pub(crate) fn lasting(requests: u64) -> Arc<Self> {
        Arc::new(Self {
            seen: AtomicU64::new(0),
            limit: AtomicU64::new(requests),
        })
    }

    pub(crate) fn seen(&self) -> u64 {
        self.seen.load(Ordering::Relaxed)
    }

    pub(crate) fn comes_back(&self) {
        self.limit.store(u64::MAX, Ordering::Relaxed);
    }
}

/// A device that is gone when its power is.
pub(crate) struct Fuse<D> {
    device: D,
    power: Arc<Power>,
}

impl<D> Fuse<D> {
    pub(crate) fn new(device: D, power: &Arc<Power>) -> Self {
        let power = Arc::clone(power);
        Self { device, power }
    }

    pub(crate) fn device(&self) -> &D {
        &self.device
    }
}

impl<D: BlockDevice> BlockDevice for Fuse<D> {
    fn limits(&self) -> Limits {
        self.device.limits()
    }

    fn submit(&self, request: Request) -> Submitted {
        let seen = self.power.seen.fetch_add(1, Ordering::Relaxed);
        if seen >= self.power.limit.load(Ordering::Relaxed) {
            return request.run(|_| Err(Failure::from(BlkError::Offline)));
        }
        self.device.submit(request)
    }

    fn poll(&self, queue: QueueId, done: &mut dyn FnMut(Done)) {
        self.device.poll(queue, done);
    }

    fn abort(&self, queue: QueueId, tag: Tag) -> Abort {
        self.device.abort(queue, tag)
    }
}
