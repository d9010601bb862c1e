//! A device of the tests, written and read through bios.

use pageless::block::{Bio, BioFlags, BlkError, FrameAccess, HeapFrames, Op, Sector, submit_sync};
use pageless::pfn::{ByteLen, FrameCount, PAGE_SIZE, Pfn, PhysSegment};
use pageless::vmap::compress::{Algorithm, CompressedStore, Page};
use pageless::vmap::zsmalloc::PairWindows;
use pageless::zram::Zram;

use crate::rig::{Frames, Rig};

/// How a bio ended: if it failed, how, and after how many pages.
pub(crate) type Outcome<T = ()> = Result<T, (BlkError, u64)>;

/// Pages that a bio here has at most.
pub(crate) const MOST: usize = 64;

type Device<'f, R> =
    Zram<&'f Frames<'f, R>, Algorithm, &'f HeapFrames, PairWindows<&'f <R as Rig>::Space>>;

/// A device, and the memory of its bios.
pub(crate) struct Disk<'f, R: Rig> {
    pub(crate) zram: Device<'f, R>,
    memory: &'f HeapFrames,
}

/// Memory for bios.
pub(crate) fn memory() -> HeapFrames {
    HeapFrames::new(
        Pfn::try_new(0x100).unwrap(),
        FrameCount::new(2 * MOST as u64),
    )
    .unwrap()
}

fn sector(page: u64) -> Sector {
    Sector::new(page * (PAGE_SIZE / 512))
}

impl<'f, R: Rig> Disk<'f, R> {
    pub(crate) fn new(
        frames: &'f Frames<'f, R>,
        memory: &'f HeapFrames,
        algorithm: Algorithm,
        pages: u64,
    ) -> Self {
        let store = CompressedStore::new(frames, algorithm).with_windows(frames.windows(1 << 16));
        Self {
            zram: Zram::new(ByteLen::new(pages * PAGE_SIZE), store, memory).unwrap(),
            memory,
        }
    }

    /// Memory for `pages` pages, in segments that begin and end anywhere.
    fn segments(&self, pages: usize) -> Vec<PhysSegment> {
        let total = pages as u64 * PAGE_SIZE;
        let mut segments = Vec::new();
        let (mut at, mut done) = (700, 0);
        for len in [300, 5000, 4096, 8000, 1].into_iter().cycle() {
            let len = len.min(total - done);
            if len == 0 {
                break;
            }
            segments.push(self.memory.segment(at, ByteLen::new(len)).unwrap());
            done += len;
            // A gap now and then.
            at += len + len % 2;
        }
        segments
    }

    pub(crate) fn run(&self, op: Op, page: u64, pages: u64) -> Outcome {
        self.submit(Bio::with_range(
            op,
            sector(page),
            ByteLen::new(pages * PAGE_SIZE),
        ))
    }

    pub(crate) fn flush(&self) -> Outcome {
        self.submit(Bio::flush().erase())
    }

    fn transfer(&self, op: Op, page: u64, segments: &[PhysSegment]) -> Outcome {
        let mut bio = Bio::new(op, sector(page));
        segments.iter().for_each(|segment| bio.push(*segment));
        self.submit(bio)
    }

    fn submit(&self, bio: Bio) -> Outcome {
        let done = submit_sync(&self.zram, bio).unwrap();
        let pages = done.done().get() / PAGE_SIZE;
        done.result().map_err(|error| (error, pages))
    }

    /// Writes `pages` from `page` on, at most [`MOST`].
    pub(crate) fn write(&self, page: u64, pages: &[Page]) -> Outcome {
        let segments = self.segments(pages.len());
        let mut bytes = pages.as_flattened();
        for segment in &segments {
            let (here, rest) = bytes.split_at(segment.len().get() as usize);
            self.memory.write_bytes(*segment, here).unwrap();
            bytes = rest;
        }
        self.transfer(Op::Write, page, &segments)
    }

    /// Reads `count` pages from `page` on, at most [`MOST`].
    pub(crate) fn read(&self, page: u64, count: usize) -> Outcome<Vec<Page>> {
        let segments = self.segments(count);
        let mut bytes = vec![0xA5; count * PAGE_SIZE as usize];
        let mut left = &mut bytes[..];
        for segment in &segments {
            let (here, rest) = left.split_at_mut(segment.len().get() as usize);
            self.memory.write_bytes(*segment, here).unwrap();
            left = rest;
        }
        self.transfer(Op::Read, page, &segments)?;
        let mut left = &mut bytes[..];
        for segment in &segments {
            let (here, rest) = left.split_at_mut(segment.len().get() as usize);
            self.memory.read_bytes(*segment, here).unwrap();
            left = rest;
        }
        Ok(bytes.as_chunks().0.to_vec())
    }

    /// Asks for a page to be written without waiting.
    pub(crate) fn write_at_once(&self, page: u64) -> Outcome {
        let segment = self.memory.segment(0, ByteLen::new(PAGE_SIZE)).unwrap();
        self.submit(
            Bio::write(sector(page), segment)
                .with_flags(BioFlags::NOWAIT)
                .erase(),
        )
    }
}
