//! The three ways of running the same job.

use core::fmt;

/// What requests do about the descriptors of the device's frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Way {
    /// Nothing: typed pfns are all that travels.
    Pfn,
    /// Each is pinned from submission to completion, through a memmap that is faulted in.
    Lazy,
    /// The same through a memmap that is there from the start.
    Eager,
}

impl Way {
    /// All three, in the order they run.
    pub const ALL: [Self; 3] = [Self::Pfn, Self::Lazy, Self::Eager];

    /// Its name on the command line and in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pfn => "pfn",
            Self::Lazy => "lazy",
            Self::Eager => "eager",
        }
    }
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Which ways a run takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Ways {
    /// One after the other; a way that cannot be taken is left out with a note.
    #[default]
    All,
    /// This one; if it cannot be taken the run fails.
    Only(Way),
}

impl Ways {
    /// The ways in the order they run.
    pub fn iter(self) -> impl Iterator<Item = Way> {
        Way::ALL.into_iter().filter(move |way| match self {
            Self::All => true,
            Self::Only(only) => only == *way,
        })
    }
}
