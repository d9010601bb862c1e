//! Faults planted on purpose. A check that has never failed is not a check: each mutant here breaks
//! one step of the path, and a named test must go red on it.
//!
//! Without the feature `mutants` every question is answered `false` at compile time. With it, the
//! environment variable `PAGELESS_MUTANT` names the one that is active.

/// One planted fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mutant {
    /// A write with FUA is carried out as one without.
    FuaAsPlainWrite,
    /// A flush is answered before the data that was completed before it is durable.
    FlushBeforeData,
    /// A write that failed half-way completes without the flush that its first half needs.
    PostflushSkippedOnError,
    /// A tag may name another request while the device still holds the first.
    TagFreedBeforeCompletion,
    /// Bios with different flags end up in one request.
    MergeAcrossFlags,
    /// The pieces of a bio lose its flags.
    SplitLosesFlags,
    /// Who submits looks at the gate without having said, visibly to all, that it is there.
    BarrierDropped,
}

#[cfg(feature = "mutants")]
impl Mutant {
    /// Every mutant.
    const ALL: [Mutant; 7] = [
        Mutant::FuaAsPlainWrite,
        Mutant::FlushBeforeData,
        Mutant::PostflushSkippedOnError,
        Mutant::TagFreedBeforeCompletion,
        Mutant::MergeAcrossFlags,
        Mutant::SplitLosesFlags,
        Mutant::BarrierDropped,
    ];

    /// What `PAGELESS_MUTANT` calls it.
    const fn name(self) -> &'static str {
        match self {
            Mutant::FuaAsPlainWrite => "fua-as-plain-write",
            Mutant::FlushBeforeData => "flush-before-data",
            Mutant::PostflushSkippedOnError => "postflush-skipped-on-error",
            Mutant::TagFreedBeforeCompletion => "tag-freed-before-completion",
            Mutant::MergeAcrossFlags => "merge-across-flags",
            Mutant::SplitLosesFlags => "split-loses-flags",
            Mutant::BarrierDropped => "barrier-dropped",
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
