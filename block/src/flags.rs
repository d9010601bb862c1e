//! How a bio is to be carried out.

use bitflags::bitflags;

bitflags! {
    /// The flags of a bio, at Linux's bits (`REQ_*`, include/linux/blk_types.h): bits 0 to 7 of that
    /// word hold the operation.
    ///
    /// ```
    /// use pageless_block::BioFlags;
    /// let durable = BioFlags::SYNC | BioFlags::FUA;
    /// assert_eq!(durable.bits(), 1 << 11 | 1 << 17);
    /// ```
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
    pub struct BioFlags: u32 {
        /// No retries after an error of the device.
        const FAILFAST_DEV = 1 << 8;
        /// No retries after an error on the way there.
        const FAILFAST_TRANSPORT = 1 << 9;
        /// No retries after an error of the driver.
        const FAILFAST_DRIVER = 1 << 10;
        /// Somebody waits for it.
        const SYNC = 1 << 11;
        /// Metadata of a file system.
        const META = 1 << 12;
        /// Before others, for schedulers that look at it.
        const PRIO = 1 << 13;
        /// Never to be merged with another.
        const NOMERGE = 1 << 14;
        /// More will follow soon: a pause is no sign of idleness.
        const IDLE = 1 << 15;
        /// Carries integrity metadata.
        const INTEGRITY = 1 << 16;
        /// Durable when it completes (forced unit access).
        const FUA = 1 << 17;
        /// What was completed before it is durable before it begins.
        const PREFLUSH = 1 << 18;
        /// Read ahead: may fail at any time.
        const RAHEAD = 1 << 19;
        /// Background work.
        const BACKGROUND = 1 << 20;
        /// Fails with `AGAIN` rather than wait.
        const NOWAIT = 1 << 21;
        /// Its completion is fetched by polling.
        const POLLED = 1 << 22;
        /// From a cache of bios.
        const ALLOC_CACHE = 1 << 23;
        /// Swap.
        const SWAP = 1 << 24;
        /// For drivers.
        const DRV = 1 << 25;
        /// For file systems.
        const FS_PRIVATE = 1 << 26;
        /// As a whole or not at all, also through a loss of power.
        const ATOMIC = 1 << 27;
        /// Zeroes are to be written, not punched.
        const NOUNMAP = 1 << 28;
    }
}

impl BioFlags {
    /// Every failfast flag.
    pub const FAILFAST: Self = Self::FAILFAST_DEV
        .union(Self::FAILFAST_TRANSPORT)
        .union(Self::FAILFAST_DRIVER);

    /// What keeps a request from being merged with others (`REQ_NOMERGE_FLAGS`).
    pub const NEVER_MERGED: Self = Self::NOMERGE.union(Self::PREFLUSH).union(Self::FUA);

    /// What takes a request through the flush sequence, if the device has a volatile cache.
    pub const FLUSHES: Self = Self::PREFLUSH.union(Self::FUA);
}
