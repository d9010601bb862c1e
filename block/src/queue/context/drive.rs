//! Requests on their way: from a bio to the device, and back.

use alloc::boxed::Box;
use core::mem;

use pageless_pfn::ByteLen;

use crate::clock::Nanos;
use crate::device::{Abort, BlockDevice, Submitted};
use crate::failpoint::Failpoint;
use crate::flags::BioFlags;
use crate::mutant::Mutant;
use crate::observe::event::{Action, Event};
use crate::op::Op;
use crate::position::{SECTOR_SIZE, Sector};
use crate::priority::Priority;
use crate::queue::HwQueue;
use crate::queue::admission::RejectReason;
use crate::queue::context::plug::{PLUG_FLUSH_SIZE, PLUG_REQUESTS};
use crate::queue::context::{Context, Presence};
use crate::queue::flush::{Needs, Next, Step};
use crate::queue::mailbox::{Letter, Mailbox};
use crate::request::merge::{Incoming, Merge};
use crate::request::{self, Done, Request, Tag};
use crate::status::BlkError;
use crate::sync::atomic::Ordering;
use crate::sync::relax;

/// What became of a request that was given to the device.
enum Issued {
    Done(Done),
    Kept,
    /// It could not go, and waits in the hardware queue.
    Parked,
}

/// That a call of the driver is under way. Also a driver that panics has returned then: whoever quiesces the queue
/// is not to wait for it, and the context may live on.
struct Issuing<'a>(&'a Presence);

impl Drop for Issuing<'_> {
    #[inline]
    fn drop(&mut self) {
        // Release: pairs with the load in `RequestQueue::quiesce`, which then knows the call is over.
        self.0.issuing.store(false, Ordering::Release);
    }
}

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

    /// A request that is not in use, with a tag.
    #[inline]
    fn take_request(&mut self) -> Result<Box<request::Inner>, RejectReason> {
        // The usual way: one that keeps its tag.
        if self.sole
            && let Some(inner) = self.requests.pop()
        {
            if !Failpoint::TagGet.hit() {
                return Ok(inner);
            }
            self.requests.push(inner);
            return Err(self.none_free());
        }
        self.take_request_slowly()
    }

    #[cold]
    #[inline(never)]
    fn take_request_slowly(&mut self) -> Result<Box<request::Inner>, RejectReason> {
        let mut tag = self.take_tag();
        if tag.is_none() && !self.plug.is_empty() {
            self.unplug();
            if self.sole
                && let Some(inner) = self.requests.pop()
            {
                return Ok(inner);
            }
            tag = self.take_tag();
        }
        let Some(tag) = tag else {
            return Err(self.none_free());
        };
        let mut inner = match self.requests.pop() {
            Some(inner) => inner,
            None if Failpoint::RequestAlloc.hit() => {
                self.put_tag(tag);
                return Err(RejectReason::NoMemory);
            }
            None => self.fresh_request(),
        };
        inner.tag = tag;
        Ok(inner)
    }

    #[cold]
    fn none_free(&self) -> RejectReason {
        self.tell_plug(Action::SleepRequest, 0);
        let depth = self.queue.places;
        RejectReason::QueueFull { depth }
    }

    /// A tag for a request that has none.
    fn take_tag(&mut self) -> Option<Tag> {
        if Failpoint::TagGet.hit() {
            return None;
        }
        if !self.sole {
            return self.hw.tags.get(self.number);
        }
        let tag = Tag::new(self.made);
        (self.made < self.hw.requests).then(|| {
            self.made += 1;
            tag
        })
    }

    /// Gives back a tag that [`take_tag`](Self::take_tag) gave, or the tag of a request.
    #[inline]
    fn put_tag(&mut self, tag: Tag) {
        if !self.sole {
            self.hw.tags.put(tag);
        } else if tag.get() + 1 == self.made && self.requests.is_empty() {
            self.made -= 1;
        }
    }

    /// A request is of no more use.
    #[inline]
    fn put_request(&mut self, inner: Box<request::Inner>) {
        if !self.sole {
            self.hw.tags.put(inner.tag);
        }
        self.requests.push(inner);
    }

    /// Counts one more that is out, and says whether that may be. If not, it is to be taken back.
    #[inline]
    pub(super) fn enter(&self) -> bool {
        self.one_more_out();
        self.queue.barrier.light();
        self.queue.gate.is_open() || !self.queue.gate.frozen()
    }

    #[inline]
    fn one_more_out(&self) {
        let out = &self.presence.out;
        // A load and a store: this thread alone writes it. Relaxed: the barrier before the look at the gate
        // is what orders it.
        out.store(out.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }

    #[inline]
    pub(super) fn one_less_out(&self) {
        let out = &self.presence.out;
        // Release: pairs with the Acquire in `RequestQueue::in_flight`.
        out.store(out.load(Ordering::Relaxed) - 1, Ordering::Release);
    }

    #[cold]
    fn fresh_request(&self) -> Box<request::Inner> {
        let mut inner = Box::new(request::Inner::empty(Some(self.home.clone())));
        inner.queue = self.hw.id;
        inner.context = self.id;
        inner
    }

    #[inline]
    fn fill(&mut self, mut inner: Box<request::Inner>, incoming: Incoming) -> Request {
        let bio = incoming.bio;
        inner.op = bio.op;
        inner.owed = true;
        inner.step = Step::Plain;
        inner.postflush = false;
        inner.flags = incoming.flags;
        inner.priority = bio.priority;
        inner.position = bio.sector.get().wrapping_mul(SECTOR_SIZE);
        inner.len = bio.len;
        inner.device_segments = None;
        inner.result = Ok(());
        inner.done = 0;
        if self.queue.clock.is_some() || self.queue.stat.is_some() {
            self.note_start(&mut inner);
        }
        inner.bios.set(bio);
        Request(inner)
    }

    /// Now. What happens within one call of the caller's happens at one time, or the clock would cost more
    /// than everything else.
    #[inline]
    fn look_at_clock(&mut self) -> Nanos {
        if self.queue.clock.is_some() {
            self.time = self.queue.now();
        }
        self.time
    }

    #[cold]
    #[inline(never)]
    fn note_start(&mut self, inner: &mut request::Inner) {
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
    fn note_end(&mut self, inner: &request::Inner) {
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

    fn hold_back(&mut self, request: Request) {
        let long = request.len().get() >= PLUG_FLUSH_SIZE;
        self.plug.push(request);
        if long || self.plug.len() >= PLUG_REQUESTS {
            self.unplug();
        }
    }

    /// Lets go of what is held back.
    pub(super) fn unplug(&mut self) {
        if self.plug.is_empty() {
            return;
        }
        self.tell_plug(Action::Unplug, self.plug.len() as u64);
        let mut plug = mem::take(&mut self.plug);
        if self.queue.elevator.is_some() {
            for request in plug.drain(..) {
                self.insert(request);
            }
            self.run_elevator();
        } else {
            for request in plug.drain(..) {
                self.send(request);
            }
        }
        // Its room is used again.
        if self.plug.is_empty() {
            self.plug = plug;
        }
    }

    /// A request is ready for the scheduler, or for the device.
    #[inline]
    fn send(&mut self, request: Request) {
        if self.queue.elevator.is_some() {
            self.insert(request);
            self.run_elevator();
        } else if self.hw.parked_count.load(Ordering::Acquire) != 0 {
            // Behind those that wait already.
            self.hw.park(request, false);
            self.run_parked();
        } else {
            self.issue_and_handle(request);
        }
    }

    fn insert(&mut self, request: Request) {
        let Some(elevator) = &self.queue.elevator else {
            return self.issue_and_handle(request);
        };
        self.tell_request(Action::Insert, &request);
        let now = self.time;
        let left = if Failpoint::ElevatorInsert.hit() {
            Err(request)
        } else {
            elevator.insert(request, now)
        };
        if let Err(request) = left {
            self.hw.park(request, false);
            self.run_parked();
        }
    }

    /// Gives the device what the scheduler chooses, as long as it takes more.
    fn run_elevator(&mut self) {
        let Some(elevator) = &self.queue.elevator else {
            return;
        };
        loop {
            // What the device had no room for comes before the others. And while it has none, requests
            // are better off with the scheduler: bios can still join them there.
            if self.hw.parked_count.load(Ordering::Acquire) != 0 {
                self.run_parked();
                if self.hw.parked_count.load(Ordering::Acquire) != 0 {
                    return;
                }
            }
            if self.is_full(self.hw) {
                return;
            }
            let Some(request) = elevator.dispatch(self.time) else {
                return;
            };
            match self.issue(request, false) {
                Issued::Done(done) => self.handle(done),
                Issued::Kept => {}
                Issued::Parked => return,
            }
        }
    }

    /// Whether the device has as many requests of `hw` as it is to have. Without an elevator there are no
    /// more than that.
    fn is_full(&self, hw: &HwQueue) -> bool {
        // Relaxed: a bound that may be passed by as many as there are threads.
        self.queue.elevator.is_some()
            && hw.at_device.load(Ordering::Relaxed) >= u32::from(self.queue.depth)
    }

    /// Gives the device what could not go before.
    fn run_parked(&mut self) {
        while let Some(request) = self.hw.unpark() {
            match self.issue(request, true) {
                Issued::Done(done) => self.handle(done),
                Issued::Kept => {}
                Issued::Parked => return,
            }
        }
    }

    #[inline]
    fn issue_and_handle(&mut self, request: Request) {
        if let Issued::Done(done) = self.issue(request, false) {
            self.handle(done);
        }
    }

    /// Gives a request to the device, or parks it: before those that wait already if it is `first`.
    #[inline]
    fn issue(&mut self, request: Request, first: bool) -> Issued {
        let queue = self.queue;
        // A flush is one more than the device is promised.
        if queue.elevator.is_some()
            && request.0.step != Step::Flush
            && self.is_full(self.hw_of(&request))
        {
            self.hw_of(&request).park(request, first);
            return Issued::Parked;
        }
        // Relaxed: ordered by the barrier. Either the gate is seen to be closed here, or this is seen by
        // `RequestQueue::quiesce` and waited for.
        self.presence.issuing.store(true, Ordering::Relaxed);
        queue.barrier.light();
        if !queue.gate.is_open() && queue.gate.quiesced() {
            self.presence.issuing.store(false, Ordering::Release);
            self.hw_of(&request).park(request, first);
            return Issued::Parked;
        }
        let issuing = Issuing(&self.presence);
        let submitted = self.hand_over(request);
        drop(issuing);
        match submitted {
            Submitted::Done(done) => {
                self.found(&done);
                Issued::Done(done)
            }
            Submitted::Kept => Issued::Kept,
            Submitted::Busy(request) => self.requeue(request),
        }
    }

    #[inline]
    fn hand_over(&self, mut request: Request) -> Submitted {
        let queue = self.queue;
        if queue.elevator.is_some() {
            let hw = self.hw_of(&request);
            hw.at_device.fetch_add(1, Ordering::Relaxed);
        }
        if queue.clock.is_some() {
            request.0.issued = self.time;
            self.set_deadline(&request);
        }
        self.tell_request(Action::Issue, &request);
        if Failpoint::DeviceBusy.hit() {
            return Submitted::Busy(request);
        }
        if Mutant::TagFreedBeforeCompletion.active() && !self.sole && request.0.step != Step::Flush
        {
            self.hw.tags.put(request.0.tag);
        }
        let tag = request.0.tag;
        let submitted = queue.device.submit(request);
        if let Submitted::Done(done) = &submitted
            && done.0.0.tag != tag
        {
            answered_with_another(done, tag);
        }
        submitted
    }

    fn set_deadline(&self, request: &Request) {
        if let Some(timeout) = self.queue.timeout {
            let at = request.0.issued.saturating_add(timeout).get().max(1);
            // Relaxed here and below: a number, looked at by whoever asks the device, which owns the request.
            self.hw_of(request).deadlines[usize::from(request.0.tag.get())]
                .store(at, Ordering::Relaxed);
        }
    }

    /// The device has no room.
    #[cold]
    fn requeue(&mut self, mut request: Request) -> Issued {
        // Drivers may have sent it on, and will do so again.
        if let Some(bio) = request.0.bios.first() {
            request.0.position = bio.sector.get().wrapping_mul(SECTOR_SIZE);
        }
        self.counters.requeues += 1;
        self.tell_request(Action::Requeue, &request);
        let hw = self.hw_of(&request);
        self.left_device(hw, request.0.tag);
        hw.park(request, true);
        Issued::Parked
    }

    /// A request has come back from the device, in whatever context.
    #[inline]
    fn found(&self, done: &Done) {
        if self.queue.elevator.is_some() || self.queue.timeout.is_some() {
            self.left_device(self.hw_of(&done.0), done.0.0.tag);
        }
    }

    fn left_device(&self, hw: &HwQueue, tag: Tag) {
        if self.queue.elevator.is_some() {
            hw.at_device.fetch_sub(1, Ordering::Relaxed);
        }
        if let Some(deadline) = hw.deadlines.get(usize::from(tag.get())) {
            deadline.store(0, Ordering::Relaxed);
        }
    }

    /// The hardware queue of a request: with an elevator it need not be this context's.
    #[inline]
    fn hw_of(&self, request: &Request) -> &'q HwQueue {
        let id = request.0.queue;
        if id == self.hw.id {
            return self.hw;
        }
        &self.queue.hw[usize::from(id.get())]
    }

    /// A request that the device has finished with goes on.
    #[inline]
    fn handle(&mut self, done: Done) {
        let request = done.0;
        if request.0.step == Step::Plain && self.home.is_home(&request) {
            return self.settle(request);
        }
        self.handle_special(request);
    }

    /// One in the flush sequence, or of another context.
    #[cold]
    #[inline(never)]
    fn handle_special(&mut self, request: Request) {
        self.sequence(request);
        self.run_todo();
    }

    fn sequence(&mut self, request: Request) {
        let hw = self.hw_of(&request);
        if request.0.step == Step::Flush {
            self.tell_request(Action::Complete, &request);
            self.note_flush(&request);
        }
        let todo = &mut self.todo;
        match request.0.step {
            Step::Plain | Step::Pre | Step::Post => todo.push_back(Next::Settle(request)),
            Step::Data => todo.extend(hw.flush.lock().data_done(request)),
            Step::Flush => hw
                .flush
                .lock()
                .flush_done(request, |next| todo.push_back(next)),
        }
    }

    fn note_flush(&mut self, flush: &Request) {
        if let Some(stat) = &self.queue.stat {
            let now = self.look_at_clock();
            stat.flushed(now.since(flush.0.issued));
        }
    }

    #[cold]
    fn enter_flush(&mut self, request: Request, needs: Needs) {
        let next = self.hw.flush.lock().enter(request, needs);
        self.todo.extend(next);
        self.run_todo();
    }

    fn run_todo(&mut self) {
        while let Some(next) = self.todo.pop_front() {
            match next {
                Next::Issue(request) => {
                    if let Issued::Done(done) = self.issue(request, false) {
                        self.sequence(done.0);
                    }
                }
                Next::Settle(request) if self.home.is_home(&request) => self.settle(request),
                Next::Settle(mut request) => {
                    request.0.step = Step::Plain;
                    Mailbox::send_home(Done(request));
                }
            }
        }
    }

    /// A request is over: its bios are told, its tag may name another.
    #[inline]
    fn settle(&mut self, request: Request) {
        self.tell_request(Action::Complete, &request);
        let mut inner = request.0;
        inner.owed = false;
        if self.queue.stat.is_some() || self.latencies.is_some() {
            self.note_end(&inner);
        }
        self.one_less_out();
        if inner.odd {
            return self.settle_odd(inner);
        }
        if let Some(mut bio) = inner.bios.take_first() {
            bio.result = inner.result;
            bio.done = inner.done;
            self.put_settled(inner);
            self.finish_bio(bio);
        }
    }

    /// The same for one that carries several bios, was given other memory, or says where it was written.
    #[cold]
    #[inline(never)]
    fn settle_odd(&mut self, mut inner: Box<request::Inner>) {
        let (result, mut left) = (inner.result, inner.done);
        let written = inner.written.take();
        inner.odd = false;
        inner.replaced = None;
        inner.device_segments = None;
        let mut next = inner.bios.take_first();
        let mut rest = mem::take(inner.bios.rest_mut());
        let mut others = rest.drain(..);
        while let Some(mut bio) = next {
            next = others.next();
            // Merged: each gets its share of what is done, and those that are done have not failed. But a
            // driver may fail after the last byte, and somebody must hear of it.
            let done = left.min(bio.len);
            let spared = done == bio.len && next.is_some();
            bio.result = if spared { Ok(()) } else { result };
            bio.done = done;
            left -= done;
            if written.is_some() && result.is_ok() {
                bio.written = written;
                bio.odd = true;
            }
            self.settled.push_back(bio);
        }
        drop(others);
        *inner.bios.rest_mut() = rest;
        self.put_settled(inner);
        self.finish_settled();
    }

    /// One by one, and the request is out of the way already: should a callback panic, the others are still there.
    fn finish_settled(&mut self) {
        while let Some(bio) = self.settled.pop_front() {
            self.finish_bio(bio);
        }
    }

    #[inline]
    fn put_settled(&mut self, inner: Box<request::Inner>) {
        if Mutant::TagFreedBeforeCompletion.active() && !self.sole {
            // It went when the device got the request.
            self.requests.push(inner);
        } else {
            self.put_request(inner);
        }
    }

    /// Asks the device what it has finished, and sends what could not go before.
    pub fn poll(&mut self) {
        self.look_at_clock();
        self.finish_settled();
        self.unplug();
        // The device may hold a lock of its own while it hands things over, so nothing is submitted
        // before it has returned.
        let landing = &mut self.landing;
        self.queue
            .device
            .poll(self.hw.id, &mut |done| landing.push_back(done));
        // One by one: should a callback panic, the others are still there.
        while let Some(done) = self.landing.pop_front() {
            self.land(done);
        }
        while let Some(letter) = self.home.pop() {
            match letter {
                Letter::Request(done) => self.handle(done),
                Letter::Bio(bio) => self.finish_bio(bio),
            }
        }
        self.expire();
        self.run_parked();
        self.run_elevator();
        if !self.backlog.is_empty() {
            self.run_backlog();
        }
    }

    fn run_backlog(&mut self) {
        while let Some(incoming) = self.backlog.pop_front() {
            if let Err((incoming, _)) = self.start(incoming, true) {
                self.backlog.push_front(incoming);
                return;
            }
        }
        // What `split` counted for as long as pieces wait.
        self.one_less_out();
    }

    /// The device has handed this over.
    fn land(&mut self, done: Done) {
        assert!(
            done.queue() == self.hw.id,
            "driver bug: queue {} was handed {done:?}",
            self.hw.id.get(),
        );
        self.found(&done);
        if done.0.0.step == Step::Plain && !self.home.is_home(&done.0) {
            Mailbox::send_home(done);
        } else {
            self.handle(done);
        }
    }

    /// Asks the device for requests that it has had for too long.
    fn expire(&mut self) {
        if self.queue.timeout.is_none() {
            return;
        }
        let (now, hw) = (self.time, self.hw);
        for (tag, deadline) in hw.deadlines.iter().enumerate() {
            let at = deadline.load(Ordering::Relaxed);
            if at == 0 || at > now.get() {
                continue;
            }
            // Only one context asks.
            if deadline
                .compare_exchange(at, 0, Ordering::Relaxed, Ordering::Relaxed)
                .is_err()
            {
                continue;
            }
            match self.queue.device.abort(hw.id, Tag::new(tag as u16)) {
                Abort::Aborted(request) if !self.is_overdue(&request) => {
                    // The one that was went its way meanwhile, and this one has its tag.
                    let _ = self.requeue(request);
                }
                Abort::Aborted(request) => {
                    self.counters.timeouts += 1;
                    self.tell_request(Action::Abort, &request);
                    self.land(request.complete(Err(BlkError::Timeout.into())));
                }
                Abort::Running => {
                    let again = self
                        .queue
                        .timeout
                        .map(|timeout| now.saturating_add(timeout));
                    let again = again.unwrap_or(now).get().max(1);
                    // Unless another has the tag by now, and a time of its own.
                    let _ =
                        deadline.compare_exchange(0, again, Ordering::Relaxed, Ordering::Relaxed);
                }
            }
        }
    }

    fn is_overdue(&self, request: &Request) -> bool {
        let timeout = self.queue.timeout.unwrap_or_default();
        request.0.issued.saturating_add(timeout) <= self.time
    }

    /// There is nothing to do but to wait: for a clock that others move by hand, until the next timeout.
    #[cold]
    pub(super) fn idle(&self) {
        relax();
        let Some(clock) = &self.queue.clock else {
            return;
        };
        let deadlines = self.hw.deadlines.iter();
        let next = deadlines
            .map(|at| at.load(Ordering::Relaxed))
            .filter(|at| *at != 0)
            .min();
        if let Some(next) = next {
            clock.idle_until(Nanos::new(next));
        }
    }

    #[inline]
    fn tell_request(&self, action: Action, request: &Request) {
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

/// A driver may answer a submission with that very request only; others come through `poll`.
#[cold]
#[inline(never)]
fn answered_with_another(done: &Done, tag: Tag) -> ! {
    panic!("driver bug: submit({tag:?}) answered with {done:?}")
}
