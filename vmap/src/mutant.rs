//! Faults planted on purpose. A check that has never failed is not a check: each mutant here breaks
//! one step, and a named test must go red on it.
//!
//! Without the feature `mutants` every question is answered `false` at compile time. With it, the
//! environment variable `PAGELESS_MUTANT` names the one that is active.

/// One planted fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mutant {
    /// Addresses may be given out again as soon as they are unmapped.
    RangeReusedBeforeFlush,
    /// An area ends where the next one begins.
    GuardPageMissing,
    /// Whoever unmaps never purges, however much waits.
    LazyListOverCap,
    /// A mapped frame that has a descriptor is not referenced.
    ReferenceNotTaken,
    /// The head of a block is taken down before its tails.
    HeadTornDownFirst,
    /// Ending a virtual block shoots its mapping down at once, wherever that is.
    FreeInAtomicShoots,
    /// A window that was one CPU's goes to another with no more than the local flush behind it.
    LocalFlushSharedWindow,
    /// What an area owns is given back as soon as the area is unmapped.
    FrameFreedBeforeFlush,
    /// The end of the purge before is taken for the end of the one that covers a small mapping.
    EarlierPurgeTrusted,
    /// Pages of a block of small mappings are mapped again before they are flushed.
    DirtyPagesReused,
    /// Of unmapped pages of a block of small mappings only the first are flushed.
    DirtyRangeCutShort,
    /// Compaction moves an object that somebody looks at.
    HeldObjectMoved,
    /// Whoever asks for frames gets them, down to the last one.
    WatermarkIgnored,
}

#[cfg(feature = "mutants")]
impl Mutant {
    /// Every mutant.
    const ALL: [Mutant; 13] = [
        Mutant::RangeReusedBeforeFlush,
        Mutant::GuardPageMissing,
        Mutant::LazyListOverCap,
        Mutant::ReferenceNotTaken,
        Mutant::HeadTornDownFirst,
        Mutant::FreeInAtomicShoots,
        Mutant::LocalFlushSharedWindow,
        Mutant::FrameFreedBeforeFlush,
        Mutant::EarlierPurgeTrusted,
        Mutant::DirtyPagesReused,
        Mutant::DirtyRangeCutShort,
        Mutant::HeldObjectMoved,
        Mutant::WatermarkIgnored,
    ];

    /// What `PAGELESS_MUTANT` calls it.
    const fn name(self) -> &'static str {
        match self {
            Mutant::RangeReusedBeforeFlush => "range-reused-before-flush",
            Mutant::GuardPageMissing => "guard-page-missing",
            Mutant::LazyListOverCap => "lazy-list-over-cap",
            Mutant::ReferenceNotTaken => "reference-not-taken",
            Mutant::HeadTornDownFirst => "head-torn-down-first",
            Mutant::FreeInAtomicShoots => "free-in-atomic-shoots",
            Mutant::LocalFlushSharedWindow => "local-flush-shared-window",
            Mutant::FrameFreedBeforeFlush => "frame-freed-before-flush",
            Mutant::EarlierPurgeTrusted => "earlier-purge-trusted",
            Mutant::DirtyPagesReused => "dirty-pages-reused",
            Mutant::DirtyRangeCutShort => "dirty-range-cut-short",
            Mutant::HeldObjectMoved => "held-object-moved",
            Mutant::WatermarkIgnored => "watermark-ignored",
        }
    }

    /// Whether this is the one that was planted.
    ///
    /// # Panics
    /// If `PAGELESS_MUTANT` names none of them: a typo must not pass for a mutant that survived.
    pub(crate) fn active(self) -> bool {
        use std::sync::OnceLock;
        static PLANTED: OnceLock<Option<Mutant>> = OnceLock::new();
        let planted = PLANTED.get_or_init(|| {
            let name = std::env::var("PAGELESS_MUTANT").ok()?;
            match Self::ALL.into_iter().find(|mutant| mutant.name() == name) {
                Some(mutant) => Some(mutant),
                None => panic!("PAGELESS_MUTANT={name} is not a mutant of this crate"),
            }
        });
        *planted == Some(self)
    }
}

#[cfg(not(feature = "mutants"))]
impl Mutant {
    /// Never, in a build without planted faults.
    #[inline(always)]
    pub(crate) const fn active(self) -> bool {
        false
    }
}
