//! Records for lazy sweeps: what an initiator leaves for others to read at their next tick.
//!
//! | `stamp` of a record | meaning | written by |
//! |---|---|---|
//! | 0 | free | whoever saw that the last bit had gone |
//! | `u64::MAX` | being written | an initiator that claimed it |
//! | other | the `stamp`-th request: live while `left` has bits | the initiator |
//!
//! A bit of `left` is set by the initiator and cleared by its CPU alone: so the record in which a CPU has found its bit stays
//! the same request until that CPU has flushed.
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
use crate::sync::atomic::{AtomicU64, Ordering, fence};

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
        // Release pairs with the Acquire of `contains` in `sweep`: a CPU that still holds the stamp of the request before may find
        // its bit first, and then reads the pages of this one.
        fence(Ordering::Release);
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

    /// Whether every CPU has swept it, of those that are not `excused`: an excused one flushes everything before its next
    /// translation, or is gone. The record is free for the next when nobody is left at all.
    pub(crate) fn is_done(&self, id: RecordId, excused: impl Fn(CpuId) -> bool) -> bool {
        let record = &self.records[id.index];
        // Acquire pairs with the Release in `leave`.
        if record.stamp.load(Ordering::Acquire) != id.stamp {
            return true;
        }
        let left = record.left.snapshot();
        if !left.is_empty() {
            // Its bit stays until it sweeps: it may be about to, and then would take the bit of a later request for this one's.
            return left.iter().all(excused);
        }
        // Release pairs with the Acquire in `leave`. Fails if somebody else has seen it as well.
        let _ = record
            .stamp
            .compare_exchange(id.stamp, 0, Ordering::AcqRel, Ordering::Relaxed);
        true
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    const SWEEPER: CpuId = CpuId::new(1);

    fn for_sweeper() -> CpuSet {
        CpuSet::from_iter([SWEEPER])
    }

    #[test]
    fn a_record_is_done_when_its_last_cpu_has_swept_it() {
        let records = Records::new(2, 1);
        let flush = Flush::pages(0x1000, 1);
        let id = records.leave(&flush, &for_sweeper()).unwrap();
        assert!(!records.is_done(id, |_| false));
        assert_eq!(records.leave(&flush, &for_sweeper()), None, "no room");
        let mut swept = None;
        assert_eq!(records.sweep(SWEEPER, |flush| swept = Some(flush)), (1, 1));
        assert_eq!(swept, Some(flush));
        assert!(records.is_done(id, |_| false));
        assert!(records.leave(&flush, &for_sweeper()).is_some());
    }

    /// The CPU was seen asleep, and so is not waited for; it wakes and sweeps, and another request comes meanwhile.
    #[test]
    fn a_sweep_that_nobody_waited_for_is_none_of_a_later_record() {
        let records = Records::new(2, 1);
        let first = records.leave(&Flush::pages(0x1000, 1), &for_sweeper());
        let mut later = None;
        records.sweep(SWEEPER, |_| {
            assert!(records.is_done(first.unwrap(), |cpu| cpu == SWEEPER));
            later = records.leave(&Flush::pages(0x2000, 1), &for_sweeper());
        });
        let swept = later.is_some_and(|later| records.is_done(later, |_| false));
        assert!(!swept, "one sweep for two requests");
    }
}
