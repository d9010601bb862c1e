//! The state word: who refers to a descriptor, and whether anybody still may.
//!
//! | value | meaning |
//! |---|---|
//! | `0` | nobody refers to it |
//! | `1 ..= MAX_REFERENCES` | that many references |
//! | `MAX_REFERENCES + 1 .. FROZEN` | a `get` is about to take its increment back: too many |
//! | `FROZEN` | reclaim owns it; whoever finds this backs off |
//! | `FROZEN + 1 ..` | the same, incremented by `get`s that backed off |
//!
//! `get` increments first and looks afterwards: one instruction, and no value is read that could be
//! stale. An increment that lands on a frozen word is never taken back; it is wiped out with the word,
//! by the thaw or with the memory. So a word that is frozen stays frozen until its owner says
//! otherwise, and a word that is not frozen counts exactly the references.

use core::sync::atomic::Ordering;

use pageless_fault::mutant::Mutant;
use pageless_fault::{FaultReason, Fetched, Word};

/// The most references a descriptor can have. Above it there is room for a quarter of all `u32`
/// values of threads that are about to find that out.
pub const MAX_REFERENCES: u32 = 0x3fff_ffff;

/// The state word of a descriptor that is being reclaimed.
pub const FROZEN: u32 = 0x8000_0000;

const _: () = assert!(MAX_REFERENCES < FROZEN / 2);

/// What a `get` found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Got {
    /// A reference.
    Reference,
    /// No reference: reclaim owns the descriptor.
    Frozen,
    /// No reference: there are [`MAX_REFERENCES`].
    Overflow,
    /// No effect: no memory.
    Fault(FaultReason),
}

/// Increment unless frozen. On x86 the Acquire of the increment pairs with the Release of
/// [`Word::release`] and of [`thaw`].
#[inline(always)]
pub(crate) fn get(word: impl Word) -> Got {
    let found = if Mutant::PlainStoreGet.active() {
        get_by_load_and_store(word)
    } else {
        word.fetch_add(1)
    };
    // One comparison for the common case: an old count, with room for one more.
    if found.raw() < u64::from(MAX_REFERENCES) {
        Got::Reference
    } else {
        get_failed(word, found)
    }
}

/// A mutant's `get`: whatever happens to the word between the two is lost. The load is one that may fault.
#[cold]
fn get_by_load_and_store(word: impl Word) -> Fetched {
    let found = word.fetch_add(0);
    if let Ok(count @ 0..FROZEN) = found.get() {
        word.store(count + 1, Ordering::Relaxed);
    }
    found
}

#[cold]
fn get_failed(word: impl Word, found: Fetched) -> Got {
    match found.get() {
        Err(reason) => Got::Fault(reason),
        Ok(FROZEN..) if Mutant::GetIgnoresFrozen.active() => Got::Reference,
        Ok(FROZEN..) => Got::Frozen,
        Ok(_) => {
            // Our own increment: nobody froze the word meanwhile, since it was not 0.
            word.release();
            Got::Overflow
        }
    }
}

/// Takes an unreferenced descriptor for reclaim. Acquire pairs with [`Word::release`]: everything that
/// the last holder did has happened.
#[inline]
pub(crate) fn freeze(word: impl Word) -> bool {
    word.compare_exchange(0, FROZEN).is_ok()
}

/// Gives a frozen descriptor back, unreferenced. An exchange and not a store: increments of those who
/// came too late are either before it, and gone, or after it, and count. Its Release pairs with the
/// Acquire of [`get`].
#[inline]
pub(crate) fn thaw(word: impl Word) {
    word.exchange(0);
}

/// References held now. A frozen descriptor has none.
pub(crate) fn references(word: impl Word) -> u32 {
    match word.load(Ordering::Relaxed) {
        FROZEN.. => 0,
        count => count,
    }
}

#[cfg(all(test, loom))]
mod loom;
