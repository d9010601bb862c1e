//! A shootdown under way: what was asked of whom, and what it owes.
//!
//! [`Pending`] is the bare shootdown. [`Owed`] is one that keeps under lock what depends on it, under a policy known by type.
#![forbid(unsafe_code)]

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt;
use core::marker::PhantomData;
use core::mem::ManuallyDrop;

use super::cpu_set::CpuId;
use super::engine::{Place, Shootdown};
use super::flush::Flush;
use super::mailbox::Receipt;
use super::policy::{Policy, PolicyKind, Until};
use super::processor::Processor;
use super::proof::Proof;
use super::record::RecordId;
use super::ticket::Ticket;
use crate::debt::{Completion, Flushed};

/// A shootdown under way.
#[derive(Debug)]
#[must_use = "a shootdown that nobody waits for proves nothing"]
pub struct Pending {
    pub(super) kind: PolicyKind,
    pub(super) until: Until,
    /// The window, for asking again who can have entries of it.
    pub(super) window: Option<u16>,
    pub(super) by: CpuId,
    pub(super) receipts: Vec<(CpuId, Receipt)>,
    pub(super) over_fabric: bool,
    pub(super) ticket: Option<Ticket>,
    /// Whether the ticket is one of those that are put off.
    pub(super) deferred: bool,
    /// The record left.
    pub(super) record: Option<RecordId>,
    pub(super) ticks_then: u64,
}

impl Pending {
    /// The policy that it runs under.
    #[must_use]
    pub fn kind(&self) -> PolicyKind {
        self.kind
    }

    /// Whether it is put off until somebody purges.
    #[must_use]
    pub fn is_deferred(&self) -> bool {
        self.deferred
    }
}

/// A shootdown under policy `P`, and what may be used again only after it.
///
/// There is no way to the owned value but [`Shootdown::settle`]. Dropped, it leaks what it owns: nobody has proved anything.
#[must_use = "what is owned may be used again only after the shootdown: settle it"]
pub struct Owed<P: Policy, T> {
    pending: Pending,
    owned: ManuallyDrop<T>,
    _policy: PhantomData<P>,
}

impl<P: Policy, T> Owed<P, T> {
    pub(crate) fn new(pending: Pending, owned: T) -> Self {
        Owed {
            pending,
            owned: ManuallyDrop::new(owned),
            _policy: PhantomData,
        }
    }
}

impl<P: Policy, T: fmt::Debug> fmt::Debug for Owed<P, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Owed")
            .field("policy", &P::KIND)
            .field("owned", &*self.owned)
            .finish_non_exhaustive()
    }
}

impl Shootdown {
    /// [`begin`](Self::begin) under a policy known by type, with what depends on it locked in.
    pub fn begin_by<P: Policy, T>(
        &self,
        cpu: &impl Processor,
        flush: &Flush,
        place: Place,
        owned: T,
    ) -> Owed<P, T> {
        Owed::new(self.begin(cpu, P::KIND, flush, place), owned)
    }

    /// [`wait`](Self::wait) for all that the policy proves, and for no more.
    ///
    /// # Errors
    ///
    /// [`WaitError`].
    pub fn prove<P: Policy, T>(
        &self,
        cpu: &impl Processor,
        owed: &Owed<P, T>,
    ) -> Result<P::Proof, WaitError> {
        let grade = <P::Proof as Proof>::GRADE;
        let reached = self.wait(cpu, &owed.pending, grade)?;
        match <P::Proof as Proof>::of(reached) {
            Some(proof) => Ok(proof),
            None => unreachable!("waited for {grade:?} and got {:?}", reached.grade()),
        }
    }

    /// Waits for the end, whatever the policy proves before it, and gives what was locked in back.
    ///
    /// # Errors
    ///
    /// [`WaitError`]; everything stays locked in.
    pub fn settle<P: Policy, T>(
        &self,
        cpu: &impl Processor,
        owed: Owed<P, T>,
    ) -> Result<Flushed<T>, Unsettled<Owed<P, T>>> {
        match self.wait(cpu, &owed.pending, Completion::WalkQuiescent) {
            Ok(reached) => match Flushed::after(reached, ManuallyDrop::into_inner(owed.owned)) {
                Ok(flushed) => Ok(flushed),
                Err(_) => unreachable!("waited for the end of a shootdown"),
            },
            Err(error) => Err((Box::new(owed), error)),
        }
    }
}

/// What could not be settled, with everything still locked in, and why.
pub type Unsettled<T> = (Box<T>, WaitError);

/// Why a wait ended without what was waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WaitError {
    /// Patience ran out. The CPUs that have not answered may still use the translation.
    #[error(
        "a shootdown got no further than {reached:?} in {turns} turns: {missing} CPUs have not answered"
    )]
    Unanswered {
        /// How far it came; `None`: not even everybody's handler was entered.
        reached: Option<Completion>,
        /// CPUs that have not answered.
        missing: u32,
        /// Turns waited.
        turns: u32,
    },
    /// The CPU that wants to wait has interrupts off: it could not answer others meanwhile, nor they it.
    #[error("{cpu} would wait for a shootdown with interrupts off")]
    InterruptsOff {
        /// Which one.
        cpu: CpuId,
    },
}
