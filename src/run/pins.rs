//! What the engine asks of a memmap: pin the frames of a request, and give them back.

use core::fmt;

use pageless_pfn::PfnRange;
use thiserror::Error;

/// Something that pins the descriptors of device frames while a request is in flight.
///
/// The engine calls [`pin`](Self::pin) before it submits and [`unpin`](Self::unpin) after the
/// request has come back, both on the thread that owns the queue.
pub trait DescriptorPins: Sync {
    /// What a request in flight keeps. Made once for each place in a queue and used again, so
    /// that pinning allocates nothing in the long run.
    type Held: Default + Send + fmt::Debug;

    /// What a thread needs to pin, made at its top.
    type Context: fmt::Debug;

    /// Whether pins are taken at all.
    const PINS: bool;

    /// Called by each thread before its first pin.
    fn enter(&self) -> Self::Context;

    /// Pins every frame of `frames`, one by one. Either all or none are pinned afterwards.
    ///
    /// # Errors
    /// [`PinError`]; `held` is empty then.
    fn pin(
        &self,
        context: &Self::Context,
        frames: PfnRange,
        held: &mut Self::Held,
    ) -> Result<(), PinError>;

    /// Gives back all that is held.
    fn unpin(&self, held: &mut Self::Held);

    /// What the memmap has done so far and holds now.
    fn counters(&self) -> MemmapCounters;

    /// Makes the peaks begin anew.
    fn begin_section(&self);
}

/// Why frames were not pinned.
#[derive(Debug, Error)]
pub enum PinError {
    /// The budget is pinned to the last byte: it works again once requests have come back.
    #[error("{0}")]
    Full(String),
    /// It will not work later either.
    #[error("{0}")]
    Broken(String),
}

/// A snapshot of a memmap's books. All bytes are bytes of memory really held.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MemmapCounters {
    /// Lookups that found no descriptor in memory.
    pub faults: u64,
    /// The most descriptors took since the last section began.
    pub descriptor_bytes_peak: u64,
    /// The most page tables took since then.
    pub page_table_bytes_peak: u64,
    /// What page tables take now.
    pub page_table_bytes: u64,
    /// The bound on all of it; 0 where there is none.
    pub budget_bytes: u64,
    /// Chunks of descriptors made present.
    pub populated: u64,
    /// Chunks taken away again.
    pub reclaimed: u64,
    /// Batches of unmapping, each with one shootdown.
    pub shootdowns: u64,
}

/// The way without descriptors: nothing is pinned, and every counter is 0.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoPins;

impl DescriptorPins for NoPins {
    type Held = ();
    type Context = ();

    const PINS: bool = false;

    fn enter(&self) {}

    #[inline(always)]
    fn pin(&self, (): &(), _frames: PfnRange, (): &mut ()) -> Result<(), PinError> {
        Ok(())
    }

    #[inline(always)]
    fn unpin(&self, (): &mut ()) {}

    fn counters(&self) -> MemmapCounters {
        MemmapCounters::default()
    }

    fn begin_section(&self) {}
}
