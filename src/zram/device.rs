//! The device.

use core::fmt;
use core::ops::Range;

use pageless_block::{
    BlkError, BlockDevice, Data, Failure, Features, FrameAccess, FromDevice, Limits, Op, Request,
    Submitted, ToDevice,
};
use pageless_fault::MaySleep;
use pageless_fault::sync::atomic::{AtomicU64, Ordering};
use pageless_pfn::{ByteLen, PAGE_SIZE};
use pageless_vmap::compress::{
    Access, CompressedStore, Compressor, Incompressible, NoWindows, PAGE, Page, Stored, Windows,
};
use pageless_vmap::frames::Gfp;
use pageless_vmap::zsmalloc::FrameSource;
use thiserror::Error;

use super::cursor::Cursor;
use super::stat::{IoStat, MmStat};
use super::table::Table;

/// A device of compressed pages, for bios whose memory is `M`'s. Its pages are in frames of `F`.
///
/// A submitter must be able to wait: a page that is stored may need a frame. So bios that must not wait are refused
/// ([`BioFlags::NOWAIT`](pageless_block::BioFlags::NOWAIT)), and nothing is submitted under a spin lock.
///
/// A page that finds no room, for want of frames or by the [limit](Zram::set_mem_limit), fails with [`BlkError::NoSpace`]; what was there
/// before stays, and so do the pages of the same bio before it.
///
/// ```
/// use std::sync::Arc;
/// use pageless::block::{Bio, HeapFrames, Sector, submit_sync};
/// use pageless::fault::host::HostRam;
/// use pageless::pfn::{ByteLen, FrameCount, Pfn, PfnRange};
/// use pageless::vmap::compress::{CompressedStore, Lz4};
/// use pageless::vmap::frames::{FrameAllocator, FrameConfig};
/// use pageless::zram::Zram;
///
/// let frames = PfnRange::try_new(Pfn::try_new(0x1_0000)?, FrameCount::new(1024))?;
/// let frames = FrameAllocator::new(Arc::new(HostRam::new(frames)?), FrameConfig::default())?;
/// let memory = HeapFrames::new(Pfn::try_new(0x100)?, FrameCount::new(1))?;
/// let buffer = memory.segment(0, ByteLen::new(4096)).ok_or("no such memory")?;
///
/// // 1 TiB, of which a page is one word, and takes nothing.
/// let disk = Zram::new(ByteLen::new(1 << 40), CompressedStore::new(frames, Lz4), &memory)?;
/// submit_sync(&disk, Bio::write(Sector::new(1 << 30), buffer))?.result()?;
/// assert_eq!(disk.mm_stat().to_string(), "    4096        0        0        0        0        1        0        0        0");
/// # Ok::<(), Box<dyn core::error::Error>>(())
/// ```
pub struct Zram<F: FrameSource, C: Compressor, M, W = NoWindows> {
    store: CompressedStore<F, C, W>,
    table: Table,
    memory: M,
    limits: Limits,
    access: Access,
    failed_reads: AtomicU64,
    failed_writes: AtomicU64,
    notify_free: AtomicU64,
}

/// Not a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ZramError {
    /// It has no pages, or not whole ones.
    #[error(
        "a compressed device of {capacity}: it has to be a multiple of {PAGE_SIZE} bytes, and more than none"
    )]
    Capacity {
        /// What was asked for.
        capacity: ByteLen,
    },
    /// No memory for its table: 24 bytes for each 2 MiB.
    #[error("no memory for the table of a compressed device of {capacity}")]
    Memory {
        /// What was asked for.
        capacity: ByteLen,
    },
}

impl<F: FrameSource, C: Compressor, M: FrameAccess, W: Windows> Zram<F, C, M, W> {
    /// A device of this capacity, all zeroes, whose pages will be in `store`, which is empty.
    ///
    /// # Errors
    ///
    /// See [`ZramError`].
    pub fn new(
        capacity: ByteLen,
        store: CompressedStore<F, C, W>,
        memory: M,
    ) -> Result<Self, ZramError> {
        if capacity.is_zero() || !capacity.get().is_multiple_of(PAGE_SIZE) {
            return Err(ZramError::Capacity { capacity });
        }
        let page = ByteLen::new(PAGE_SIZE);
        let mut limits = Limits::new(capacity);
        limits.set_logical_block(page);
        limits.io_opt = page;
        limits.discard_granularity = page;
        limits.max_discard = Limits::UNLIMITED;
        limits.max_write_zeroes = Limits::UNLIMITED;
        limits.features |= Features::SYNCHRONOUS;
        Ok(Self {
            table: Table::try_new(capacity.get() / PAGE_SIZE)
                .ok_or(ZramError::Memory { capacity })?,
            store,
            memory,
            limits,
            access: Access::default(),
            failed_reads: AtomicU64::new(0),
            failed_writes: AtomicU64::new(0),
            notify_free: AtomicU64::new(0),
        })
    }

    /// The same, with compressed pages reached in this way.
    #[must_use]
    pub fn with_access(mut self, access: Access) -> Self {
        self.access = access;
        self
    }

    /// Where its pages are.
    pub const fn store(&self) -> &CompressedStore<F, C, W> {
        &self.store
    }

    /// From now on a write fails that would bring the memory taken above `limit`; zero for no limit. It counts in whole pages, rounded up.
    pub fn set_mem_limit(&self, limit: ByteLen) {
        let pages = limit.get().div_ceil(PAGE_SIZE);
        self.store
            .set_limit(ByteLen::new(pages.saturating_mul(PAGE_SIZE)));
    }

    /// Has `mem_used_max` begin anew, from what is taken now.
    pub fn forget_mem_used_max(&self) {
        self.store.forget_used_max();
    }

    /// Moves objects together, and says how many frames that has freed.
    pub fn compact(&self) -> u64 {
        self.store.compact()
    }

    /// Empties it, and forgets its statistics and its limit. Nobody uses it meanwhile: that is what `&mut` says.
    pub fn reset(&mut self) {
        let store = &self.store;
        self.table.reset(|stored| store.remove(stored));
        self.store.reset_stats();
        for counter in [&self.failed_reads, &self.failed_writes, &self.notify_free] {
            counter.store(0, Ordering::Relaxed);
        }
    }

    /// What is stored, and what that takes.
    pub fn mm_stat(&self) -> MmStat {
        let stats = self.store.stats();
        MmStat {
            orig_data_size: ByteLen::new(stats.pages.saturating_mul(PAGE_SIZE)),
            compr_data_size: stats.compressed,
            mem_used_total: stats.used,
            mem_limit: stats.limit,
            mem_used_max: stats.used_max,
            same_pages: stats.filled,
            pages_compacted: stats.compacted,
            huge_pages: stats.raw,
            huge_pages_since: stats.raw_since,
        }
    }

    /// What has failed, and what was let go.
    pub fn io_stat(&self) -> IoStat {
        IoStat {
            failed_reads: self.failed_reads.load(Ordering::Relaxed),
            failed_writes: self.failed_writes.load(Ordering::Relaxed),
            invalid_io: 0,
            notify_free: self.notify_free.load(Ordering::Relaxed),
        }
    }

    /// Fills the next page of the bio's memory with what `page` of the device holds.
    fn read(&self, page: u64, into: &mut Cursor<'_, FromDevice>) -> Result<(), BlkError> {
        let ctx = MaySleep::claim();
        self.table.with(page, |stored| match stored {
            None | Some(Stored::Filled(0)) => into.next_page(|part, _| part.zero(&self.memory)),
            Some(Stored::Raw(handle)) => self
                .store
                .with_bytes(&ctx, handle, self.access, |bytes| {
                    into.next_page(|part, at| {
                        part.fill(&self.memory, bytes.get(at..).unwrap_or(&[]))
                    })
                })
                .unwrap_or(Err(BlkError::Io)),
            Some(stored) => {
                let mut whole: Page = [0; PAGE];
                self.store
                    .load(&ctx, stored, self.access, &mut whole)
                    .map_err(|_| BlkError::Io)?;
                into.next_page(|part, at| part.fill(&self.memory, &whole[at..]))
            }
        })
    }

    /// Stores the next page of the bio's memory as `page` of the device.
    fn write(&self, page: u64, from: &mut Cursor<'_, ToDevice>) -> Result<(), BlkError> {
        let mut whole: Page = [0; PAGE];
        from.next_page(|part, at| part.take(&self.memory, &mut whole[at..]))?;
        let ctx = MaySleep::claim();
        let stored = self
            .store
            .put(&Gfp::kernel(&ctx), &whole, Incompressible::StoreRaw)
            .map_err(|_| BlkError::NoSpace)?;
        let (before, result) = match self.table.replace(page, stored) {
            Ok(before) => (before, Ok(())),
            Err(stored) => (Some(stored), Err(BlkError::NoSpace)),
        };
        if let Some(before) = before {
            self.store.remove(before);
        }
        result
    }

    /// Lets pages go: they read as zeroes.
    fn free(&self, pages: Range<u64>) {
        self.notify_free
            .fetch_add(pages.end - pages.start, Ordering::Relaxed);
        self.table.clear(pages, |stored| self.store.remove(stored));
    }
}

impl<F: FrameSource, C: Compressor, M, W: Windows> fmt::Debug for Zram<F, C, M, W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Zram")
            .field("capacity", &self.limits.capacity)
            .field("store", &self.store)
            .finish_non_exhaustive()
    }
}

impl<F: FrameSource, C: Compressor, M: FrameAccess, W: Windows> BlockDevice for Zram<F, C, M, W> {
    fn limits(&self) -> Limits {
        self.limits
    }

    fn submit(&self, request: Request) -> Submitted {
        request.run(|request| {
            let first = request.position().get() / PAGE_SIZE;
            let pages = first..first.saturating_add(request.len().get() / PAGE_SIZE);
            match (request.data(), request.op()) {
                (Data::ToMemory(parts), _) => {
                    let mut cursor = Cursor::new(parts);
                    each(pages, &self.failed_reads, |page| {
                        self.read(page, &mut cursor)
                    })
                }
                (Data::FromMemory(parts), _) => {
                    let mut cursor = Cursor::new(parts);
                    each(pages, &self.failed_writes, |page| {
                        self.write(page, &mut cursor)
                    })
                }
                (Data::None, Op::Discard | Op::WriteZeroes) => {
                    self.free(pages);
                    Ok(())
                }
                // Nothing is volatile but all of it.
                (Data::None, Op::Flush) => Ok(()),
                (Data::None, _) => Err(BlkError::NotSupported.into()),
            }
        })
    }
}

/// Calls `f` for one page after the other. A failure says how many bytes those before it had, and is counted.
fn each(
    pages: Range<u64>,
    failed: &AtomicU64,
    mut f: impl FnMut(u64) -> Result<(), BlkError>,
) -> Result<(), Failure> {
    let first = pages.start;
    for page in pages {
        f(page).map_err(|error| {
            failed.fetch_add(1, Ordering::Relaxed);
            Failure {
                error,
                done: ByteLen::new((page - first).saturating_mul(PAGE_SIZE)),
            }
        })?;
    }
    Ok(())
}
