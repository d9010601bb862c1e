//! Requests that are not in use, their tags, and how many are out.

use alloc::boxed::Box;

use crate::device::BlockDevice;
use crate::failpoint::Failpoint;
use crate::observe::event::Action;
use crate::queue::admission::RejectReason;
use crate::queue::context::Context;
use crate::request::{self, Tag};
use crate::sync::atomic::Ordering;

impl<'q, D: BlockDevice> Context<'q, D> {
    /// A request that is not in use, with a tag.
    #[inline]
    pub(super) fn take_request(&mut self) -> Result<Box<request::Inner>, RejectReason> {
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
    pub(super) fn put_request(&mut self, inner: Box<request::Inner>) {
        if !self.sole {
            self.hw.tags.put(inner.tag);
        }
        self.requests.push(inner);
    }

    #[cold]
    fn fresh_request(&self) -> Box<request::Inner> {
        let mut inner = Box::new(request::Inner::empty(Some(self.home.clone())));
        inner.queue = self.hw.id;
        inner.context = self.id;
        inner
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
}
