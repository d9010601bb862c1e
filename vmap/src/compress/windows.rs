//! Where objects that cross a boundary are made visible in one piece, if anywhere.

use core::fmt;
use core::ops::Deref;

use pageless_fault::{MaySleep, Protection, Vspace};

use crate::zsmalloc::{FrameSource, Handle, PairWindows, Zsmalloc};

/// Address space for pair mappings, or none.
pub trait Windows: Send + Sync + fmt::Debug {
    /// Shows `look` an object in one piece, without a copy.
    ///
    /// # Errors
    ///
    /// `look` comes back uncalled: there is no window to be had, or the object cannot be mapped. It can be copied instead.
    fn show<F: FrameSource, R, L: FnOnce(&[u8]) -> R>(
        &self,
        ctx: &MaySleep,
        pool: &Zsmalloc<F>,
        handle: &Handle,
        look: L,
    ) -> Result<R, L>;
}

/// No address space: what crosses is copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct NoWindows;

impl Windows for NoWindows {
    fn show<F: FrameSource, R, L: FnOnce(&[u8]) -> R>(
        &self,
        _: &MaySleep,
        _: &Zsmalloc<F>,
        _: &Handle,
        look: L,
    ) -> Result<R, L> {
        Err(look)
    }
}

impl<P> Windows for PairWindows<P>
where
    P: Deref + Send + Sync + fmt::Debug,
    P::Target: Vspace + Sized,
{
    fn show<F: FrameSource, R, L: FnOnce(&[u8]) -> R>(
        &self,
        ctx: &MaySleep,
        pool: &Zsmalloc<F>,
        handle: &Handle,
        look: L,
    ) -> Result<R, L> {
        let mut look = Some(look);
        let mut seen = None;
        if let Ok(mut window) = self.claim(ctx)
            && let Ok(mapping) = window.map(pool, handle, Protection::Read)
        {
            // What was seen counts, whether or not there was an error behind it.
            let _ = mapping.with(|bytes| seen = look.take().map(|look| look(bytes)));
        }
        match (seen, look) {
            (Some(seen), _) => Ok(seen),
            (None, Some(look)) => Err(look),
            (None, None) => unreachable!("it was called, and answered"),
        }
    }
}
