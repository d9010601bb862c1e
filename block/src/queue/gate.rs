//! Stopping a queue: freezing it (nothing gets in) and quiescing it (nothing gets out).

use crate::sync::atomic::{AtomicU32, Ordering};

/// Who keeps a queue from taking bios in or giving requests out.
///
/// The word: bits 0 to 15 count freezes, bits 16 to 31 count quiesces. 0 is an open gate.
///
/// A context that submits takes its tag *and then* looks here; who freezes closes the gate *and then* looks at
/// the tags. Both steps on both sides are sequentially consistent, so at least one of them sees the
/// other: either the submitter turns back, or the freezer waits for its tag. Quiescing is the same with
/// the contexts' `issuing` words in place of the tags.
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
        // SeqCst: pairs with the additions below, see above.
        self.0.load(Ordering::SeqCst) == 0
    }

    /// Whether bios are kept out.
    pub(crate) fn frozen(&self) -> bool {
        !self.0.load(Ordering::SeqCst).is_multiple_of(QUIESCE)
    }

    /// Whether requests are kept in.
    pub(crate) fn quiesced(&self) -> bool {
        self.0.load(Ordering::SeqCst) >= QUIESCE
    }

    pub(crate) fn freeze(&self) {
        // SeqCst: pairs with the loads above.
        self.0.fetch_add(FREEZE, Ordering::SeqCst);
    }

    pub(crate) fn thaw(&self) {
        self.0.fetch_sub(FREEZE, Ordering::SeqCst);
    }

    pub(crate) fn quiesce(&self) {
        // SeqCst: pairs with the loads above.
        self.0.fetch_add(QUIESCE, Ordering::SeqCst);
    }

    pub(crate) fn resume(&self) {
        self.0.fetch_sub(QUIESCE, Ordering::SeqCst);
    }
}
