//! Where we decide otherwise than Linux 6.12, and why.

/// A deliberate difference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Deviation {
    NothingToDo,
    ReadOnly,
    ZonePastEnd,
    ZonePlace,
    Placeless,
    PolledElsewhere,
    PolledRange,
    NoDescriptors,
    Misaligned,
    AtomicElsewhere,
    AtomicShape,
    AppendEmulation,
    AppendStatus,
    AppendNowait,
    AppendFlags,
    NowaitRange,
    SecureEraseLength,
    PieceFlags,
    FlushFlags,
    SyncFlag,
    TwoFlushes,
}

/// What is to be said about one.
pub(crate) struct Story {
    pub(crate) what: &'static str,
    pub(crate) linux: &'static str,
    pub(crate) here: &'static str,
    pub(crate) why: &'static str,
}

impl Deviation {
    pub(crate) const ALL: [Self; 21] = [
        Self::NothingToDo,
        Self::ReadOnly,
        Self::ZonePastEnd,
        Self::ZonePlace,
        Self::Placeless,
        Self::PolledElsewhere,
        Self::PolledRange,
        Self::NoDescriptors,
        Self::Misaligned,
        Self::AtomicElsewhere,
        Self::AtomicShape,
        Self::AppendEmulation,
        Self::AppendStatus,
        Self::AppendNowait,
        Self::AppendFlags,
        Self::NowaitRange,
        Self::SecureEraseLength,
        Self::PieceFlags,
        Self::FlushFlags,
        Self::SyncFlag,
        Self::TwoFlushes,
    ];

    #[rustfmt::skip]
    pub(crate) const fn story(self) -> Story {
        let (what, linux, here, why) = match self {
            Self::NothingToDo => (
                "a read, write, append, discard, erase or write-zeroes of no bytes, without PREFLUSH",
                "the driver gets a request of no bytes (an empty write with FUA alone: a flush or nothing)",
                "not taken in: `RejectReason::NoBytes`",
                "it is a mistake of the caller, and no driver has to think of it",
            ),
            Self::ReadOnly => (
                "an operation that changes a read-only device",
                "warned about once and carried out (`bio_check_ro`)",
                "`IOERR`, before anything else but NOWAIT and the device's end is looked at; a flush passes",
                "read-only is a promise to whoever set it",
            ),
            Self::ZonePastEnd => (
                "an operation on a zone, or an append without bytes, behind the last zone",
                "left to the driver: a bio without bytes has no end",
                "`IOERR`",
                "no driver has to check what the queue knows",
            ),
            Self::ZonePlace => (
                "an operation on a zone that does not name its first sector",
                "left to the driver",
                "`IOERR`, as for an append there",
                "no driver has to check what the queue knows",
            ),
            Self::Placeless => (
                "a flush or a reset of all zones with a sector that is no multiple of the logical block",
                "`IOERR` (`bio_unaligned`)",
                "carried out: the sector is not looked at",
                "they are about the whole device",
            ),
            Self::PolledElsewhere => (
                "POLLED on a device without polling",
                "`NOTSUPP`",
                "the flag is taken off",
                "how its completion is fetched changes nothing of what the bio does; Linux 6.6 still did so",
            ),
            Self::PolledRange => (
                "POLLED on a discard, erase or write-zeroes that is split",
                "the pieces keep it; those of reads and writes do not",
                "taken off the pieces of everything that is split",
                "one rule",
            ),
            Self::NoDescriptors => (
                "frames without descriptors for a device that insists on them",
                "cannot be said: a bio_vec holds a `struct page *`",
                "`NOTSUPP`",
                "a driver that needs a descriptor must not be given a number for which there is none",
            ),
            Self::Misaligned => (
                "a place or length that is no multiple of the logical block",
                "`IOERR`, after the rules of appends and atomic writes",
                "`INVAL`, before them",
                "says what is wrong; nothing was wrong with the medium",
            ),
            Self::AtomicElsewhere => (
                "ATOMIC on anything but a write",
                "ignored",
                "`INVAL`",
                "a promise that cannot be kept is refused",
            ),
            Self::AtomicShape => (
                "an atomic write that is no power of two long, or not aligned to its length",
                "passes the block layer, where only lengths are looked at; file systems look at the rest",
                "`INVAL`",
                "the rule stands in one place, and there is no file system above that would have looked",
            ),
            Self::AppendEmulation => (
                "an append to a zoned device without appends",
                "a write at the write pointer that Linux itself keeps",
                "`NOTSUPP`",
                "the queue keeps no write pointers: zones belong to their driver",
            ),
            Self::AppendStatus => (
                "an append that is too long",
                "`IOERR`",
                "`INVAL`",
                "says what is wrong",
            ),
            Self::AppendNowait => (
                "an append with NOWAIT in too many segments",
                "`AGAIN`",
                "`INVAL`, as without NOWAIT",
                "trying again would not help",
            ),
            Self::AppendFlags => (
                "an append",
                "gets NOMERGE",
                "its flags stay; appends are never merged in any case",
                "a driver sees the flags the caller set",
            ),
            Self::NowaitRange => (
                "NOWAIT on a discard, erase or write-zeroes that needs several requests",
                "split",
                "`AGAIN`, as for reads and writes",
                "the second piece may have to wait for a tag as theirs may",
            ),
            Self::SecureEraseLength => (
                "a secure erase longer than the device takes, if it has no discards",
                "one request: the limit of discards is looked at",
                "split at `max_secure_erase`",
                "a driver gets nothing beyond its limits",
            ),
            Self::PieceFlags => (
                "all pieces of a bio but the last",
                "get NOMERGE",
                "have the bio's flags",
                "a merge has to fit the limits at which they were cut, so none undoes the split",
            ),
            Self::FlushFlags => (
                "the flush that a queue sends",
                "has PREFLUSH, and FAILFAST and DRV of the first request it is for",
                "has no flags",
                "it is for many requests, and a driver never sees PREFLUSH",
            ),
            Self::SyncFlag => (
                "a request that had PREFLUSH or FUA, on a device with a cache",
                "gets SYNC, to keep the books of reads and writes apart",
                "its flags stay",
                "a driver sees the flags the caller set",
            ),
            Self::TwoFlushes => (
                "no bytes with PREFLUSH and FUA, on a device with a cache and without FUA",
                "two flushes, one after the other",
                "one",
                "there is nothing between them that the second would make durable",
            ),
        };
        Story { what, linux, here, why }
    }
}
