//! What a block device is.

use alloc::boxed::Box;
use alloc::sync::Arc;

use crate::limits::Limits;
use crate::op::Op;
use crate::position::BytePos;
use crate::request::{Done, QueueId, Request, Tag};

/// A block device. A driver that is done when it returns takes two methods; the others are for
/// devices that finish a request later than they take it.
///
/// ```
/// use pageless_block::{BlkError, BlockDevice, Data, FrameAccess, Limits, Op, Request, Submitted};
/// use pageless_pfn::ByteLen;
///
/// /// Reads as zeroes, takes every write.
/// struct Zero<M>(M);
///
/// impl<M: FrameAccess> BlockDevice for Zero<M> {
///     fn limits(&self) -> Limits {
///         Limits::new(ByteLen::new(1 << 40))
///     }
///
///     fn submit(&self, request: Request) -> Submitted {
///         request.run(|request| match request.data() {
///             Data::ToMemory(mut memory) => memory.try_for_each(|part| Ok(part.zero(&self.0)?)),
///             _ => Ok(()),
///         })
///     }
/// }
/// ```
///
/// Devices are shared by reference among the threads that submit to them; `&D`, `Box<D>` and
/// `Arc<D>` are devices too.
pub trait BlockDevice {
    /// Capacity, features and limits; must not change while a queue exists. The queue sees to it that
    /// every request is within them.
    fn limits(&self) -> Limits;

    /// Takes `request` in: carries it out at once ([`Request::run`]), keeps it and completes it
    /// later in [`BlockDevice::poll`], or gives it back because there is no room for it now.
    ///
    /// Bytes move through a [`FrameAccess`](crate::FrameAccess) that the device owns or borrows.
    fn submit(&self, request: Request) -> Submitted;

    /// Hands over requests of `queue` that have been completed since the last time, and of no other queue. Called
    /// by any thread that submits to this queue, also while the device has no request.
    fn poll(&self, queue: QueueId, done: &mut dyn FnMut(Done)) {
        let _ = (queue, done);
    }

    /// The request has taken too long: the device gives it back, or says that it goes on with it. What
    /// it has given back it cannot complete any more. Another thread may have been handed it in the same
    /// moment: a device that has no request of that name says [`Abort::Running`].
    fn abort(&self, queue: QueueId, tag: Tag) -> Abort {
        let _ = (queue, tag);
        Abort::Running
    }

    /// A request for this place will come in a moment: the time to bring near what it will need. Most
    /// devices have nothing to do.
    #[inline]
    fn expect(&self, op: Op, position: BytePos) {
        let _ = (op, position);
    }
}

/// What a device did with a request.
#[derive(Debug)]
#[must_use = "a request that came back must go somewhere"]
pub enum Submitted {
    /// Carried it out: this very request is completed.
    Done(Done),
    /// Keeps it; [`BlockDevice::poll`] will hand it over.
    Kept,
    /// Has no room or no budget for it now (`BLK_STS_RESOURCE`, `BLK_STS_DEV_RESOURCE`). The queue tries again
    /// when something has been completed, or when it is polled.
    Busy(Request),
}

/// What a device says to a request that has taken too long.
#[derive(Debug)]
#[must_use = "the request may have come back"]
pub enum Abort {
    /// Here it is; the queue completes it as timed out.
    Aborted(Request),
    /// It is still at work, or about to be handed over: the time starts again.
    Running,
}

macro_rules! forward {
    ($($pointer:ty),*) => {$(
        impl<D: BlockDevice + ?Sized> BlockDevice for $pointer {
            #[inline]
            fn limits(&self) -> Limits {
                (**self).limits()
            }

            #[inline]
            fn submit(&self, request: Request) -> Submitted {
                (**self).submit(request)
            }

            #[inline]
            fn poll(&self, queue: QueueId, done: &mut dyn FnMut(Done)) {
                (**self).poll(queue, done);
            }

            #[inline]
            fn abort(&self, queue: QueueId, tag: Tag) -> Abort {
                (**self).abort(queue, tag)
            }

            #[inline]
            fn expect(&self, op: Op, position: BytePos) {
                (**self).expect(op, position);
            }
        }
    )*};
}

forward!(&D, Box<D>, Arc<D>);
