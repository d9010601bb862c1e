//! Requests that a driver makes for a device below it.

use alloc::boxed::Box;
use alloc::sync::Arc;
use core::hint;

use pageless_pfn::{ByteLen, PhysSegment};

use crate::bio::SegmentList;
use crate::device::{BlockDevice, Submitted};
use crate::flags::BioFlags;
use crate::op::Op;
use crate::position::BytePos;
use crate::queue::mailbox::{Letter, Mailbox};
use crate::request::{Done, Inner, QueueId, Request};
use crate::status::Failure;

impl Request {
    /// A request of a driver's own, about `len` bytes of the device below from `position` on. It has no bio; [`carry_out`] gives
    /// it to the device. The driver sees to it that it is within the device's limits.
    pub fn nested(
        op: Op,
        flags: BioFlags,
        position: BytePos,
        len: ByteLen,
        segments: impl IntoIterator<Item = PhysSegment>,
    ) -> Self {
        let mut inner = Inner::empty(Some(Arc::new(Mailbox::new())));
        inner.op = op;
        inner.flags = flags;
        inner.position = position.get();
        inner.len = len.get();
        inner.replaced = Some(segments.into_iter().collect::<SegmentList>());
        inner.owed = true;
        Self(Box::new(inner))
    }
}

/// Gives a [nested](Request::nested) request to `device` and returns when it is done. Keeps the CPU busy
/// while a device that finishes later has it, or has no room for it. Only what came as nested is
/// polled for: a device whose room is all taken by requests of other queues must keep some for these, or
/// this waits for ever.
///
/// # Errors
/// How it failed, and how much of it is done.
///
/// # Panics
/// If the driver answers with another request than it was given.
pub fn carry_out<D: BlockDevice + ?Sized>(device: &D, request: Request) -> Result<(), Failure> {
    let home = request.0.home.clone();
    let mut request = request;
    loop {
        match device.submit(request) {
            Submitted::Done(done) => return settle(done),
            Submitted::Busy(again) => {
                request = again;
                poll_nested(device);
                hint::spin_loop();
            }
            Submitted::Kept => break,
        }
    }
    loop {
        if let Some(Letter::Request(done)) = home.as_ref().and_then(|home| home.pop()) {
            return settle(done);
        }
        poll_nested(device);
        hint::spin_loop();
    }
}

/// Whoever polls finds other threads' requests as well; each goes home.
fn poll_nested<D: BlockDevice + ?Sized>(device: &D) {
    device.poll(QueueId::NESTED, &mut |done| Mailbox::send_home(done));
}

fn settle(done: Done) -> Result<(), Failure> {
    let result = done.result();
    let mut inner = done.0.0;
    inner.owed = false;
    result
}
