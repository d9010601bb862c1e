//! The volume's device: an image behind the pmem driver, read by bios.

use alloc::sync::Arc;
use core::cell::RefCell;
use std::path::Path;

use pageless_block::{
    Bio, BytePos, Context, FrameAccess, Pmem, PmemFrames, QueueId, RamFrames, RequestQueue,
    SECTOR_SIZE, Sector,
};
use pageless_pfn::{ByteLen, FrameCount, Pfn};

use crate::xfs::error::XfsError;
use crate::xfs::volume::Source;

type Device = Pmem<Arc<RamFrames>>;

/// The first frame of the device. No descriptor covers it.
const FIRST: u64 = 1 << 30;
/// What one bio reads at most.
const MOST: u64 = 256 << 10;

/// An image, its device, and the queue before that.
#[derive(Debug)]
pub(crate) struct Image {
    ram: Arc<RamFrames>,
    queue: RequestQueue<Device>,
    frames: Arc<PmemFrames>,
}

impl Image {
    /// Opens the image at `path`.
    pub(crate) fn open(path: &Path) -> Result<Self, Box<dyn core::error::Error>> {
        let ram = Arc::new(RamFrames::new(
            Pfn::try_new(0x100)?,
            FrameCount::new(MOST / 4096),
        )?);
        let frames = Arc::new(PmemFrames::open(Pfn::try_new(FIRST)?, path)?);
        let device = Pmem::new(Arc::clone(&frames), Arc::clone(&ram));
        Ok(Image {
            ram,
            queue: RequestQueue::with_depth(device, 32)?,
            frames,
        })
    }

    /// Its frames.
    pub(crate) fn frames(&self) -> &PmemFrames {
        &self.frames
    }

    /// A thread's way to it.
    pub(crate) fn disk(&self) -> Result<Disk<'_>, Box<dyn core::error::Error>> {
        Ok(Disk {
            image: self,
            context: RefCell::new(self.queue.context(QueueId::new(0))?),
        })
    }
}

/// Reads by bios.
#[derive(Debug)]
pub(crate) struct Disk<'i> {
    image: &'i Image,
    context: RefCell<Context<'i, Device>>,
}

impl Disk<'_> {
    /// Reads `into.len()` bytes from `at` on.
    fn read_at(&self, at: BytePos, into: &mut [u8]) -> Result<(), XfsError> {
        let mut at = at.get();
        let mut into = into;
        while !into.is_empty() {
            let skip = at % SECTOR_SIZE;
            let taken = (into.len() as u64).min(MOST - skip);
            let (here, rest) = into.split_at_mut(taken as usize);
            let whole = (skip + taken).next_multiple_of(SECTOR_SIZE);
            self.read_sectors(
                Sector::new(at / SECTOR_SIZE),
                ByteLen::new(whole),
                skip,
                here,
            )
            .map_err(|reason| XfsError::Read {
                at: BytePos::new(at),
                len: ByteLen::new(taken),
                reason,
            })?;
            at += taken;
            into = rest;
        }
        Ok(())
    }

    /// Makes what was written survive.
    pub(crate) fn flush(&self) -> Result<(), Box<str>> {
        let mut context = self.context.borrow_mut();
        let flush = context.submit(Bio::flush());
        flush.map_err(|rejected| rejected.to_string())?;
        settle(&mut context)
    }

    /// Whole sectors into RAM, and from there all but the first `skip` bytes.
    fn read_sectors(
        &self,
        sector: Sector,
        len: ByteLen,
        skip: u64,
        into: &mut [u8],
    ) -> Result<(), Box<str>> {
        let ram = &self.image.ram;
        let buffer = ram.segment(0, len).ok_or("a bio larger than its buffer")?;
        let mut context = self.context.borrow_mut();
        context
            .submit(Bio::read(sector, buffer))
            .map_err(|rejected| rejected.to_string())?;
        settle(&mut context)?;
        let part = ram.segment(skip, ByteLen::new(into.len() as u64));
        let part = part.ok_or("a bio larger than its buffer")?;
        ram.read_bytes(part, into)
            .map_err(|error| error.to_string().into())
    }
}

/// How the one bio that is under way went.
fn settle(context: &mut Context<'_, Device>) -> Result<(), Box<str>> {
    let mut result = None;
    context.drain(|done| result = Some(done.result()));
    match result {
        Some(Ok(())) => Ok(()),
        Some(Err(error)) => Err(error.to_string().into()),
        None => Err("the bio has not come back".into()),
    }
}

impl Source for &Disk<'_> {
    fn capacity(&self) -> ByteLen {
        self.image.frames.len()
    }

    fn read(&mut self, at: BytePos, into: &mut [u8]) -> Result<(), XfsError> {
        self.read_at(at, into)
    }
}
