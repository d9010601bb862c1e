//! Plain arithmetic into one mapping: the eager array, and the flat mapping that is zeroed lazily.

use super::{
    mapping::{Mapping, PAGE, Pages},
    peer::{Line, Peer, Worker},
};
use core::arch::asm;

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
    fn populated(pfns: u64, pages: Pages) -> Self {
        let flat = Self::new(pfns, pages);
        for pfn in (0..pfns).step_by(PAGE / size_of::<Line>()) {
            flat.get_put(pfn);
        }
        flat
    }

    #[inline]
    fn at(&self, pfn: u64) -> *mut Line {
        self.memory
            .start()
            .cast::<Line>()
            .wrapping_add(pfn as usize)
    }

    /// As indexing an array of descriptors does it: a pfn that is not covered is found out.
    #[inline]
    fn get_put(&self, pfn: u64) {
        assert!(pfn < self.pfns, "pfn {pfn} of {}", self.pfns);
        // SAFETY: just checked.
        unsafe { self.get_put_unchecked(pfn) };
    }

    /// The same without looking.
    ///
    /// # Safety
    ///
    /// `pfn` is below `pfns`.
    #[inline]
    unsafe fn get_put_unchecked(&self, pfn: u64) {
        // SAFETY: by the contract it is one of the mapping's lines; fresh zeroes are a valid `Line`,
        // and it is only ever used through shared references.
        let line = unsafe { &*self.at(pfn) };
        line.0.get();
        line.0.put();
    }
}

/// Every descriptor written before the first is asked for, on 4 KiB pages.
pub(crate) struct Eager(Flat);

impl Peer for Eager {
    const NAME: &'static str = "eager array";

    fn sparse(pfns: u64) -> Self {
        Self(Flat::populated(pfns, Pages::Small))
    }

    fn touch(&self, _: impl Iterator<Item = u64>) {}

    fn worker(&self) -> impl Worker {
        |pfn| self.0.get_put(pfn)
    }
}

/// The same, trusting that every pfn is covered.
pub(crate) struct EagerUnchecked(Flat);

impl Peer for EagerUnchecked {
    const NAME: &'static str = "eager array, index unchecked";

    fn sparse(pfns: u64) -> Self {
        Self(Flat::populated(pfns, Pages::Small))
    }

    fn touch(&self, _: impl Iterator<Item = u64>) {}

    fn worker(&self) -> impl Worker {
        // SAFETY: every run is given the number of pfns that its peer was made with.
        |pfn| unsafe { self.0.get_put_unchecked(pfn) }
    }
}

/// The same, announcing the write before the locked instruction: locked instructions wait for each
/// other, prefetches do not.
pub(crate) struct EagerPrefetching(Flat);

impl Peer for EagerPrefetching {
    const NAME: &'static str = "eager array, prefetching";

    fn sparse(pfns: u64) -> Self {
        Self(Flat::populated(pfns, Pages::Small))
    }

    fn touch(&self, _: impl Iterator<Item = u64>) {}

    fn worker(&self) -> impl Worker {
        |pfn| {
            let at = self.0.at(pfn);
            // SAFETY: a prefetch has no effect but on the caches, at any address.
            unsafe {
                asm!("prefetchw [{}]", in(reg) at, options(nostack, preserves_flags, readonly));
            }
            self.0.get_put(pfn);
        }
    }
}

/// The same on 2 MiB pages.
pub(crate) struct EagerHuge(Flat);

impl Peer for EagerHuge {
    const NAME: &'static str = "eager array, 2 MiB pages";

    fn sparse(pfns: u64) -> Self {
        Self(Flat::populated(pfns, Pages::Huge))
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
