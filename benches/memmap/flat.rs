//! Plain arithmetic into one mapping: the eager array, and the flat mapping that is zeroed lazily.

use super::{
    mapping::{Mapping, PAGE, Pages},
    peer::{Line, Peer, Worker},
};

/// One mapping of `pfns` descriptors.
struct Flat {
    memory: Mapping,
    pfns: u64,
}

impl Flat {
    fn new(pfns: u64, pages: Pages) -> Self {
        let bytes = usize::try_from(pfns).unwrap() * size_of::<Line>();
        Self {
            memory: Mapping::new(bytes, pages),
            pfns,
        }
    }

    /// Writes to every page, as an eager memmap would.
    fn populate(&self) {
        for pfn in (0..self.pfns).step_by(PAGE / size_of::<Line>()) {
            self.get_put(pfn);
        }
    }

    #[inline]
    fn get_put(&self, pfn: u64) {
        debug_assert!(pfn < self.pfns);
        let at = self
            .memory
            .start()
            .cast::<Line>()
            .wrapping_add(pfn as usize);
        // SAFETY: the pfns of a run are below `pfns`, so `at` is one of the mapping's lines; fresh
        // zeroes are a valid `Line`, and it is only ever used through shared references.
        let line = unsafe { &*at };
        line.0.get();
        line.0.put();
    }
}

/// Every descriptor written before the first is asked for, on 4 KiB pages.
pub(crate) struct Eager(Flat);

impl Peer for Eager {
    const NAME: &'static str = "eager array";

    fn sparse(pfns: u64) -> Self {
        let flat = Flat::new(pfns, Pages::Small);
        flat.populate();
        Self(flat)
    }

    fn touch(&self, _: impl Iterator<Item = u64>) {}

    fn worker(&self) -> impl Worker {
        |pfn| self.0.get_put(pfn)
    }
}

/// The same on 2 MiB pages.
pub(crate) struct EagerHuge(Flat);

impl Peer for EagerHuge {
    const NAME: &'static str = "eager array, 2 MiB pages";

    fn sparse(pfns: u64) -> Self {
        let flat = Flat::new(pfns, Pages::Huge);
        flat.populate();
        Self(flat)
    }

    fn touch(&self, _: impl Iterator<Item = u64>) {}

    fn worker(&self) -> impl Worker {
        |pfn| self.0.get_put(pfn)
    }
}

/// One mapping that the kernel zeroes page by page as it is touched, and that nobody bounds.
pub(crate) struct Lazy(Flat);

impl Peer for Lazy {
    const NAME: &'static str = "flat lazily zeroed mapping";

    fn sparse(pfns: u64) -> Self {
        Self(Flat::new(pfns, Pages::Small))
    }

    fn touch(&self, pfns: impl Iterator<Item = u64>) {
        pfns.for_each(|pfn| self.0.get_put(pfn));
    }

    fn worker(&self) -> impl Worker {
        |pfn| self.0.get_put(pfn)
    }
}
