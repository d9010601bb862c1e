//! Who has descriptors, and how a reference to one is kept beside a mapping.

use alloc::sync::Arc;

use pageless_fault::{MaySleep, Window};
use pageless_memmap::{GetError, Memmap, Pinned};
use pageless_pfn::{PagedPfn, Pfn};

/// Why a frame could not be referenced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReferenceError {
    /// The frame is said to have a descriptor, but nobody has it.
    #[error("no memmap describes pfn {pfn}")]
    NotAttached {
        /// The frame.
        pfn: Pfn,
    },
    /// The memmap that has it gives no reference.
    #[error(transparent)]
    Get(#[from] GetError),
}

/// Whoever has the descriptors of frames.
///
/// What a reference keeps is its giver's to say. One of a memmap keeps the descriptor, and so a frame whose owner frees it by that count, as
/// a device does. Frames of an allocator are freed by the count of their block: for those there is
/// [`Arc<Pages>`](crate::compound::Pages), whose references keep the block.
pub trait Descriptors: Send + Sync {
    /// One reference. Dropping it gives it back.
    type Reference: Send + 'static;

    /// Takes a reference to the descriptor of `pfn`. May fault, and so may sleep.
    ///
    /// # Errors
    ///
    /// See [`ReferenceError`].
    fn reference(&self, ctx: &MaySleep, pfn: PagedPfn) -> Result<Self::Reference, ReferenceError>;
}

/// Nobody: only frames without descriptors can be mapped.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoDescriptors;

impl Descriptors for NoDescriptors {
    type Reference = core::convert::Infallible;

    fn reference(&self, _: &MaySleep, pfn: PagedPfn) -> Result<Self::Reference, ReferenceError> {
        Err(ReferenceError::NotAttached { pfn: pfn.pfn() })
    }
}

impl<D: Descriptors> Descriptors for &D {
    type Reference = D::Reference;

    fn reference(&self, ctx: &MaySleep, pfn: PagedPfn) -> Result<Self::Reference, ReferenceError> {
        (**self).reference(ctx, pfn)
    }
}

/// All devices of a system.
#[cfg(feature = "std")]
impl<W: Window + 'static> Descriptors for Arc<pageless_memmap::Regions<W>>
where
    Memmap<W>: Send + Sync,
{
    type Reference = pageless_memmap::RegionPage<W>;

    fn reference(&self, ctx: &MaySleep, pfn: PagedPfn) -> Result<Self::Reference, ReferenceError> {
        use pageless_memmap::RegionGetError;
        self.get(ctx, pfn).map_err(|error| match error {
            RegionGetError::NotAttached { pfn } => ReferenceError::NotAttached { pfn },
            RegionGetError::Get(error) => ReferenceError::Get(error),
        })
    }
}

/// One device.
impl<W: Window + 'static> Descriptors for Arc<Memmap<W>>
where
    Memmap<W>: Send + Sync,
{
    type Reference = KeptPage<W>;

    fn reference(&self, ctx: &MaySleep, pfn: PagedPfn) -> Result<Self::Reference, ReferenceError> {
        let pinned = self.get(ctx, pfn)?.into_pinned();
        Ok(KeptPage {
            memmap: Arc::clone(self),
            pinned: Some(pinned),
        })
    }
}

/// A reference that also keeps the memmap it is in.
#[derive(Debug)]
pub struct KeptPage<W: Window> {
    memmap: Arc<Memmap<W>>,
    /// `None` only while it is dropped.
    pinned: Option<Pinned>,
}

impl<W: Window> Drop for KeptPage<W> {
    fn drop(&mut self) {
        if let Some(pinned) = self.pinned.take() {
            self.memmap.unpin(pinned);
        }
    }
}
