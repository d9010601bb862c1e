//! Requests on their way to the device: through the scheduler, and past those that wait.

use crate::device::{BlockDevice, Submitted};
use crate::failpoint::Failpoint;
use crate::mutant::Mutant;
use crate::observe::event::Action;
use crate::position::SECTOR_SIZE;
use crate::queue::HwQueue;
use crate::queue::context::{Context, Presence};
use crate::queue::flush::Step;
use crate::request::{Done, Request, Tag};
use crate::sync::atomic::Ordering;

/// What became of a request that was given to the device.
pub(super) enum Issued {
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
    /// A request is ready for the scheduler, or for the device.
    #[inline]
    pub(super) fn send(&mut self, request: Request) {
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

    pub(super) fn insert(&mut self, request: Request) {
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
    pub(super) fn run_elevator(&mut self) {
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
    pub(super) fn run_parked(&mut self) {
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
    pub(super) fn issue(&mut self, request: Request, first: bool) -> Issued {
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
            // Not before it began: another context may have had it wait, and have looked at the clock later.
            request.0.issued = self.time.max(request.0.started);
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
    pub(super) fn requeue(&mut self, mut request: Request) -> Issued {
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
    pub(super) fn found(&self, done: &Done) {
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
    pub(super) fn hw_of(&self, request: &Request) -> &'q HwQueue {
        let id = request.0.queue;
        if id == self.hw.id {
            return self.hw;
        }
        &self.queue.hw[usize::from(id.get())]
    }
}

/// A driver may answer a submission with that very request only; others come through `poll`.
#[cold]
#[inline(never)]
fn answered_with_another(done: &Done, tag: Tag) -> ! {
    panic!("driver bug: submit({tag:?}) answered with {done:?}")
}
