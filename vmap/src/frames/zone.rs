//! A zone: a part of memory with free blocks, watermarks and a lock of its own.

use alloc::vec::Vec;
use core::ops::{Deref, DerefMut};

use pageless_fault::sync::atomic::{AtomicU64, Ordering};
use pageless_fault::sync::{Mutex, MutexGuard};
use pageless_pfn::{FrameCount, Pfn, PfnRange};

use super::free_blocks::FreeBlocks;
use super::gfp::ZoneKind;
use super::order::Order;
use super::percpu::CpuList;
use super::states::States;
use super::watermark::{Mark, Watermarks, permits};
use crate::mutant::Mutant;

pub(super) struct Zone {
    pub(super) kind: ZoneKind,
    pub(super) span: PfnRange,
    pub(super) marks: Watermarks,
    /// What stays for those who can use no other zone.
    pub(super) reserve: FrameCount,
    /// One for each CPU.
    pub(super) lists: Vec<CpuList>,
    /// [`FreeBlocks::free`], set under the lock with Relaxed and read without it with Relaxed: an estimate, as soon as it is read.
    free: AtomicU64,
    blocks: Mutex<ZoneBlocks>,
}

/// What the lock of a zone is around.
pub(super) struct ZoneBlocks {
    blocks: FreeBlocks,
    taken: u64,
    freed: u64,
}

impl Zone {
    pub(super) fn new(
        kind: ZoneKind,
        mut blocks: FreeBlocks,
        span: PfnRange,
        (marks, reserve): (Watermarks, FrameCount),
        lists: Vec<CpuList>,
        states: &States,
    ) -> Self {
        blocks.add_all(states);
        Zone {
            kind,
            span,
            marks,
            reserve,
            lists,
            free: AtomicU64::new(blocks.free().get()),
            blocks: Mutex::new(ZoneBlocks {
                blocks,
                taken: 0,
                freed: 0,
            }),
        }
    }

    pub(super) fn contains(&self, pfn: Pfn) -> bool {
        self.span.contains(pfn)
    }

    /// Free frames that are in no list, or were a moment ago.
    pub(super) fn free(&self) -> FrameCount {
        FrameCount::new(self.free.load(Ordering::Relaxed))
    }

    /// Frames in lists, or that were there a moment ago.
    pub(super) fn parked(&self) -> FrameCount {
        FrameCount::new(self.lists.iter().map(|list| list.len() as u64).sum())
    }

    /// Free frames, those in lists included.
    pub(super) fn available(&self) -> FrameCount {
        FrameCount::new(self.free().get().saturating_add(self.parked().get()))
    }

    /// How many frames stay free when somebody goes down to `mark` who asked for memory of `asked`.
    pub(super) fn keeps(&self, mark: Mark, asked: ZoneKind) -> FrameCount {
        let mark = mark.of(self.marks).get();
        if asked == self.kind {
            FrameCount::new(mark)
        } else {
            FrameCount::new(mark.saturating_add(self.reserve.get()))
        }
    }

    /// Whether `free` frames are enough to give a block of `order` to somebody who asked for memory of `asked`.
    pub(super) fn permits(
        &self,
        free: FrameCount,
        order: Order,
        mark: Mark,
        asked: ZoneKind,
    ) -> bool {
        permits(free, order, self.keeps(mark, asked)) || Mutant::WatermarkIgnored.active()
    }

    pub(super) fn lock(&self) -> ZoneGuard<'_> {
        ZoneGuard {
            blocks: self.blocks.lock(),
            free: &self.free,
        }
    }
}

/// A held lock of a zone. When it goes, the estimate of what is free is brought up to date.
pub(super) struct ZoneGuard<'z> {
    blocks: MutexGuard<'z, ZoneBlocks>,
    free: &'z AtomicU64,
}

impl ZoneGuard<'_> {
    /// Counts a block that went out other than through a list.
    pub(super) fn count_taken(&mut self) {
        self.blocks.taken += 1;
    }

    /// Counts a block that came back other than through a list.
    pub(super) fn count_freed(&mut self) {
        self.blocks.freed += 1;
    }

    /// Blocks counted as taken, and as freed.
    pub(super) fn counts(&self) -> (u64, u64) {
        (self.blocks.taken, self.blocks.freed)
    }
}

impl Drop for ZoneGuard<'_> {
    fn drop(&mut self) {
        self.free
            .store(self.blocks.blocks.free().get(), Ordering::Relaxed);
    }
}

impl Deref for ZoneGuard<'_> {
    type Target = FreeBlocks;

    fn deref(&self) -> &FreeBlocks {
        &self.blocks.blocks
    }
}

impl DerefMut for ZoneGuard<'_> {
    fn deref_mut(&mut self) -> &mut FreeBlocks {
        &mut self.blocks.blocks
    }
}
