//! Stopping a queue: freezing it (nothing gets in) and quiescing it (nothing gets out).

use crate::sync::atomic::{AtomicU32, Ordering};

/// Who keeps a queue from taking bios in or giving requests out.
///
/// The word: bits 0 to 15 count freezes, bits 16 to 31 count quiesces. 0 is an open gate.
///
/// A context that submits says so in its [`Presence`](super::context::Presence) *and then* looks here; who
/// freezes closes the gate *and then* looks who is present. Between the two steps both have a half of a
/// [`Barrier`](super::barrier::Barrier), so at least one of them sees the other: either the submitter
/// turns back, or the freezer waits for it. Freezing looks at what is `out`, quiescing at who is `issuing`.
#[derive(Debug)]
pub(crate) struct Gate(AtomicU32);

const FREEZE: u32 = 1;
const QUIESCE: u32 = 1 << 16;

impl Gate {
    pub(crate) fn new() -> Self {
        Self(AtomicU32::new(0))
    }

    /// Whether nobody stops anything.
    #[inline]
    pub(crate) fn is_open(&self) -> bool {
        // Acquire, here and below: pairs with the Release in `thaw` and `resume`. Who is let in again sees what
        // was done while the gate was closed. That a closed gate is not missed is the barrier's work.
        self.0.load(Ordering::Acquire) == 0
    }

    /// Whether bios are kept out.
    pub(crate) fn frozen(&self) -> bool {
        !self.0.load(Ordering::Acquire).is_multiple_of(QUIESCE)
    }

    /// Whether requests are kept in.
    pub(crate) fn quiesced(&self) -> bool {
        self.0.load(Ordering::Acquire) >= QUIESCE
    }

    pub(crate) fn freeze(&self) {
        // Relaxed, as in `quiesce`: a barrier follows.
        self.0.fetch_add(FREEZE, Ordering::Relaxed);
    }

    pub(crate) fn thaw(&self) {
        // Release, as in `resume`: pairs with the loads above.
        self.0.fetch_sub(FREEZE, Ordering::Release);
    }

    pub(crate) fn quiesce(&self) {
        self.0.fetch_add(QUIESCE, Ordering::Relaxed);
    }

    pub(crate) fn resume(&self) {
        self.0.fetch_sub(QUIESCE, Ordering::Release);
    }
}
