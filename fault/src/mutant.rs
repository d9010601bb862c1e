//! Faults planted on purpose. A check that has never failed is not a check: each mutant here breaks
//! one step of the protocol, and a named test must go red on it.
//!
//! Without the feature `mutants` every question is answered `false` at compile time. With it, the
//! environment variable `PAGELESS_MUTANT` names the one that is active.

/// One planted fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Mutant {
    /// `get` takes a reference without looking whether the descriptor is frozen.
    GetIgnoresFrozen,
    /// A freeze that fails half-way leaves the first half frozen.
    FreezeWithoutThaw,
    /// A chunk counts as gone, and its place may be filled again, before its flush.
    FreedBeforeFlush,
    /// A touch renews a chunk: least recently *used* instead of least recently allocated.
    LruInsteadOfLra,
    /// A fault on a chunk that is being filled fills it as well.
    SecondFiller,
    /// A chunk is reclaimed although one of its descriptors is referenced.
    ReclaimPinned,
    /// The leaf table of an empty group is not given back.
    LeafTableKept,
    /// A group whose table is going away accepts a fill meanwhile.
    FillInClosingGroup,
    /// A forked child does not notice that it is one.
    ForkUnnoticed,
    /// A foreign fault is swallowed instead of handed over.
    ForeignFaultSwallowed,
    /// A shootdown flushes the CPU that asked for it and no other.
    NoRemoteFlush,
    /// A shootdown flushes every CPU but the one that asked for it.
    NoLocalFlush,
    /// The set of CPUs to shoot at is read before the entry is cleared.
    TargetsBeforeClear,
    /// No fence between clearing an entry and reading the target set.
    InitiatorFenceDropped,
    /// No fence between entering the target set and the first walk.
    ActivatorFenceDropped,
    /// A target acknowledges a request and executes it afterwards.
    AckBeforeInvalidate,
    /// A frame is used again when every target has entered its handler.
    ReuseOnEarlyAck,
    /// An acknowledgement of an earlier round in the same slot is taken for one's own.
    AckOfAnotherRequest,
    /// A request that finds its mailbox full is forgotten.
    OverflowDropped,
    /// A skipped idle CPU wakes without looking what it missed.
    IdleSkippedUnchecked,
    /// A CPU in the middle of an address-space switch is skipped as if it had not begun (CVE-2025-37964).
    SwitchingCpuSkipped,
    /// A CPU leaves a window's target set before it has flushed.
    ResidencyClearedEarly,
    /// An entry is cleared by a load and a store: what the walker writes in between is lost.
    EntryStored,
    /// A page-table page is freed without a full flush of every CPU.
    TableFreedUnflushed,
    /// A fault between clearing and flushing installs the old frame again.
    OldFrameReinstalled,
    /// A chunk filled again keeps its old generation.
    GenerationKept,
    /// A walk that a flush has overtaken still fills the TLB.
    FillNotRevalidated,
    /// A virtual range is given out again before it is flushed.
    RangeReusedUnflushed,
    /// `get` reads the count and stores it incremented.
    PlainStoreGet,
    /// The TLB caches that there is no translation.
    NotPresentCached,
    /// Whoever waits for a shootdown does not serve its own mailbox.
    WaitsUninterruptible,
    /// A target that does not answer for long is taken to have flushed.
    LostInterruptAssumedDone,
}

impl Mutant {
    /// All of them.
    pub const ALL: [Mutant; 32] = [
        Mutant::GetIgnoresFrozen,
        Mutant::FreezeWithoutThaw,
        Mutant::FreedBeforeFlush,
        Mutant::LruInsteadOfLra,
        Mutant::SecondFiller,
        Mutant::ReclaimPinned,
        Mutant::LeafTableKept,
        Mutant::FillInClosingGroup,
        Mutant::ForkUnnoticed,
        Mutant::ForeignFaultSwallowed,
        Mutant::NoRemoteFlush,
        Mutant::NoLocalFlush,
        Mutant::TargetsBeforeClear,
        Mutant::InitiatorFenceDropped,
        Mutant::ActivatorFenceDropped,
        Mutant::AckBeforeInvalidate,
        Mutant::ReuseOnEarlyAck,
        Mutant::AckOfAnotherRequest,
        Mutant::OverflowDropped,
        Mutant::IdleSkippedUnchecked,
        Mutant::SwitchingCpuSkipped,
        Mutant::ResidencyClearedEarly,
        Mutant::EntryStored,
        Mutant::TableFreedUnflushed,
        Mutant::OldFrameReinstalled,
        Mutant::GenerationKept,
        Mutant::FillNotRevalidated,
        Mutant::RangeReusedUnflushed,
        Mutant::PlainStoreGet,
        Mutant::NotPresentCached,
        Mutant::WaitsUninterruptible,
        Mutant::LostInterruptAssumedDone,
    ];

    /// The name that the environment variable takes.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Mutant::GetIgnoresFrozen => "get-ignores-frozen",
            Mutant::FreezeWithoutThaw => "freeze-without-thaw",
            Mutant::FreedBeforeFlush => "freed-before-flush",
            Mutant::LruInsteadOfLra => "lru-instead-of-lra",
            Mutant::SecondFiller => "second-filler",
            Mutant::ReclaimPinned => "reclaim-pinned",
            Mutant::LeafTableKept => "leaf-table-kept",
            Mutant::FillInClosingGroup => "fill-in-closing-group",
            Mutant::ForkUnnoticed => "fork-unnoticed",
            Mutant::ForeignFaultSwallowed => "foreign-fault-swallowed",
            Mutant::NoRemoteFlush => "no-remote-flush",
            Mutant::NoLocalFlush => "no-local-flush",
            Mutant::TargetsBeforeClear => "targets-before-clear",
            Mutant::InitiatorFenceDropped => "initiator-fence-dropped",
            Mutant::ActivatorFenceDropped => "activator-fence-dropped",
            Mutant::AckBeforeInvalidate => "ack-before-invalidate",
            Mutant::ReuseOnEarlyAck => "reuse-on-early-ack",
            Mutant::AckOfAnotherRequest => "ack-of-another-request",
            Mutant::OverflowDropped => "overflow-dropped",
            Mutant::IdleSkippedUnchecked => "idle-skipped-unchecked",
            Mutant::SwitchingCpuSkipped => "switching-cpu-skipped",
            Mutant::ResidencyClearedEarly => "residency-cleared-early",
            Mutant::EntryStored => "entry-stored",
            Mutant::TableFreedUnflushed => "table-freed-unflushed",
            Mutant::OldFrameReinstalled => "old-frame-reinstalled",
            Mutant::GenerationKept => "generation-kept",
            Mutant::FillNotRevalidated => "fill-not-revalidated",
            Mutant::RangeReusedUnflushed => "range-reused-unflushed",
            Mutant::PlainStoreGet => "plain-store-get",
            Mutant::NotPresentCached => "not-present-cached",
            Mutant::WaitsUninterruptible => "waits-uninterruptible",
            Mutant::LostInterruptAssumedDone => "lost-interrupt-assumed-done",
        }
    }

    /// Whether this fault is planted in this run.
    #[cfg(not(feature = "mutants"))]
    #[inline(always)]
    #[must_use]
    pub const fn active(self) -> bool {
        false
    }

    /// Whether this fault is planted in this run.
    #[cfg(feature = "mutants")]
    #[must_use]
    pub fn active(self) -> bool {
        use std::sync::OnceLock;

        static CHOSEN: OnceLock<Option<Mutant>> = OnceLock::new();
        *CHOSEN.get_or_init(|| {
            let name = std::env::var("PAGELESS_MUTANT").ok()?;
            let found = Mutant::ALL.into_iter().find(|m| m.name() == name);
            assert!(found.is_some(), "PAGELESS_MUTANT={name} is not a mutant");
            found
        }) == Some(self)
    }
}
