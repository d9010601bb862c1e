//! What has come of asking for blocks.

use pageless_fault::sync::atomic::{AtomicU64, Ordering};

/// How blocks were had, and why not.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PageCounters {
    /// Blocks in one piece.
    pub contiguous: u64,
    /// Blocks that stand together through a mapping.
    pub fallbacks: u64,
    /// Failures for want of a contiguous block, where nothing else was permitted.
    pub failed_contiguous: u64,
    /// Failures for want of single frames.
    pub failed_frames: u64,
    /// Failures for want of memory, or time, for descriptors.
    pub failed_descriptors: u64,
    /// Failures for want of addresses.
    pub failed_addresses: u64,
    /// Failures of the machine to map.
    pub failed_mapping: u64,
    /// Blocks whose last reference has gone.
    pub freed: u64,
    /// Blocks split into pages.
    pub split: u64,
    /// Blocks that could not be unmapped: they are lost.
    pub lost: u64,
}

/// The same, being counted. Relaxed: each is a number and nothing else.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) contiguous: AtomicU64,
    pub(super) fallbacks: AtomicU64,
    pub(super) failed_contiguous: AtomicU64,
    pub(super) failed_frames: AtomicU64,
    pub(super) failed_descriptors: AtomicU64,
    pub(super) failed_addresses: AtomicU64,
    pub(super) failed_mapping: AtomicU64,
    pub(super) freed: AtomicU64,
    pub(super) split: AtomicU64,
    pub(super) lost: AtomicU64,
}

pub(super) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

impl Counts {
    pub(super) fn read(&self) -> PageCounters {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        PageCounters {
            contiguous: read(&self.contiguous),
            fallbacks: read(&self.fallbacks),
            failed_contiguous: read(&self.failed_contiguous),
            failed_frames: read(&self.failed_frames),
            failed_descriptors: read(&self.failed_descriptors),
            failed_addresses: read(&self.failed_addresses),
            failed_mapping: read(&self.failed_mapping),
            freed: read(&self.freed),
            split: read(&self.split),
            lost: read(&self.lost),
        }
    }
}
