//! What has been done so far, and what there is now.

use core::fmt;

use pageless_fault::sync::atomic::{AtomicU64, Ordering};

/// Events, counted where they happen. All `Relaxed`: they are statistics, and order nothing.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) allocated: Count,
    pub(crate) pool_hits: Count,
    pub(crate) refills: Count,
    pub(crate) unmapped: Count,
    pub(crate) deferred: Count,
    pub(crate) not_found: Count,
    pub(crate) failed: Count,
}

/// One event counter.
#[derive(Debug, Default)]
pub(crate) struct Count(AtomicU64);

impl Count {
    pub(crate) fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Events that whoever purges counts.
#[derive(Debug, Default)]
pub(crate) struct PurgeCounts {
    pub(crate) purges: Count,
    pub(crate) areas: Count,
    pub(crate) pages: Count,
    pub(crate) ranges: Count,
    pub(crate) full: Count,
    /// Pages of areas whose owners have been told.
    pub(crate) released: Count,
    pub(crate) quarantined_areas: Count,
    pub(crate) quarantined_pages: Count,
}

/// What has been done so far, and what there is now. Each number is right; together they are of one moment only while
/// nobody else works.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct AreaCounters {
    /// Areas whose addresses were taken so far.
    pub allocated: u64,
    /// Of them, those whose addresses came from a pool: no shared lock was taken.
    pub pool_hits: u64,
    /// How often the shared tree of free addresses was asked.
    pub refills: u64,
    /// Areas unmapped so far.
    pub unmapped: u64,
    /// Unmappings that were put off because a lock was taken and the caller could not wait.
    pub deferred: u64,
    /// Of them, those that turned out to name no area that was in use.
    pub not_found: u64,
    /// Mappings that failed so far, for whatever reason.
    pub failed: u64,
    /// Small mappings made so far.
    pub ram_mapped: u64,
    /// Small mappings taken down so far.
    pub ram_unmapped: u64,
    /// Blocks for small mappings made so far.
    pub ram_blocks: u64,
    /// Pages that wait for a shootdown now, or for the end of one, guard pages included.
    pub lazy_pages: u64,
    /// Areas that have been shot down, and whose addresses and owners are still to get them back: the next calls from the same CPUs see to
    /// it, a purge by name at once.
    pub flushed_areas: u64,
    /// Purges that found something so far: as many shootdowns.
    pub purges: u64,
    /// Areas purged so far.
    pub purged_areas: u64,
    /// Pages purged so far, guard pages not included: those that CPUs had to forget.
    pub purged_pages: u64,
    /// Ranges that the shootdowns were asked for.
    pub purged_ranges: u64,
    /// Purges above the ceiling up to which pages are flushed one by one.
    pub purged_full: u64,
    /// Areas whose shootdown failed: their addresses and what they own are lost.
    pub quarantined_areas: u64,
    /// Pages whose shootdown failed, guard pages included.
    pub quarantined_pages: u64,
}

impl fmt::Display for AreaCounters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} areas allocated ({} from pools, {} refills), {} unmapped, {} purges of {} areas and {} pages in {} ranges \
             ({} full), {} pages lazy, {} areas flushed, {} pages quarantined",
            self.allocated,
            self.pool_hits,
            self.refills,
            self.unmapped,
            self.purges,
            self.purged_areas,
            self.purged_pages,
            self.purged_ranges,
            self.purged_full,
            self.lazy_pages,
            self.flushed_areas,
            self.quarantined_pages,
        )
    }
}
