//! What a memmap has done and what it holds.

/// A snapshot, consistent in itself: taken under the lock that every change is made under.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Lookups that found no memory and entered the fault path.
    pub faults: u64,
    /// Chunks made present.
    pub chunks_populated: u64,
    /// Chunks unmapped and flushed.
    pub chunks_reclaimed: u64,
    /// Unmap batches, each with one shootdown.
    pub shootdowns: u64,
    /// Chunks that reclaim passed over because a descriptor was referenced.
    pub passed_over: u64,
    /// Waits for somebody else's fill, freeze or flush.
    pub waits: u64,
    /// Reclaim runs made by a caller that needed room.
    pub direct_reclaims: u64,
    /// Reclaim runs made by the background reclaimer.
    pub background_reclaims: u64,
    /// Lookups of an atomic context served from the reserve.
    pub reserve_hits: u64,
    /// Lookups of an atomic context that found the reserve empty.
    pub reserve_misses: u64,
    /// Bytes of chunks that are present or being filled.
    pub live_bytes: u64,
    /// Bytes of chunks that are unmapped but not yet proved flushed.
    pub limbo_bytes: u64,
    /// Bytes of leaf page tables that exist for chunks.
    pub page_table_bytes: u64,
    /// Bytes set aside for atomic contexts: chunks filled beforehand, and a leaf table for each where
    /// tables count.
    pub reserve_bytes: u64,
    /// Bytes of chunks whose flush could not be proved. They stay until the memmap goes.
    pub quarantined_bytes: u64,
    /// The most that `live + limbo + quarantined + reserve` has been since the peaks were last reset.
    pub descriptor_bytes_peak: u64,
    /// The most that `page_table_bytes` has been since the peaks were last reset.
    pub page_table_bytes_peak: u64,
    /// The most that all of it together have been since the peaks were last reset.
    pub used_bytes_peak: u64,
    /// Batches whose flush the machine could not prove; their chunks are never used again.
    pub flush_failures: u64,
}

impl Counters {
    /// What counts against the budget, in bytes.
    #[must_use]
    pub const fn used_bytes(&self) -> u64 {
        self.live_bytes
            + self.limbo_bytes
            + self.quarantined_bytes
            + self.page_table_bytes
            + self.reserve_bytes
    }

    pub(crate) fn raise_peaks(&mut self) {
        let descriptors =
            self.live_bytes + self.limbo_bytes + self.quarantined_bytes + self.reserve_bytes;
        self.descriptor_bytes_peak = self.descriptor_bytes_peak.max(descriptors);
        self.page_table_bytes_peak = self.page_table_bytes_peak.max(self.page_table_bytes);
        self.used_bytes_peak = self.used_bytes_peak.max(self.used_bytes());
    }
}
