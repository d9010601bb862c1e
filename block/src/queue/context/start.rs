//! A bio becomes a request, or a part of one.

use alloc::boxed::Box;

use crate::clock::Nanos;
use crate::device::BlockDevice;
use crate::flags::BioFlags;
use crate::observe::event::{Action, Event};
use crate::position::SECTOR_SIZE;
use crate::queue::admission::RejectReason;
use crate::queue::context::Context;
use crate::queue::flush::{Needs, Step};
use crate::request::merge::{Incoming, Merge};
use crate::request::{self, Request};

impl<'q, D: BlockDevice> Context<'q, D> {
    /// Gives an accepted bio its request, or makes it part of one, and sends that on its way. Whether the
    /// queue is frozen matters to those that are not `inside` yet.
    ///
    /// # Errors
    /// The bio, if there is no tag or no memory, or if the queue is frozen.
    #[inline]
    pub(super) fn start(
        &mut self,
        incoming: Incoming,
        inside: bool,
    ) -> Result<(), (Incoming, RejectReason)> {
        if incoming.flags.intersects(BioFlags::FLUSHES) {
            return self.start_flushing(incoming, inside);
        }
        if !self.plugged && self.queue.elevator.is_none() {
            let request = self.request_for(incoming, inside)?;
            self.send(request);
            return Ok(());
        }
        self.start_mergeable(incoming, inside)
    }

    fn start_mergeable(
        &mut self,
        incoming: Incoming,
        inside: bool,
    ) -> Result<(), (Incoming, RejectReason)> {
        if !inside && self.queue.gate.frozen() {
            // Also where it could join a request that is inside.
            return Err((incoming, RejectReason::Frozen));
        }
        let incoming = match self.merge(incoming, inside) {
            Ok(()) => return Ok(()),
            Err(apart) => apart,
        };
        let request = self.request_for(incoming, inside)?;
        match self.plugged {
            true => self.hold_back(request),
            false => self.send(request),
        }
        Ok(())
    }

    /// One with PREFLUSH or FUA.
    #[cold]
    #[inline(never)]
    fn start_flushing(
        &mut self,
        incoming: Incoming,
        inside: bool,
    ) -> Result<(), (Incoming, RejectReason)> {
        let needs = Needs::of(incoming.flags, self.queue.limits().features);
        let asked = incoming.flags;
        let mut incoming = incoming;
        incoming.flags = needs.flags;
        let request = match self.request_for(incoming, inside) {
            Ok(request) => request,
            Err((mut incoming, reason)) => {
                // Who tries again asks for the same.
                incoming.flags = asked;
                return Err((incoming, reason));
            }
        };
        if needs.flushes() {
            self.enter_flush(request, needs);
        } else if self.plugged {
            self.hold_back(request);
        } else {
            self.send(request);
        }
        Ok(())
    }

    /// The same for a piece of a bio that was accepted as a whole: without a tag, it waits.
    pub(super) fn start_or_wait(&mut self, incoming: Incoming) {
        if !self.backlog.is_empty() {
            self.backlog.push_back(incoming);
            return;
        }
        if let Err((incoming, _)) = self.start(incoming, true) {
            self.backlog.push_back(incoming);
        }
    }

    #[inline]
    fn request_for(
        &mut self,
        incoming: Incoming,
        inside: bool,
    ) -> Result<Request, (Incoming, RejectReason)> {
        let inner = match self.take_request() {
            Ok(inner) => inner,
            Err(reason) => return Err((incoming, reason)),
        };
        if !self.enter() && !inside {
            self.put_request(inner);
            self.one_less_out();
            return Err((incoming, RejectReason::Frozen));
        }
        if !inside {
            self.tell_queued(&incoming.bio);
        }
        let request = self.fill(inner, incoming);
        self.tell_request(Action::GetRequest, &request);
        Ok(request)
    }

    #[inline]
    pub(super) fn fill(&mut self, mut inner: Box<request::Inner>, incoming: Incoming) -> Request {
        let bio = incoming.bio;
        inner.op = bio.op;
        inner.owed = true;
        inner.step = Step::Plain;
        inner.flags = incoming.flags;
        inner.priority = bio.priority;
        inner.position = bio.sector.get().wrapping_mul(SECTOR_SIZE);
        inner.len = bio.len;
        inner.result = Ok(());
        inner.done = 0;
        if self.queue.clock.is_some() || self.queue.stat.is_some() {
            self.note_start(&mut inner);
        }
        inner.bios.set(bio);
        Request(inner)
    }

    /// Joins a bio to a request that is held back or scheduled.
    fn merge(&mut self, incoming: Incoming, inside: bool) -> Result<(), Incoming> {
        if incoming.flags.intersects(BioFlags::NEVER_MERGED) || incoming.is_empty() {
            return Err(incoming);
        }
        let limits = self.queue.limits();
        let (queue, cell) = (self.queue, self.cell);
        let told = self.event(Nanos::ZERO, Action::Queue, &incoming.bio);
        let tell = |end: Merge| {
            let joined = match end {
                Merge::Back => Action::BackMerge,
                Merge::Front => Action::FrontMerge,
            };
            if let Some(stat) = &queue.stat {
                stat.merged(cell, told.op);
            }
            if !inside {
                queue.tell(|time| Event { time, ..told });
            }
            queue.tell(|time| Event {
                time,
                action: joined,
                ..told
            });
        };
        let mut incoming = incoming;
        // From the last one on: whoever goes through a file continues what came just before.
        for request in self.plug.iter_mut().rev() {
            match request.try_merge(incoming, limits) {
                Ok(end) => {
                    self.counters.merges += 1;
                    tell(end);
                    return Ok(());
                }
                Err(apart) => incoming = apart,
            }
        }
        if let (Some(elevator), false) = (&queue.elevator, self.plugged) {
            let end = elevator.merge(incoming, limits)?;
            self.counters.merges += 1;
            tell(end);
            return Ok(());
        }
        Err(incoming)
    }
}
