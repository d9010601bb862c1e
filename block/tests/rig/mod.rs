//! What the tests are set up with: frames to put data in, and a device that takes its time.
#![expect(dead_code, reason = "each test binary uses a part of it")]

use alloc::sync::Arc;
use std::sync::Mutex;

use pageless_block::{
    BlkError, BlockDevice, DeviceInfo, Done, FrameAccess, Pmem, PmemFrames, QueueId, RamFrames,
    Request,
};
use pageless_pfn::{ByteLen, FrameCount, PAGE_SIZE, Pfn, PhysSegment};

pub(crate) const RAM_BASE: u64 = 0x100;
pub(crate) const PMEM_BASE: u64 = 1 << 34;

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

/// Keeps every request until it is told to let go of it.
#[derive(Debug)]
pub(crate) struct Shelf {
    info: DeviceInfo,
    kept: Mutex<Vec<Request>>,
    ready: Mutex<Vec<Done>>,
}

impl Shelf {
    pub(crate) fn new() -> Self {
        let info = DeviceInfo::new(ByteLen::new(1 << 30))
            .with_max_request(ByteLen::new(8192))
            .unwrap();
        Self {
            info,
            kept: Mutex::default(),
            ready: Mutex::default(),
        }
    }

    pub(crate) fn kept(&self) -> usize {
        self.kept.lock().unwrap().len()
    }

    /// Completes the `index`-th of the kept requests.
    pub(crate) fn release(&self, index: usize, result: Result<(), BlkError>) {
        let request = self.kept.lock().unwrap().remove(index);
        self.ready.lock().unwrap().push(request.complete(result));
    }

    /// Takes a kept request away, as no device should.
    pub(crate) fn steal(&self) -> Request {
        self.kept.lock().unwrap().remove(0)
    }
}

impl BlockDevice for Shelf {
    fn info(&self) -> DeviceInfo {
        self.info
    }

    fn execute(&self, _request: &Request) -> Result<(), BlkError> {
        Ok(())
    }

    fn submit(&self, request: Request) -> Option<Done> {
        self.kept.lock().unwrap().push(request);
        None
    }

    fn poll(&self, queue: QueueId, done: &mut dyn FnMut(Done)) {
        let mut ready = self.ready.lock().unwrap();
        let (ours, others) = ready.drain(..).partition(|d| d.queue() == queue);
        *ready = others;
        let ours: Vec<Done> = ours;
        ours.into_iter().for_each(done);
    }
}
