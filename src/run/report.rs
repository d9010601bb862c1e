//! What comes out of a run.

use core::time::Duration;

use thiserror::Error;

use super::cpu::CpuUse;
use super::stats::{DirectionStats, Latencies};
use super::way::Way;
use crate::job::verify::Mismatch;
use crate::job::{Direction, PerDirection, shown};

/// One way, from attach to detach.
#[derive(Debug, Clone)]
pub struct WayReport {
    /// Which.
    pub way: Way,
    /// How long attaching the memmap took; zero where there is none.
    pub attach: Duration,
    /// How long it took to take it away again.
    pub detach: Duration,
    /// Sections in the file's order; a section without `group_reporting` has one for each clone.
    pub sections: Vec<SectionReport>,
}

/// One section of a job, run one way.
#[derive(Debug, Clone)]
pub struct SectionReport {
    /// Index of the section in the plan.
    pub section: usize,
    /// Which clone, or `None` where all are merged.
    pub clone: Option<u32>,
    /// fio's group number: counts stonewalls and `new_group`.
    pub group: usize,
    /// Reads, writes, trims.
    pub directions: PerDirection<DirectionStats>,
    /// Flushes.
    pub sync: Latencies,
    /// From the start of the section's threads to their end.
    pub elapsed: Duration,
    /// What the threads have cost.
    pub cpu: CpuUse,
    /// How many requests were submitted with 1, 2, 4, 8, 16, 32, 64 or more in flight.
    pub depths: [u64; 7],
    /// What the memmap did. Sections that run at the same time share one memmap and so these
    /// numbers.
    pub memmap: MemmapReport,
    /// What went wrong, the first few of each thread.
    pub failures: Vec<Failure>,
    /// How many blocks did not verify.
    pub mismatches: u64,
}

/// The books of a memmap over the time of a section.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MemmapReport {
    /// Lookups that found no descriptor in memory.
    pub faults: u64,
    /// The most descriptors took.
    pub descriptor_bytes_peak: u64,
    /// The most page tables took.
    pub page_table_bytes_peak: u64,
    /// What page tables took at the end.
    pub page_table_bytes_end: u64,
    /// The bound; 0 where there is none.
    pub budget_bytes: u64,
    /// Chunks made present.
    pub populated: u64,
    /// Chunks taken away.
    pub reclaimed: u64,
    /// Batches of unmapping, each with one shootdown.
    pub shootdowns: u64,
    /// The most descriptors pinned at a time: the sum of each thread's peak.
    pub pinned_peak: u64,
}

/// Something that went wrong with one request.
#[derive(Debug, Clone, Error)]
#[error("section [{}], {way} way: {kind}", shown(.section))]
pub struct Failure {
    /// The section's name.
    pub section: String,
    /// The way.
    pub way: Way,
    /// What.
    pub kind: FailureKind,
}

/// The ways a request fails.
#[derive(Debug, Clone, Error)]
pub enum FailureKind {
    /// A block does not hold what was written.
    #[error("verify failed in `{}` {mismatch}", shown(.file))]
    Mismatch {
        /// The area's name.
        file: String,
        /// Where and how.
        mismatch: Mismatch,
    },
    /// The device said no.
    #[error("{} of {len} bytes at offset {offset} of `{}`: {error}", .direction.map_or("flush", Direction::name), shown(.file))]
    Device {
        /// The direction, or `None` for a flush.
        direction: Option<Direction>,
        /// The area's name.
        file: String,
        /// Bytes from its beginning.
        offset: u64,
        /// Bytes asked for.
        len: u32,
        /// What the device said.
        error: String,
        /// Its errno.
        errno: i32,
    },
    /// A descriptor could not be pinned.
    #[error("pinning the descriptors of {len} bytes at offset {offset} of `{}`: {error}", shown(.file))]
    Pin {
        /// The area's name.
        file: String,
        /// Bytes from its beginning.
        offset: u64,
        /// Bytes asked for.
        len: u32,
        /// What the memmap said.
        error: String,
    },
}

impl FailureKind {
    /// fio's `error` number: an errno.
    #[must_use]
    pub const fn errno(&self) -> i32 {
        match self {
            // EILSEQ, as fio reports it.
            Self::Mismatch { .. } => 84,
            Self::Device { errno, .. } => *errno,
            // ENOMEM.
            Self::Pin { .. } => 12,
        }
    }
}
