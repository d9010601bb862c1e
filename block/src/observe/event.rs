//! What can be seen of a queue at work: one event for each step of a bio and of a request.

use pageless_pfn::ByteLen;

use crate::clock::Nanos;
use crate::flags::BioFlags;
use crate::op::Op;
use crate::position::Sector;
use crate::priority::Priority;
use crate::request::{QueueId, Tag};
use crate::status::BlkError;

/// A step, numbered as in Linux's blktrace (`BLK_TA_*`, include/uapi/linux/blktrace_api.h).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Action {
    /// A bio was submitted (Q).
    Queue = 1,
    /// A bio became the end of a request that was there (M).
    BackMerge = 2,
    /// A bio became the beginning of a request that was there (F).
    FrontMerge = 3,
    /// A bio got a request of its own (G).
    GetRequest = 4,
    /// A bio found no request free (S).
    SleepRequest = 5,
    /// A request the device had no room for went back to its queue (R).
    Requeue = 6,
    /// A request was given to the device (D).
    Issue = 7,
    /// A request, or a bio that never was in one, was completed (C).
    Complete = 8,
    /// A context began to hold requests back (P).
    Plug = 9,
    /// A context let go of what it held back; [`Event::detail`] says how many (U).
    Unplug = 10,
    /// A request was given to the scheduler (I).
    Insert = 12,
    /// A bio was cut; [`Event::detail`] is the sector at which the rest begins (X).
    Split = 13,
    /// A request's memory was replaced by frames the device can use (B).
    Bounce = 14,
    /// A request goes on to another place; [`Event::detail`] is the sector it came from (A).
    Remap = 15,
    /// A request was taken back from the device.
    Abort = 16,
}

impl Action {
    /// Every action.
    pub const ALL: [Self; 15] = [
        Self::Queue,
        Self::BackMerge,
        Self::FrontMerge,
        Self::GetRequest,
        Self::SleepRequest,
        Self::Requeue,
        Self::Issue,
        Self::Complete,
        Self::Plug,
        Self::Unplug,
        Self::Insert,
        Self::Split,
        Self::Bounce,
        Self::Remap,
        Self::Abort,
    ];
}

/// One step of one bio or request. Plain numbers, valid for as long as one likes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// Which step.
    pub action: Action,
    /// When, by the queue's clock; zero if it has none.
    pub time: Nanos,
    /// Through which hardware queue.
    pub queue: QueueId,
    /// In which software context, counted from 0; what a CPU is to the kernel.
    pub context: u16,
    /// The request's tag, if there is a request and it has one.
    pub tag: Option<Tag>,
    /// The operation.
    pub op: Op,
    /// Its flags.
    pub flags: BioFlags,
    /// Its priority.
    pub priority: Priority,
    /// Where on the device.
    pub sector: Sector,
    /// How many bytes of the device.
    pub len: ByteLen,
    /// For [`Action::Complete`]: how it failed, if it did.
    pub error: Option<BlkError>,
    /// See [`Action`]; 0 where that says nothing.
    pub detail: u64,
}

/// Whoever looks on. Called from the middle of a queue, by the thread that takes the step.
pub trait Probe: Send + Sync {
    /// Something happened. Must not submit to the queue that calls it.
    fn event(&self, event: &Event);
}

impl<P: Probe + ?Sized> Probe for alloc::sync::Arc<P> {
    fn event(&self, event: &Event) {
        (**self).event(event);
    }
}

/// Both are told, the first one first. Nest pairs for more.
impl<P: Probe, Q: Probe> Probe for (P, Q) {
    fn event(&self, event: &Event) {
        self.0.event(event);
        self.1.event(event);
    }
}
