//! What an area owns, and when it may have it back.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt;
use core::marker::PhantomData;
use core::mem::ManuallyDrop;

use pageless_fault::MaySleep;

/// Proof that no CPU can reach what it is shown for: every translation has been shot down, or there never was one. Only an
/// [`AreaSpace`](crate::area::AreaSpace) makes one.
#[derive(Debug)]
pub struct Unreachable<'p> {
    _proved: PhantomData<&'p ()>,
}

impl Unreachable<'_> {
    /// By whoever has settled the debt, or has never mapped anything.
    pub(in crate::area) const fn proved() -> Self {
        Unreachable {
            _proved: PhantomData,
        }
    }
}

/// What an area owns while it is mapped, and until its shootdown is proved: references, frames, whatever must outlive the mapping.
///
/// [`release`](Self::release) is called once, by whoever takes the area apart after its shootdown, with no lock held. What could not be
/// proved gone is never released: it leaks.
///
/// ```
/// use pageless_fault::MaySleep;
/// use pageless_vmap::area::{Release, Unreachable};
///
/// struct Frames(Vec<u64>);
/// impl Release for Frames {
///     fn release(self: Box<Self>, _: &Unreachable<'_>, _: &MaySleep) {
///         drop(self.0); // here they go back to their allocator
///     }
/// }
/// ```
pub trait Release: Send {
    /// The end of it. Nobody can reach it through the area's addresses any more.
    fn release(self: Box<Self>, proof: &Unreachable<'_>, ctx: &MaySleep);
}

impl fmt::Debug for dyn Release {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Release").finish_non_exhaustive()
    }
}

/// Nothing is owned.
impl Release for () {
    fn release(self: Box<Self>, _: &Unreachable<'_>, _: &MaySleep) {}
}

/// Dropping each is all there is to do: references give themselves back.
impl<T: Send> Release for Vec<T> {
    fn release(self: Box<Self>, _: &Unreachable<'_>, _: &MaySleep) {}
}

/// What an area owns. Dropped, it leaks: it may still be mapped.
pub(crate) struct Holds(ManuallyDrop<Box<dyn Release>>);

impl Holds {
    pub(crate) fn new(owned: Box<dyn Release>) -> Self {
        Holds(ManuallyDrop::new(owned))
    }

    /// What was handed over.
    pub(crate) fn into_inner(self) -> Box<dyn Release> {
        ManuallyDrop::into_inner(self.0)
    }

    pub(crate) fn release(self, proof: &Unreachable<'_>, ctx: &MaySleep) {
        ManuallyDrop::into_inner(self.0).release(proof, ctx);
    }
}

impl fmt::Debug for Holds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Holds").finish_non_exhaustive()
    }
}
