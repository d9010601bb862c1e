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
        // Relaxed, here and below: the barrier between this and the step before it is what orders them.
        self.0.load(Ordering::Relaxed) == 0
    }

    /// Whether bios are kept out.
    pub(crate) fn frozen(&self) -> bool {
        !self.0.load(Ordering::Relaxed).is_multiple_of(QUIESCE)
    }

    /// Whether requests are kept in.
    pub(crate) fn quiesced(&self) -> bool {
        self.0.load(Ordering::Relaxed) >= QUIESCE
    }

    pub(crate) fn freeze(&self) {
        self.0.fetch_add(FREEZE, Ordering::Relaxed);
    }

    pub(crate) fn thaw(&self) {
        self.0.fetch_sub(FREEZE, Ordering::Relaxed);
    }

    pub(crate) fn quiesce(&self) {
        self.0.fetch_add(QUIESCE, Ordering::Relaxed);
    }

    pub(crate) fn resume(&self) {
        self.0.fetch_sub(QUIESCE, Ordering::Relaxed);
    }
}
