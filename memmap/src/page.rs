//! References to descriptors.

use core::fmt;
use core::sync::atomic::{AtomicU32, Ordering};

use pageless_fault::{Window, WindowOffset, Word};
use pageless_pfn::Pfn;

use crate::geometry::DESCRIPTOR_BYTES;
use crate::memmap::Memmap;
use crate::refcount;

/// Bytes into the descriptor. The state word comes first; all the rest belongs to whoever holds a
/// reference.
const STATE: u64 = 0;
const OWNER: u64 = 4;
const PRIVATE: u64 = 8;
/// 32-bit words for holders.
const PRIVATE_WORDS: usize = 14;

const _: () = assert!(STATE == 0 && PRIVATE + 4 * PRIVATE_WORDS as u64 == 64);
const _: () = assert!(DESCRIPTOR_BYTES >= 64);

/// Who holds a page: a number that means something to the holder, shown by
/// [`DetachError::Busy`](crate::DetachError::Busy). `0` is nobody in particular.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Owner(pub u32);

/// A reference to the descriptor of one pfn. While it lives, the descriptor's memory stays where it is.
/// Dropping it gives the reference back, with Release.
///
/// What a descriptor remembers ([`owner`](Self::owner), [`private`](Self::private)) lasts only while
/// someone holds a reference: the first holder finds anything there, zero included.
pub struct PageRef<'m, W: Window> {
    memmap: &'m Memmap<W>,
    word: W::Word<'m>,
    index: u64,
}

impl<'m, W: Window> PageRef<'m, W> {
    #[inline]
    pub(crate) fn new(memmap: &'m Memmap<W>, word: W::Word<'m>, index: u64) -> Self {
        PageRef {
            memmap,
            word,
            index,
        }
    }

    /// The pfn described.
    #[must_use]
    pub fn pfn(&self) -> Pfn {
        match self.memmap.geometry.pfn(self.index) {
            Some(pfn) => pfn,
            None => unreachable!("a reference outside the memmap"),
        }
    }

    /// References held now, this one included. Others may come and go meanwhile.
    #[must_use]
    pub fn references(&self) -> u32 {
        refcount::references(self.word)
    }

    /// One more reference to the same descriptor. Never faults and never waits.
    ///
    /// # Errors
    ///
    /// There are [`MAX_REFERENCES`](crate::MAX_REFERENCES) already.
    pub fn try_clone(&self) -> Result<Self, crate::TryGetError> {
        self.memmap.try_get_index(self.index)
    }

    /// Keeps the reference without the borrow, to be given back by [`Memmap::unpin`].
    pub fn into_pinned(self) -> Pinned {
        let pinned = Pinned {
            memmap: self.memmap.id,
            index: self.index,
        };
        core::mem::forget(self);
        pinned
    }

    /// Keeps the reference without the borrow; to be taken up again by [`Memmap::assume_reference`].
    #[cfg(feature = "std")]
    pub(crate) fn leak(self) -> u64 {
        let index = self.index;
        core::mem::forget(self);
        index
    }

    fn field(&self, at: u64) -> W::Word<'m> {
        let offset = WindowOffset::new(self.index * DESCRIPTOR_BYTES + at);
        match self.memmap.window.word(offset) {
            Some(word) => word,
            None => unreachable!("a descriptor outside its window"),
        }
    }

    /// Who was last said to hold it.
    #[must_use]
    pub fn owner(&self) -> Owner {
        Owner(self.field(OWNER).load(Ordering::Relaxed))
    }

    /// Says who holds it.
    pub fn set_owner(&self, owner: Owner) {
        self.field(OWNER).store(owner.0, Ordering::Relaxed);
    }

    /// Word `n` of the 14 that belong to the holders, with Acquire.
    ///
    /// # Panics
    ///
    /// `n` is 14 or more.
    #[must_use]
    pub fn private(&self, n: usize) -> u32 {
        assert!(n < PRIVATE_WORDS, "private word {n} of {PRIVATE_WORDS}");
        // Acquire pairs with the Release in `set_private`.
        self.field(PRIVATE + 4 * n as u64).load(Ordering::Acquire)
    }

    /// Writes word `n` of the 14 that belong to the holders, with Release.
    ///
    /// # Panics
    ///
    /// `n` is 14 or more.
    pub fn set_private(&self, n: usize, value: u32) {
        assert!(n < PRIVATE_WORDS, "private word {n} of {PRIVATE_WORDS}");
        // Release pairs with the Acquire in `private`.
        self.field(PRIVATE + 4 * n as u64)
            .store(value, Ordering::Release);
    }
}

impl<W: Window> PageRef<'_, W> {
    /// Counts word `n` of the 14 that belong to the holders up or down by what `change` answers for the value found, in one step, with
    /// Acquire and Release; or leaves it, if that is `None`.
    ///
    /// # Errors
    ///
    /// The value that `change` would not replace.
    ///
    /// # Panics
    ///
    /// `n` is 14 or more.
    pub fn update_private(
        &self,
        n: usize,
        mut change: impl FnMut(u32) -> Option<u32>,
    ) -> Result<u32, u32> {
        let mut found = self.private(n);
        loop {
            let new = change(found).ok_or(found)?;
            match self
                .field(PRIVATE + 4 * n as u64)
                .compare_exchange(found, new)
            {
                Ok(old) => return Ok(old),
                Err(now) => found = now,
            }
        }
    }
}

impl<W: Window> Drop for PageRef<'_, W> {
    #[inline]
    fn drop(&mut self) {
        self.word.release();
    }
}

impl<W: Window> fmt::Debug for PageRef<'_, W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PageRef")
            .field("pfn", &self.pfn())
            .field("references", &self.references())
            .finish()
    }
}

/// A reference that borrows nothing: what a request in flight keeps. It must go back through
/// [`Memmap::unpin`] (or `EagerMemmap::unpin`, for one taken there); forgotten, it holds its chunk until the memmap is gone.
#[must_use = "a pinned page keeps its chunk in memory until it is given to `Memmap::unpin`"]
#[derive(Debug, PartialEq, Eq)]
pub struct Pinned {
    pub(crate) memmap: MemmapId,
    pub(crate) index: u64,
}

/// Tells the memmaps of a process apart, so that a [`Pinned`] cannot go to the wrong one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MemmapId(u32);

impl MemmapId {
    pub(crate) fn next() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        MemmapId(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// The owner last named in the descriptor with this index, whose chunk is present.
pub(crate) fn owner_at<W: Window>(window: &W, index: u64) -> Owner {
    window
        .word(WindowOffset::new(index * DESCRIPTOR_BYTES + OWNER))
        .map_or(Owner(0), |word| Owner(word.load(Ordering::Relaxed)))
}
