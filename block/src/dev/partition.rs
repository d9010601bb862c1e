//! A part of a device.

use alloc::sync::Arc;

use pageless_pfn::ByteLen;
use thiserror::Error;

use super::trail::Trail;
use crate::clock::Clock;
use crate::device::{Abort, BlockDevice, Submitted};
use crate::limits::Limits;
use crate::limits::stack::StackError;
use crate::observe::event::Probe;
use crate::op::Op;
use crate::position::{BytePos, SECTOR_SIZE, Sector};
use crate::request::{Done, QueueId, Request, Tag};
use crate::status::BlkError;

/// Some bytes of a device, as a device.
///
/// Requests are passed on as they are, to another place; nothing outside can be reached. A flush is
/// the device's, since its cache is. Resetting all zones is refused unless the partition is the
/// whole device.
///
/// `&D` and `Arc<D>` are devices as well, so that several partitions can lie on one. If that one
/// completes requests later, they must be used through one queue: put together again by a
/// [`Linear`](crate::Linear), say. A device does not know which of several queues it is polled by.
///
/// ```
/// use pageless_block::{BlockDevice, BytePos, Limits, NullDevice, Partition};
/// use pageless_pfn::ByteLen;
/// let disk = NullDevice::new(Limits::new(ByteLen::new(1 << 30)));
/// let first = Partition::try_new(&disk, BytePos::new(1 << 20), ByteLen::new(1 << 29))?;
/// assert_eq!(first.limits().capacity.get(), 1 << 29);
/// assert!(Partition::try_new(&disk, BytePos::new(1 << 29), ByteLen::new(1 << 30)).is_err());
/// # Ok::<(), pageless_block::PartitionError>(())
/// ```
#[derive(Debug)]
pub struct Partition<D> {
    device: D,
    start: BytePos,
    limits: Limits,
    /// Whether there is nothing else on the device.
    whole: bool,
    trail: Trail,
}

impl<D: BlockDevice> Partition<D> {
    /// `len` bytes of `device` from `start` on.
    ///
    /// # Errors
    /// [`PartitionError`] if they are not all there, or begin or end where the device knows no
    /// place.
    pub fn try_new(device: D, start: BytePos, len: ByteLen) -> Result<Self, PartitionError> {
        let below = device.limits();
        let capacity = below.capacity;
        let end = start.checked_add(len);
        if len.is_zero() || end.is_none_or(|end| end.get() > capacity.get()) {
            return Err(PartitionError::Beyond {
                start,
                len,
                capacity,
            });
        }
        let zone = below.zones.map_or(ByteLen::ZERO, |zones| zones.size);
        // The last zone of a device may be shorter.
        let to_the_end = end.is_some_and(|end| end.get() == capacity.get());
        let unit = match to_the_end {
            true => below.logical_block,
            false => below.logical_block.max(zone),
        };
        if !len.get().is_multiple_of(unit.get()) {
            return Err(PartitionError::Length { len, unit });
        }
        let limits = Limits::over(len, &below, start)?;
        Ok(Self {
            device,
            start,
            limits,
            whole: len == capacity,
            trail: Trail::default(),
        })
    }

    /// The same, and `probe` is told of every request that is sent on
    /// ([`Action::Remap`](crate::Action::Remap)), with the time of `clock`.
    #[must_use]
    pub fn with_probe(mut self, probe: Arc<dyn Probe>, clock: Option<Arc<dyn Clock>>) -> Self {
        self.trail = Trail::new(probe, clock);
        self
    }

    /// The device it is a part of.
    pub const fn device(&self) -> &D {
        &self.device
    }

    /// Where on the device it begins.
    pub const fn start(&self) -> BytePos {
        self.start
    }

    /// Where on the device the request goes.
    fn place(&self, request: &Request) -> Result<BytePos, BlkError> {
        let end = request.position().checked_add(request.len());
        if end.is_none_or(|end| end.get() > self.limits.capacity.get()) {
            return Err(BlkError::Io);
        }
        let start = ByteLen::new(self.start.get());
        request.position().checked_add(start).ok_or(BlkError::Io)
    }

    /// What the device has finished, as the partition reports it.
    #[inline]
    fn as_ours(&self, mut done: Done) -> Done {
        if let Some(written) = done.0.0.written {
            let start = self.start.get() / SECTOR_SIZE;
            done.0.0.written = written.get().checked_sub(start).map(Sector::new);
        }
        done
    }
}

impl<D: BlockDevice> BlockDevice for Partition<D> {
    fn limits(&self) -> Limits {
        self.limits
    }

    #[inline]
    fn submit(&self, mut request: Request) -> Submitted {
        match request.op() {
            Op::Flush => return self.device.submit(request),
            Op::ZoneResetAll if !self.whole => {
                return request.run(|_| Err(BlkError::NotSupported.into()));
            }
            _ => {}
        }
        let above = request.position();
        let sent = self
            .place(&request)
            .and_then(|place| self.trail.remap(&mut request, place));
        if let Err(error) = sent {
            return request.run(|_| Err(error.into()));
        }
        match self.device.submit(request) {
            Submitted::Done(done) => Submitted::Done(self.as_ours(done)),
            // It will be submitted again, to us.
            Submitted::Busy(mut request) => match request.remap(above) {
                Ok(()) => Submitted::Busy(request),
                Err(error) => request.run(|_| Err(error.into())),
            },
            Submitted::Kept => Submitted::Kept,
        }
    }

    fn poll(&self, queue: QueueId, done: &mut dyn FnMut(Done)) {
        self.device
            .poll(queue, &mut |finished| done(self.as_ours(finished)));
    }

    fn abort(&self, queue: QueueId, tag: Tag) -> Abort {
        self.device.abort(queue, tag)
    }

    #[inline]
    fn expect(&self, op: Op, position: BytePos) {
        if let Some(place) = position.checked_add(ByteLen::new(self.start.get())) {
            self.device.expect(op, place);
        }
    }
}

/// Why there is no such partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum PartitionError {
    /// No bytes, or some past the end.
    #[error("{len} at {start} of a device of {capacity}: must be at least a block, within it")]
    Beyond {
        /// Where it would begin.
        start: BytePos,
        /// How long it would be.
        len: ByteLen,
        /// What the device has.
        capacity: ByteLen,
    },
    /// Choose a multiple of `unit`.
    #[error("{len}: must be a multiple of {unit}")]
    Length {
        /// How long it would be.
        len: ByteLen,
        /// The logical block, or a zone.
        unit: ByteLen,
    },
    /// No limits can promise that requests pass down as they are.
    #[error(transparent)]
    Limits(#[from] StackError),
}
