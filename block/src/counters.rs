//! What a context has seen.

use crate::bio;
use crate::op::Op;

/// Counts of one context since it was made. Plain numbers: a context belongs to one thread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueCounters {
    /// Bios taken in.
    pub submitted: u64,
    /// Bios finished, whether reaped or not.
    pub completed: u64,
    /// Of those, how many failed.
    pub failed: u64,
    /// Bios given back at once.
    pub rejected: u64,
    /// Requests beyond the first of each bio, made by splitting.
    pub splits: u64,
    /// Bios that became part of a request that was there.
    pub merges: u64,
    /// Requests the device had no room for when it was asked.
    pub requeues: u64,
    /// Requests taken back from the device because they took too long.
    pub timeouts: u64,
    /// Bytes of reads that succeeded.
    pub bytes_read: u64,
    /// Bytes of writes that succeeded.
    pub bytes_written: u64,
    /// Flushes that succeeded.
    pub flushes: u64,
    /// Bytes of discards that succeeded.
    pub bytes_discarded: u64,
    /// Bytes of write-zeroes that succeeded.
    pub bytes_zeroed: u64,
}

impl QueueCounters {
    /// A bio has finished.
    #[inline]
    pub(crate) fn count(&mut self, bio: &bio::Inner) {
        if bio.result.is_err() {
            self.failed += 1;
        }
        match bio.op {
            Op::Read => self.bytes_read += bio.done,
            Op::Write if bio.len == 0 => self.flushes += u64::from(bio.result.is_ok()),
            Op::Write | Op::ZoneAppend => self.bytes_written += bio.done,
            Op::Discard | Op::SecureErase => self.bytes_discarded += bio.done,
            Op::WriteZeroes => self.bytes_zeroed += bio.done,
            _ => {}
        }
    }
}
