//! What others want to know: events, statistics, latencies, and the time for them.

use pageless_pfn::ByteLen;

use crate::clock::Nanos;
use crate::device::BlockDevice;
use crate::flags::BioFlags;
use crate::observe::event::{Action, Event};
use crate::op::Op;
use crate::position::Sector;
use crate::priority::Priority;
use crate::queue::context::Context;
use crate::request::{self, Request};

impl<'q, D: BlockDevice> Context<'q, D> {
    /// Now. What happens within one call of the caller's happens at one time, or the clock would cost more
    /// than everything else.
    #[inline]
    pub(super) fn look_at_clock(&mut self) -> Nanos {
        if self.queue.clock.is_some() {
            self.time = self.queue.now();
        }
        self.time
    }

    #[cold]
    #[inline(never)]
    pub(super) fn note_start(&mut self, inner: &mut request::Inner) {
        inner.started = self.look_at_clock();
        if let Some(stat) = &self.queue.stat {
            match self.queue.clock {
                Some(_) => stat.started_at(self.cell, inner.op, inner.started),
                None => stat.started(self.cell, inner.op),
            }
        }
    }

    #[cold]
    #[inline(never)]
    pub(super) fn note_end(&mut self, inner: &request::Inner) {
        let now = self.look_at_clock();
        if let Some(stat) = &self.queue.stat {
            let done = ByteLen::new(inner.done);
            match self.queue.clock {
                Some(_) => stat.completed_at(self.cell, inner.op, done, inner.started, now),
                None => stat.completed(self.cell, inner.op, done, 0),
            }
        }
        if let Some(latencies) = &mut self.latencies {
            latencies.record(inner.op, now.since(inner.started));
        }
    }

    pub(super) fn note_flush(&mut self, flush: &Request) {
        if let Some(stat) = &self.queue.stat {
            let now = self.look_at_clock();
            stat.flushed(now.since(flush.0.issued));
        }
    }

    #[inline]
    pub(super) fn tell_request(&self, action: Action, request: &Request) {
        self.queue
            .tell(|time| self.request_event(time, action, request));
    }

    #[cold]
    fn request_event(&self, time: Nanos, action: Action, request: &Request) -> Event {
        let inner = &request.0;
        let error = match action {
            Action::Complete => inner.result.err(),
            _ => None,
        };
        // Devices may have sent it on; the bios say where it is for the queue.
        let sector = inner
            .bios
            .first()
            .map_or(request.sector(), |bio| bio.sector);
        Event {
            action,
            time,
            queue: inner.queue,
            context: self.number,
            tag: Some(inner.tag),
            op: inner.op,
            flags: inner.flags,
            priority: inner.priority,
            sector,
            len: ByteLen::new(inner.len),
            error,
            detail: 0,
        }
    }

    pub(super) fn tell_plug(&self, action: Action, detail: u64) {
        self.queue.tell(|time| Event {
            action,
            time,
            queue: self.hw.id,
            context: self.number,
            tag: None,
            op: Op::Read,
            flags: BioFlags::empty(),
            priority: Priority::NONE,
            sector: Sector::new(0),
            len: ByteLen::ZERO,
            error: None,
            detail,
        });
    }
}
