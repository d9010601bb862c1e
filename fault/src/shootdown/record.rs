//! Records for lazy sweeps: what an initiator leaves for others to read at their next tick.
//!
//! | `stamp` of a record | meaning | written by |
//! |---|---|---|
//! | 0 | free | whoever saw that the last bit had gone |
//! | `u64::MAX` | being written | an initiator that claimed it |
//! | other | the `stamp`-th request: live while `left` has bits | the initiator |
//!
//! ```text
//!   initiator:  claim --> pages, left = targets --> stamp ........................ left empty? --> free
//!   each CPU:                       at its tick: stamp? my bit? --> flush --> clear my bit
//! ```
//!
//! A CPU that never ticks never clears its bit, and the record never ends. That is right: nothing else
//! proves that the CPU has flushed, least of all time.

use alloc::boxed::Box;

use super::cpu_set::{AtomicCpuSet, CpuId, CpuSet};
use super::flush::Flush;
use crate::sync::atomic::{AtomicU64, Ordering};

const WRITING: u64 = u64::MAX;

#[derive(Debug)]
struct Record {
    stamp: AtomicU64,
    flush: [AtomicU64; 4],
    left: AtomicCpuSet,
}

/// Which record an initiator waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RecordId {
    index: usize,
    stamp: u64,
}

/// The records of one machine.
#[derive(Debug)]
pub(crate) struct Records {
    records: Box<[Record]>,
    last: AtomicU64,
}

impl Records {
    pub(crate) fn new(cpus: u16, count: usize) -> Self {
        Records {
            records: (0..count)
                .map(|_| Record {
                    stamp: AtomicU64::new(0),
                    flush: core::array::from_fn(|_| AtomicU64::new(0)),
                    left: AtomicCpuSet::new(cpus),
                })
                .collect(),
            last: AtomicU64::new(0),
        }
    }

    /// Leaves a record for `targets`; `None` if there is no room.
    pub(crate) fn leave(&self, flush: &Flush, targets: &CpuSet) -> Option<RecordId> {
        let index = self.records.iter().position(|record| {
            // Acquire pairs with the Release in `is_done` and in `sweep`: the record before is over.
            let stamp = record.stamp.load(Ordering::Acquire);
            // One that nobody has asked about may be over as well.
            let over = stamp == 0 || stamp != WRITING && record.left.snapshot().is_empty();
            over && record
                .stamp
                .compare_exchange(stamp, WRITING, Ordering::Acquire, Ordering::Relaxed)
                .is_ok()
        })?;
        let record = &self.records[index];
        for (word, value) in record.flush.iter().zip(flush.encode()) {
            word.store(value, Ordering::Relaxed);
        }
        for cpu in targets.iter() {
            record.left.insert(cpu);
        }
        let stamp = self.last.fetch_add(1, Ordering::Relaxed) + 1;
        // Release pairs with the Acquire in `sweep`.
        record.stamp.store(stamp, Ordering::Release);
        Some(RecordId { index, stamp })
    }

    /// On `cpu`: executes what was left for it. How many records it looked at, and executed.
    pub(crate) fn sweep(&self, cpu: CpuId, mut flush: impl FnMut(Flush)) -> (u32, u32) {
        let (mut seen, mut executed) = (0, 0);
        for record in &self.records {
            // Acquire pairs with the Release in `leave`.
            let stamp = record.stamp.load(Ordering::Acquire);
            if stamp == 0 || stamp == WRITING {
                continue;
            }
            seen += 1;
            if record.left.contains(cpu) {
                flush(Flush::decode(
                    record
                        .flush
                        .each_ref()
                        .map(|word| word.load(Ordering::Relaxed)),
                ));
                // Release (in `remove`) pairs with the Acquire in `is_done`: the flush has happened.
                record.left.remove(cpu);
                executed += 1;
            }
        }
        (seen, executed)
    }

    /// Whether every CPU has swept it; then the record is free for the next.
    pub(crate) fn is_done(&self, id: RecordId) -> bool {
        let record = &self.records[id.index];
        if record.stamp.load(Ordering::Acquire) != id.stamp {
            return true;
        }
        if !record.left.snapshot().is_empty() {
            return false;
        }
        // Release pairs with the Acquire in `leave`. Fails if somebody else has seen it as well.
        let _ = record
            .stamp
            .compare_exchange(id.stamp, 0, Ordering::AcqRel, Ordering::Relaxed);
        true
    }

    /// `cpu` flushes everything before its next translation, or is gone: nobody waits for it.
    pub(crate) fn excuse(&self, id: RecordId, cpu: CpuId) {
        let record = &self.records[id.index];
        if record.stamp.load(Ordering::Acquire) == id.stamp {
            record.left.remove(cpu);
        }
    }
}
