//! What the tests are set up with: frames to put data in, and a device that takes its time.
#![expect(dead_code, reason = "each test binary uses a part of it")]

use alloc::sync::Arc;
use std::sync::Mutex;

use pageless_block::{
    Abort, Bio, BioFlags, BlockDevice, Done, Failure, FrameAccess, Limits, Op, Pmem, PmemFrames,
    Priority, QueueId, RamFrames, Request, Sector, Submitted, Tag, submit_sync,
};
use pageless_pfn::{ByteLen, FrameCount, PAGE_SIZE, Pfn, PhysSegment};

pub(crate) const RAM_BASE: u64 = 0x100;
pub(crate) const PMEM_BASE: u64 = 1 << 34;

/// The only hardware queue of most tests.
pub(crate) const QUEUE: QueueId = QueueId::new(0);

pub(crate) fn pfn(number: u64) -> Pfn {
    Pfn::try_new(number).unwrap()
}

pub(crate) fn ram(frames: u64) -> Arc<RamFrames> {
    Arc::new(RamFrames::new(pfn(RAM_BASE), FrameCount::new(frames)).unwrap())
}

pub(crate) fn memfd(bytes: u64) -> Arc<PmemFrames> {
    Arc::new(PmemFrames::memfd(pfn(PMEM_BASE), ByteLen::new(bytes)).unwrap())
}

/// A sparse device of this many bytes and 1 MiB of RAM for buffers.
pub(crate) fn pmem(bytes: u64) -> (Pmem<Arc<RamFrames>>, Arc<RamFrames>) {
    let ram = ram((1 << 20) / PAGE_SIZE);
    (Pmem::new(memfd(bytes), Arc::clone(&ram)), ram)
}

pub(crate) fn segment(ram: &RamFrames, offset: u64, len: u64) -> PhysSegment {
    ram.segment(offset, ByteLen::new(len)).unwrap()
}

pub(crate) fn bytes_of(access: &impl FrameAccess, segment: PhysSegment) -> Vec<u8> {
    let mut out = vec![0; usize::try_from(segment.len().get()).unwrap()];
    access.read_bytes(segment, &mut out).unwrap();
    out
}

/// `len` bytes of memory that nobody touches, from frame 1 on.
pub(crate) fn memory(len: u64) -> PhysSegment {
    PhysSegment::try_new(pfn(1).into(), Default::default(), ByteLen::new(len)).unwrap()
}

/// A read of one sector, called after it, over memory that nobody touches.
pub(crate) fn sector(n: u64) -> Bio {
    Bio::read(Sector::new(n), memory(512)).with_token(n).erase()
}

/// Carries `bio` out on `device`, successfully.
#[track_caller]
pub(crate) fn run(device: &(impl BlockDevice + ?Sized), bio: impl Into<Bio>) {
    submit_sync(device, bio).unwrap().result().unwrap();
}

/// All that a caller says in a bio, to be compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Face {
    op: Op,
    flags: BioFlags,
    priority: Priority,
    sector: Sector,
    len: ByteLen,
    token: u64,
    segments: Vec<PhysSegment>,
}

pub(crate) fn face<D>(bio: &Bio<D>) -> Face {
    Face {
        op: bio.op(),
        flags: bio.flags(),
        priority: bio.priority(),
        sector: bio.sector(),
        len: bio.len(),
        token: bio.token(),
        segments: bio.segments().to_vec(),
    }
}

/// Keeps every request until it is told to let go of it.
#[derive(Debug)]
pub(crate) struct Shelf {
    limits: Limits,
    kept: Mutex<Vec<Request>>,
    ready: Mutex<Vec<Done>>,
    /// How many requests it has room for.
    room: Mutex<usize>,
    /// Whether it gives a request back that has taken too long.
    gives_back: Mutex<bool>,
    /// Each request it was asked to give back.
    asked: Mutex<Vec<Tag>>,
}

impl Shelf {
    /// A device of 1 GiB that takes requests of at most 8 KiB.
    pub(crate) fn new() -> Self {
        let mut limits = Limits::new(ByteLen::new(1 << 30));
        limits.max_request = ByteLen::new(8192);
        limits.max_discard = ByteLen::new(8192);
        Self::with_limits(limits)
    }

    pub(crate) fn with_limits(limits: Limits) -> Self {
        Self {
            limits,
            kept: Mutex::default(),
            ready: Mutex::default(),
            room: Mutex::new(usize::MAX),
            gives_back: Mutex::new(false),
            asked: Mutex::default(),
        }
    }

    /// From now on it is busy when it has this many.
    pub(crate) fn set_room(&self, room: usize) {
        *self.room.lock().unwrap() = room;
    }

    /// From now on it gives back what it is asked for, or no longer does.
    pub(crate) fn set_gives_back(&self, gives_back: bool) {
        *self.gives_back.lock().unwrap() = gives_back;
    }

    pub(crate) fn kept(&self) -> usize {
        self.kept.lock().unwrap().len()
    }

    /// The first sector of each kept request, in the order in which they came.
    pub(crate) fn sectors(&self) -> Vec<u64> {
        let kept = self.kept.lock().unwrap();
        kept.iter().map(|request| request.sector().get()).collect()
    }

    /// The tags it was asked for since the last time.
    pub(crate) fn take_asked(&self) -> Vec<u16> {
        self.asked.lock().unwrap().drain(..).map(Tag::get).collect()
    }

    /// Looks at the `index`-th of the kept requests.
    pub(crate) fn look<T>(&self, index: usize, look: impl FnOnce(&Request) -> T) -> T {
        look(&self.kept.lock().unwrap()[index])
    }

    /// Completes the `index`-th of the kept requests.
    pub(crate) fn release(&self, index: usize, result: Result<(), impl Into<Failure>>) {
        let request = self.kept.lock().unwrap().remove(index);
        let done = request.complete(result.map_err(Into::into));
        self.ready.lock().unwrap().push(done);
    }

    /// Completes the `index`-th of the kept requests successfully.
    pub(crate) fn succeed(&self, index: usize) {
        self.release(index, Ok::<(), Failure>(()));
    }

    /// Takes a kept request away, as no device should.
    pub(crate) fn steal(&self) -> Request {
        self.kept.lock().unwrap().remove(0)
    }
}

impl BlockDevice for Shelf {
    fn limits(&self) -> Limits {
        self.limits
    }

    fn submit(&self, request: Request) -> Submitted {
        let mut kept = self.kept.lock().unwrap();
        if kept.len() >= *self.room.lock().unwrap() {
            return Submitted::Busy(request);
        }
        kept.push(request);
        Submitted::Kept
    }

    fn poll(&self, queue: QueueId, done: &mut dyn FnMut(Done)) {
        let mut ready = self.ready.lock().unwrap();
        let (ours, others) = ready.drain(..).partition(|d| d.queue() == queue);
        *ready = others;
        let ours: Vec<Done> = ours;
        ours.into_iter().for_each(done);
    }

    fn abort(&self, queue: QueueId, tag: Tag) -> Abort {
        self.asked.lock().unwrap().push(tag);
        let mut kept = self.kept.lock().unwrap();
        let place = kept
            .iter()
            .position(|request| (request.queue(), request.tag()) == (queue, tag));
        match place {
            Some(at) if *self.gives_back.lock().unwrap() => Abort::Aborted(kept.remove(at)),
            _ => Abort::Running,
        }
    }
}
