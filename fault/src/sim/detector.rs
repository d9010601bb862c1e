//! The detector: what no correct protocol ever lets happen, counted, with who and where.
#![forbid(unsafe_code)]

use alloc::vec::Vec;
use core::fmt;

use pageless_pfn::Pfn;

use super::memory::FrameTag;
use crate::shootdown::CpuId;
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicU64, Ordering};

/// Incidents kept in full; the rest are counted.
const KEPT: usize = 8;

/// Something that must never happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Incident {
    /// An access through a translation that was made before its frame was last freed.
    StaleHit {
        /// Who.
        cpu: CpuId,
        /// Where.
        va: u64,
        /// The frame accessed.
        pfn: Pfn,
        /// Its tag when the translation was made.
        made: FrameTag,
        /// Its tag now.
        now: FrameTag,
        /// When, on the modelled clock of the CPU, in nanoseconds; 0 without a scheduler.
        at: u64,
    },
    /// A walk through a page table that had been freed.
    StaleWalk {
        /// Who.
        cpu: CpuId,
        /// The address walked for.
        va: u64,
        /// The frame that had been the table.
        table: Pfn,
        /// When, on the modelled clock of the CPU, in nanoseconds; 0 without a scheduler.
        at: u64,
    },
}

impl fmt::Display for Incident {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Incident::StaleHit {
                cpu,
                va,
                pfn,
                made,
                now,
                at,
            } => write!(
                f,
                "stale hit: {cpu} at {va:#x} reached frame {pfn} of life {} through a translation made in life {} \
                 ({at} ns, modelled)",
                now.get(),
                made.get(),
            ),
            Incident::StaleWalk { cpu, va, table, at } => write!(
                f,
                "stale walk: {cpu} for {va:#x} went through frame {table}, a table no longer ({at} ns, modelled)",
            ),
        }
    }
}

/// Counts incidents, and keeps the first ones.
#[derive(Debug)]
pub(crate) struct Detector {
    stale_hits: AtomicU64,
    stale_walks: AtomicU64,
    first: Mutex<Vec<Incident>>,
}

impl Detector {
    pub(crate) fn new() -> Self {
        Detector {
            stale_hits: AtomicU64::new(0),
            stale_walks: AtomicU64::new(0),
            first: Mutex::new(Vec::new()),
        }
    }

    #[cold]
    pub(crate) fn report(&self, incident: Incident) {
        // Relaxed: counters, read when the CPUs have been joined.
        match incident {
            Incident::StaleHit { .. } => self.stale_hits.fetch_add(1, Ordering::Relaxed),
            Incident::StaleWalk { .. } => self.stale_walks.fetch_add(1, Ordering::Relaxed),
        };
        let mut first = self.first.lock();
        if first.len() < KEPT {
            first.push(incident);
        }
    }

    pub(crate) fn stale_hits(&self) -> u64 {
        self.stale_hits.load(Ordering::Relaxed)
    }

    pub(crate) fn stale_walks(&self) -> u64 {
        self.stale_walks.load(Ordering::Relaxed)
    }

    pub(crate) fn first(&self) -> Vec<Incident> {
        self.first.lock().clone()
    }
}
