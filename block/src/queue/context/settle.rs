//! Requests that the device has finished with: through the flush sequence, to their bios.

use alloc::boxed::Box;
use core::mem;

use crate::device::BlockDevice;
use crate::mutant::Mutant;
use crate::observe::event::Action;
use crate::queue::context::Context;
use crate::queue::context::issue::Issued;
use crate::queue::flush::{Needs, Next, Step};
use crate::queue::mailbox::Mailbox;
use crate::request::{self, Done, Request};

impl<'q, D: BlockDevice> Context<'q, D> {
    /// A request that the device has finished with goes on.
    #[inline]
    pub(super) fn handle(&mut self, done: Done) {
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

    #[cold]
    pub(super) fn enter_flush(&mut self, request: Request, needs: Needs) {
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
    pub(super) fn finish_settled(&mut self) {
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
}
