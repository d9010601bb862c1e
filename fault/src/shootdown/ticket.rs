//! Tickets: one full flush answers everyone who asked before it began.
//!
//! | word | value | written by |
//! |---|---|---|
//! | `requested` | how many tickets have been taken; ticket `t` is the `t`-th, from 1 | every initiator: fetch_add |
//! | `done[n]` | the last ticket that `cpu n` has answered; 0: none | `cpu n` alone |
//!
//! ```text
//!   initiator:  clear entries --> t = requested + 1 --> ... until done[n] >= t for every target n
//!   cpu n:      r = requested --> flush everything --> done[n] = r
//! ```
//!
//! A CPU reads `requested` *first*: what is cleared during its flush belongs to a later ticket, and
//! this flush does not answer for it.
#![forbid(unsafe_code)]

use alloc::boxed::Box;

use super::cpu_set::CpuId;
use crate::mutant::Mutant;
use crate::sync::atomic::{AtomicU64, Ordering};

/// What an initiator waits for: a flush on each target that began after the ticket was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(u64);

impl Ticket {
    /// Its number, from 1.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }
}

/// In a cache line of its own: one CPU writes it, all initiators read it.
#[derive(Debug)]
#[repr(align(64))]
struct Done(AtomicU64);

/// The tickets of one machine.
///
/// ```
/// use pageless_fault::shootdown::{CpuId, Tickets};
/// let (tickets, cpu) = (Tickets::new(1), CpuId::new(0));
/// let (first, second) = (tickets.take(), tickets.take());
/// let mut flushes = 0;
/// tickets.serve(cpu, || flushes += 1);
/// assert!(tickets.is_done(cpu, first) && tickets.is_done(cpu, second));
/// assert_eq!(flushes, 1);
/// ```
#[derive(Debug)]
pub struct Tickets {
    requested: AtomicU64,
    done: Box<[Done]>,
}

impl Tickets {
    /// No ticket taken, for CPUs 0 to `cpus - 1`.
    #[must_use]
    pub fn new(cpus: u16) -> Self {
        Tickets {
            requested: AtomicU64::new(0),
            done: (0..cpus).map(|_| Done(AtomicU64::new(0))).collect(),
        }
    }

    fn done(&self, cpu: CpuId) -> &AtomicU64 {
        &self.done[cpu.index()].0
    }

    /// For an initiator that has cleared its entries.
    pub fn take(&self) -> Ticket {
        // Release: pairs with the Acquire in `serve`, so that whoever answers this ticket has seen
        // the entries cleared. Takers form one release sequence: reading a later ticket is reading
        // this one as well.
        Ticket(self.requested.fetch_add(1, Ordering::Release) + 1)
    }

    /// Whether somebody waits for a flush of `cpu`; cheap enough to ask at every instruction.
    ///
    /// # Panics
    ///
    /// The machine has no such `cpu`. So with the other methods that take one.
    #[must_use]
    pub fn pending(&self, cpu: CpuId) -> bool {
        // Relaxed: `serve` looks again. `done` is the asking CPU's own.
        self.requested.load(Ordering::Relaxed) != self.done(cpu).load(Ordering::Relaxed)
    }

    /// On `cpu` itself: answers every ticket taken so far by one `flush` of everything. Whether there was
    /// one to answer.
    pub fn serve(&self, cpu: CpuId, flush: impl FnOnce()) -> bool {
        let done = self.done(cpu);
        // Acquire: pairs with the Release in `take`.
        let requested = self.requested.load(Ordering::Acquire);
        if requested == done.load(Ordering::Relaxed) {
            return false;
        }
        // Release: pairs with the Acquire in `is_done`.
        if Mutant::AckBeforeInvalidate.active() {
            done.store(requested, Ordering::Release);
            flush();
        } else {
            flush();
            done.store(requested, Ordering::Release);
        }
        true
    }

    /// The last ticket that `cpu` has answered, as a number; for `cpu` itself.
    pub(crate) fn done_by(&self, cpu: CpuId) -> u64 {
        // Relaxed: the asking CPU's own.
        self.done(cpu).load(Ordering::Relaxed)
    }

    /// Whether `cpu` has flushed everything since `ticket` was taken.
    #[must_use]
    pub fn is_done(&self, cpu: CpuId, ticket: Ticket) -> bool {
        // Acquire: pairs with the Release in `serve`.
        self.done(cpu).load(Ordering::Acquire) >= ticket.0
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_taken_during_a_flush_waits_for_the_next_one() {
        let (tickets, cpu) = (Tickets::new(2), CpuId::new(1));
        assert!(!tickets.pending(cpu));
        let before = tickets.take();
        assert!(tickets.pending(cpu));
        let mut during = None;
        assert!(tickets.serve(cpu, || during = Some(tickets.take())));
        let during = during.unwrap();
        assert!(tickets.is_done(cpu, before));
        assert!(!tickets.is_done(cpu, during));
        assert!(
            !tickets.is_done(CpuId::new(0), before),
            "another CPU's flush"
        );
        assert!(tickets.serve(cpu, || ()));
        assert!(tickets.is_done(cpu, during));
        assert!(!tickets.serve(cpu, || unreachable!("nobody asked")));
    }
}
