//! PREFLUSH, data, POSTFLUSH: how a queue keeps the promises of a device with a volatile cache.
//!
//! ```text
//!            PREFLUSH wanted                     the flush in flight has ended
//!  submit ----------------> pending ==> running ----------------------------> data? --> device
//!     |                        ^   a flush begins:                   |  none             |
//!     | none wanted            |   all that wait go along            v                   v
//!     +------> device -----> POSTFLUSH wanted, and bytes          complete <---- no POSTFLUSH wanted
//!              (data)        reached the device
//! ```
//!
//! One flush is in flight at a time. What arrives meanwhile waits in `pending` for the next one, since a
//! flush that has begun says nothing about data that was completed after its beginning; when it
//! begins, everything that waits goes along. So many flushes cost at most two.

use alloc::boxed::Box;
use alloc::collections::VecDeque;

use crate::flags::BioFlags;
use crate::limits::Features;
use crate::mutant::Mutant;
use crate::op::Op;
use crate::request::{Inner, QueueId, Request, Tag};

/// Where a request is in the flush sequence.
///
/// | value | meaning |
/// |---|---|
/// | `Plain` | it takes no part in it |
/// | `Pre` | it waits for a flush before its data |
/// | `Data` | its data is at the device, or on the way |
/// | `Post` | it waits for a flush after its data |
/// | `Flush` | it *is* the flush |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Plain,
    Pre,
    Data,
    Post,
    Flush,
}

/// What a request needs beside its data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Needs {
    pub(crate) preflush: bool,
    pub(crate) postflush: bool,
    /// The flags the device is to see.
    pub(crate) flags: BioFlags,
}

impl Needs {
    /// What a request with `flags` needs on a device with these features.
    #[inline]
    pub(crate) fn of(flags: BioFlags, features: Features) -> Self {
        if !flags.intersects(BioFlags::FLUSHES) {
            return Self {
                preflush: false,
                postflush: false,
                flags,
            };
        }
        let cache = features.contains(Features::WRITE_CACHE);
        let fua = features.contains(Features::FUA);
        let wants_fua = flags.contains(BioFlags::FUA) && !Mutant::FuaAsPlainWrite.active();
        let mut seen = flags.difference(BioFlags::FLUSHES);
        seen.set(BioFlags::FUA, wants_fua && cache && fua);
        Self {
            preflush: cache && flags.contains(BioFlags::PREFLUSH),
            postflush: cache && wants_fua && !fua,
            flags: seen,
        }
    }

    /// Whether the queue has to send flushes for it.
    pub(crate) fn flushes(self) -> bool {
        self.preflush || self.postflush
    }
}

/// What is to be done with a request next.
#[derive(Debug)]
pub(crate) enum Next {
    /// Give it to the device.
    Issue(Request),
    /// It is over: settle it.
    Settle(Request),
}

/// The requests of a hardware queue that wait for flushes.
pub(crate) struct FlushQueue {
    /// Wait for a flush that has not begun.
    pending: VecDeque<Request>,
    /// Wait for the flush in flight.
    running: VecDeque<Request>,
    /// The flush itself, while none is in flight.
    idle: Option<Box<Inner>>,
    /// How many flushes were sent.
    pub(crate) sent: u64,
    /// How many requests they were for.
    pub(crate) served: u64,
}

impl FlushQueue {
    /// For queue `queue`, whose flushes are called `tag`.
    pub(crate) fn new(queue: QueueId, tag: Tag) -> Self {
        let mut flush = Inner::empty(None);
        flush.op = Op::Flush;
        flush.step = Step::Flush;
        flush.queue = queue;
        flush.tag = tag;
        Self {
            pending: VecDeque::new(),
            running: VecDeque::new(),
            idle: Some(Box::new(flush)),
            sent: 0,
            served: 0,
        }
    }

    /// A request that [flushes](Needs::flushes) enters the sequence.
    pub(crate) fn enter(&mut self, mut request: Request, needs: Needs) -> Option<Next> {
        request.0.postflush = needs.postflush;
        if needs.preflush {
            if Mutant::FlushBeforeData.active() && request.is_empty() {
                return Some(Next::Settle(request));
            }
            request.0.step = Step::Pre;
            self.pending.push_back(request);
            return self.begin();
        }
        request.0.step = Step::Data;
        Some(Next::Issue(request))
    }

    /// The data of a request has been carried out, or has failed.
    pub(crate) fn data_done(&mut self, mut request: Request) -> Option<Next> {
        let inner = &mut request.0;
        let skipped = Mutant::PostflushSkippedOnError.active() && inner.result.is_err();
        // What failed half-way has a first half, which the completion reports as done: durably.
        let reached = inner.done != 0 && !skipped;
        if inner.postflush && reached {
            inner.step = Step::Post;
            self.pending.push_back(request);
            return self.begin();
        }
        Some(Next::Settle(request))
    }

    /// Sends a flush if somebody waits for one and none is in flight.
    fn begin(&mut self) -> Option<Next> {
        if self.pending.is_empty() {
            return None;
        }
        let mut flush = self.idle.take()?;
        core::mem::swap(&mut self.pending, &mut self.running);
        self.sent += 1;
        self.served += self.running.len() as u64;
        flush.owed = true;
        Some(Next::Issue(Request(flush)))
    }

    /// The flush in flight has ended: says for each request that waited for it what is next, and sends
    /// another flush if more wait.
    pub(crate) fn flush_done(&mut self, flush: Request, mut next: impl FnMut(Next)) {
        let mut inner = flush.0;
        let result = inner.result;
        inner.owed = false;
        self.idle = Some(inner);
        while let Some(mut request) = self.running.pop_front() {
            next(match (request.0.step, result) {
                (Step::Pre, Ok(())) if !request.is_empty() => {
                    request.0.step = Step::Data;
                    Next::Issue(request)
                }
                (_, Ok(())) => Next::Settle(request),
                (_, Err(error)) => {
                    // Neither what was to come nor what was written is durable.
                    request.0.result = Err(error);
                    request.0.done = 0;
                    Next::Settle(request)
                }
            });
        }
        if let Some(begun) = self.begin() {
            next(begun);
        }
    }

    /// How many requests wait.
    pub(crate) fn waiting(&self) -> usize {
        self.pending.len() + self.running.len()
    }
}

impl core::fmt::Debug for FlushQueue {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "FlushQueue({} wait)", self.waiting())
    }
}
