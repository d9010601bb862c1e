//! The flush debt: what was unmapped stays owned until no CPU can still use it.

use core::fmt;
use core::mem::ManuallyDrop;

use crate::context::MaySleep;
use crate::machine::{Translations, UnmapError};
use crate::shootdown::Reached;

/// How far a shootdown has come. Each grade implies those before it; only the last one permits
/// reuse of a frame, of a virtual range or of a page-table page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Completion {
    /// Every target has entered its handler (an *early* acknowledgement). It may still hold the
    /// translation.
    Entered,
    /// Every target has executed its invalidation. A walk that began before may still insert.
    Invalidated,
    /// No translation is cached and no walk that could have read the old entry is under way.
    WalkQuiescent,
}

/// A debt to every CPU that may have cached the translations of `owned`.
///
/// There is no way to the owned value but [`settle`](FlushDebt::settle). Dropping a debt is loud at
/// compile time (`must_use`) and safe at run time: the value inside is leaked, never reused.
#[must_use = "unmapped memory may be used again only after the shootdown: settle the debt"]
pub struct FlushDebt<'w, W: Translations, T> {
    window: &'w W,
    ticket: W::Ticket,
    owned: ManuallyDrop<T>,
}

impl<'w, W: Translations, T> FlushDebt<'w, W, T> {
    pub(crate) fn new(window: &'w W, ticket: W::Ticket, owned: T) -> Self {
        FlushDebt {
            window,
            ticket,
            owned: ManuallyDrop::new(owned),
        }
    }

    /// Waits until the shootdown is [`Completion::WalkQuiescent`] and gives the owned value back.
    ///
    /// # Errors
    ///
    /// The machine could not prove it; the debt comes back with everything still inside.
    pub fn settle(self, ctx: &MaySleep) -> Result<Flushed<T>, (Self, UnmapError)> {
        match self.window.wait(&self.ticket, ctx) {
            Ok(Completion::WalkQuiescent) => Ok(Flushed {
                owned: ManuallyDrop::into_inner(self.owned),
            }),
            Ok(grade) => Err((self, UnmapError::NotQuiescent { grade })),
            Err(error) => Err((self, error)),
        }
    }
}

impl<W: Translations, T: fmt::Debug> fmt::Debug for FlushDebt<'_, W, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FlushDebt")
            .field("owned", &*self.owned)
            .finish_non_exhaustive()
    }
}

/// Proof that no CPU can reach `T` through an old translation. Only a settled debt makes one, or a settled
/// [`Owed`](crate::shootdown::Owed).
#[derive(Debug)]
pub struct Flushed<T> {
    owned: T,
}

impl<T> Flushed<T> {
    /// `owned`, if the shootdown that it waited for has `reached` the end; otherwise `owned` comes back.
    pub(crate) fn after(reached: Reached, owned: T) -> Result<Self, T> {
        if reached.grade() == Completion::WalkQuiescent {
            Ok(Flushed { owned })
        } else {
            Err(owned)
        }
    }

    /// Of what one CPU alone could use, after it has flushed that.
    #[cfg_attr(
        any(loom, not(feature = "std")),
        expect(dead_code, reason = "no machine to say so")
    )]
    pub(crate) fn by_its_only_user(owned: T) -> Self {
        Flushed { owned }
    }

    /// The same proof, of what `f` makes of the value.
    pub(crate) fn map<U>(self, f: impl FnOnce(T) -> U) -> Flushed<U> {
        Flushed {
            owned: f(self.owned),
        }
    }

    /// The value, free to be used again.
    pub fn into_inner(self) -> T {
        self.owned
    }
}
