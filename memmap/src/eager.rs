//! The other way: every descriptor present from the start, as Linux does it. What the lazy memmap is
//! compared with.

use core::fmt;

use pageless_fault::host::{HostTable, HostWindow, HostWord};
use pageless_fault::{ReserveError, Table, Window, Word};
use pageless_pfn::{PagedPfn, PfnRange};

use crate::geometry::{ChunkSize, DESCRIPTOR_BYTES, Geometry};
use crate::memmap::{AttachError, TryGetError};
use crate::page::{MemmapId, Pinned};
use crate::refcount::{self, Got};

/// A fully populated memmap: the same descriptors and the same references, no faults, no budget.
#[derive(Debug)]
pub struct EagerMemmap {
    window: HostWindow,
    geometry: Geometry,
    id: MemmapId,
}

impl EagerMemmap {
    /// Populates descriptors for all of `pfns`: 64 bytes each, on huge pages where the kernel has them.
    /// Takes time and memory in proportion.
    ///
    /// # Errors
    ///
    /// See [`AttachError`].
    pub fn attach(pfns: PfnRange) -> Result<Self, AttachError> {
        if pfns.is_empty() {
            return Err(AttachError::EmptyRange);
        }
        let too_many = AttachError::TooManyFrames {
            frames: pfns.count().get(),
        };
        let geometry = Geometry::new(pfns, ChunkSize::MAX).ok_or(too_many)?;
        let window = HostWindow::reserve_populated(geometry.window)
            .map_err(|error: ReserveError| AttachError::Window(error))?;
        Ok(EagerMemmap {
            window,
            geometry,
            id: MemmapId::next(),
        })
    }

    /// The memmap's lookup, as a value to keep in a loop: as for the lazy one, so that the two are
    /// compared alike.
    #[inline]
    #[must_use]
    pub fn lookup(&self) -> EagerLookup<'_> {
        let pfns = self.geometry.pfns;
        let Some(table) = self.window.table(pfns.count().get()) else {
            unreachable!("descriptors outside their window")
        };
        EagerLookup {
            memmap: self,
            first: pfns.start().get(),
            table,
        }
    }

    /// Takes a reference to the descriptor of `pfn`.
    ///
    /// # Errors
    ///
    /// [`TryGetError::NotCovered`] or [`TryGetError::Overflow`].
    #[inline]
    pub fn get(&self, pfn: PagedPfn) -> Result<EagerPageRef<'_>, TryGetError> {
        self.lookup().get(pfn)
    }

    /// Gives back a reference that [`EagerPageRef::into_pinned`] kept.
    ///
    /// # Panics
    ///
    /// The reference was taken from another memmap.
    #[inline]
    pub fn unpin(&self, pinned: Pinned) {
        assert_eq!(
            pinned.memmap, self.id,
            "a page pinned through another memmap"
        );
        if let Some(word) = self.window.word(self.geometry.offset(pinned.index)) {
            word.release();
        }
    }

    /// Bytes of descriptors, all of them in memory.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.window.reserved_bytes()
    }
}

/// What a lookup in an [`EagerMemmap`] needs, by value.
#[derive(Debug, Clone, Copy)]
pub struct EagerLookup<'m> {
    memmap: &'m EagerMemmap,
    /// The first pfn covered.
    first: u64,
    /// The state words, one for each pfn covered.
    table: HostTable<'m, DESCRIPTOR_BYTES>,
}

impl<'m> EagerLookup<'m> {
    /// [`EagerMemmap::get`].
    ///
    /// # Errors
    ///
    /// As there.
    #[inline]
    pub fn get(&self, pfn: PagedPfn) -> Result<EagerPageRef<'m>, TryGetError> {
        // One comparison for both ends, as in the lazy lookup.
        let index = pfn.pfn().get().wrapping_sub(self.first);
        let Some(word) = self.table.nth(index) else {
            return Err(self.not_covered(pfn));
        };
        match refcount::get(word) {
            Got::Reference => Ok(EagerPageRef {
                word,
                index,
                id: self.memmap.id,
            }),
            Got::Overflow => Err(TryGetError::Overflow { pfn: pfn.pfn() }),
            Got::Frozen | Got::Fault(_) => Err(TryGetError::Foreign),
        }
    }

    #[cold]
    fn not_covered(&self, pfn: PagedPfn) -> TryGetError {
        let pfns = self.memmap.geometry.pfns;
        TryGetError::NotCovered {
            pfn: pfn.pfn(),
            first: pfns.start(),
            count: pfns.count().get(),
        }
    }
}

/// A reference to a descriptor of an [`EagerMemmap`]. Dropping it gives it back.
pub struct EagerPageRef<'m> {
    word: HostWord<'m>,
    index: u64,
    id: MemmapId,
}

impl EagerPageRef<'_> {
    /// Keeps the reference without the borrow, to be given back by [`EagerMemmap::unpin`].
    pub fn into_pinned(self) -> Pinned {
        let pinned = Pinned {
            memmap: self.id,
            index: self.index,
        };
        core::mem::forget(self);
        pinned
    }

    /// References held now.
    #[must_use]
    pub fn references(&self) -> u32 {
        refcount::references(self.word)
    }
}

impl Drop for EagerPageRef<'_> {
    #[inline]
    fn drop(&mut self) {
        self.word.release();
    }
}

impl fmt::Debug for EagerPageRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EagerPageRef")
            .field("index", &self.index)
            .field("references", &self.references())
            .finish()
    }
}
