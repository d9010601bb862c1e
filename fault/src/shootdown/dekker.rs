//! The two fences of a target set.
//!
//! Whoever takes a translation away and whoever may begin to use it look at each other:
//!
//! ```text
//!   initiator                             activator (the CPU that may use it)
//!   ---------                             -----------------------------------
//!   clear the entry, bump the generation  publish "I count" (set bit, state word)
//!   fence(SeqCst)  [initiator_fence]      fence(SeqCst)  [activator_fence]
//!   read who counts                       read the entry, read the generation
//! ```
//!
//! Of the two fences one comes first in the single order of all `SeqCst` fences, and what stands
//! before it is seen by what stands behind the other: the initiator sees that the CPU counts, or
//! the CPU sees that the entry is gone. Without either fence both can look before the other's store
//! arrives, and a CPU with a translation is never told. Acquire and Release do not help here: they
//! order a load before what follows and a store behind what precedes, never a store before a load.
//!
//! On x86-64 every locked instruction is such a fence as well, so there a missing one shows only where
//! the publication is a plain store. The loom models see either.
#![forbid(unsafe_code)]

use crate::mutant::Mutant;
use crate::sync::atomic::{Ordering, fence};

/// Behind clearing, before reading who counts. Pairs with [`activator_fence`].
#[inline]
pub(super) fn initiator_fence() {
    if !Mutant::InitiatorFenceDropped.active() {
        fence(Ordering::SeqCst);
    }
}

/// Behind publishing that one counts, before reading what was cleared. Pairs with
/// [`initiator_fence`].
#[inline]
pub(super) fn activator_fence() {
    if !Mutant::ActivatorFenceDropped.active() {
        fence(Ordering::SeqCst);
    }
}
