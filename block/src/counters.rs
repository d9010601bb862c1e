//! What a queue has seen.

/// Counts of one queue since it was made. Plain numbers: a queue belongs to one thread.
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
