//! Looking after what is out: asking the device, giving up what takes too long.

use crate::clock::Nanos;
use crate::device::{Abort, BlockDevice};
use crate::observe::event::Action;
use crate::queue::context::Context;
use crate::queue::flush::Step;
use crate::queue::mailbox::{Letter, Mailbox};
use crate::request::{Done, Request, Tag};
use crate::status::BlkError;
use crate::sync::atomic::Ordering;
use crate::sync::relax;

impl<'q, D: BlockDevice> Context<'q, D> {
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
}
