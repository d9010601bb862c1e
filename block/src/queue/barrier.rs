//! A full barrier of two unequal halves: nearly free for those who submit, dear for those who stop them.
//!
//! Submitting and stopping a queue must not miss each other: a context says "I am in" and then looks at
//! the gate; who stops closes the gate and then looks who is in. Between the two steps each side needs
//! a full barrier. Contexts do this for every bio, stopping is rare: so where the system can run a
//! barrier on every thread of the process at once (Linux's `membarrier`), the stopping side does so, and
//! the contexts need none but the compiler's. Elsewhere both have a sequentially consistent fence.

use crate::mutant::Mutant;
use crate::sync::atomic::{Ordering, fence};

/// Which of the two it is, found out when a queue is made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Barrier {
    /// Whether [`Barrier::heavy`] runs a barrier on every thread, so that [`Barrier::light`] need not.
    uneven: bool,
}

impl Barrier {
    pub(crate) fn new() -> Self {
        Self {
            uneven: system::register(),
        }
    }

    /// The half of those who submit.
    #[inline]
    pub(crate) fn light(self) {
        if Mutant::BarrierDropped.active() {
            return;
        }
        if self.uneven {
            // The processor's half is in `heavy`: wherever it interrupts this thread, what comes before
            // in program order is visible, and what comes after has not been looked at.
            core::sync::atomic::compiler_fence(Ordering::SeqCst);
        } else {
            // SeqCst: pairs with the fence in `heavy`.
            fence(Ordering::SeqCst);
        }
    }

    /// The half of those who stop them.
    pub(crate) fn heavy(self) {
        // SeqCst: pairs with the fence in `light`, where that has one.
        fence(Ordering::SeqCst);
        if self.uneven {
            system::barrier_on_every_thread();
        }
        fence(Ordering::SeqCst);
    }
}

#[cfg(all(feature = "std", target_os = "linux", not(any(miri, loom))))]
mod system {
    use rustix::thread::{MembarrierCommand, MembarrierQuery, membarrier, membarrier_query};

    /// Whether there is such a barrier; from now on for this process.
    pub(super) fn register() -> bool {
        membarrier_query().contains(MembarrierQuery::PRIVATE_EXPEDITED)
            && membarrier(MembarrierCommand::RegisterPrivateExpedited).is_ok()
    }

    pub(super) fn barrier_on_every_thread() {
        // Registered: the kernel names no error for this then.
        if let Err(errno) = membarrier(MembarrierCommand::PrivateExpedited) {
            panic!("membarrier was registered for and failed: {errno}");
        }
    }
}

#[cfg(not(all(feature = "std", target_os = "linux", not(any(miri, loom)))))]
mod system {
    pub(super) fn register() -> bool {
        false
    }

    pub(super) fn barrier_on_every_thread() {}
}
