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
}

impl Mutant {
    /// All of them.
    pub const ALL: [Mutant; 10] = [
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
