//! Devices side by side (RAID-0, dm-stripe).

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;

use pageless_pfn::ByteLen;
use thiserror::Error;

use super::linear::common;
use super::members::{Layout, Members, Place};
use super::trail::Trail;
use crate::clock::Clock;
use crate::device::{Abort, BlockDevice, Submitted};
use crate::limits::Limits;
use crate::limits::stack::StackError;
use crate::observe::event::Probe;
use crate::op::Op;
use crate::position::BytePos;
use crate::request::{Done, QueueId, Request, Tag};

/// Several devices in stripes: the first chunk lies on the first one, the second on the second, and
/// so on, round and round.
///
/// ```text
///  chunk   0 1 2 3 4 5 ...         device 0: 0 3 ...
///                                  device 1: 1 4 ...
///                                  device 2: 2 5 ...
/// ```
///
/// As many chunks of each are used as the smallest one has; the rest lies idle. The chunk is a
/// [limit](Limits::chunk), at which the queue cuts, discards as well: every request lies on one
/// device, and that very request is passed on. A flush goes to every device, from the first on,
/// until one fails.
///
/// A device that completes requests later must not be submitted to by anybody else.
///
/// ```
/// use pageless_block::{BlockDevice, Limits, NullDevice, Stripe};
/// use pageless_pfn::ByteLen;
/// let disk = |bytes| NullDevice::new(Limits::new(ByteLen::new(bytes)));
/// let both = Stripe::try_new(ByteLen::new(64 << 10), [disk(1 << 30), disk(3 << 30)])?;
/// assert_eq!(both.limits().capacity.get(), 2 << 30);
/// assert_eq!(both.limits().chunk, Some(ByteLen::new(64 << 10)));
/// # Ok::<(), pageless_block::StripeError>(())
/// ```
#[derive(Debug)]
pub struct Stripe<D> {
    members: Members<D>,
    chunks: Chunks,
    limits: Limits,
}

#[derive(Clone, Copy, Debug)]
struct Chunks {
    size: u64,
    members: u64,
    capacity: u64,
}

impl Layout for Chunks {
    #[inline]
    fn place(&self, at: BytePos) -> Option<Place> {
        let at = at.get();
        if at >= self.capacity {
            return None;
        }
        let (chunk, within) = (at / self.size, at % self.size);
        Some(Place {
            member: (chunk % self.members) as usize,
            position: BytePos::new(chunk / self.members * self.size + within),
            left: self.size - within,
        })
    }

    fn origin(&self, member: usize, at: BytePos) -> BytePos {
        let (row, within) = (at.get() / self.size, at.get() % self.size);
        BytePos::new((row * self.members + member as u64) * self.size + within)
    }
}

impl<D: BlockDevice> Stripe<D> {
    /// These devices, with chunks of this length.
    ///
    /// # Errors
    /// [`StripeError`] if there are none, or if they make no device together.
    pub fn try_new(
        chunk: ByteLen,
        devices: impl IntoIterator<Item = D>,
    ) -> Result<Self, StripeError> {
        let devices: Box<[D]> = devices.into_iter().collect();
        let below: Vec<Limits> = devices.iter().map(|device| device.limits()).collect();
        let (chunks, limits) = limits_of(chunk, &below)?;
        Ok(Self {
            members: Members::new(devices),
            chunks,
            limits,
        })
    }

    /// The same, and `probe` is told of every request that is sent on
    /// ([`Action::Remap`](crate::Action::Remap)), with the time of `clock`.
    #[must_use]
    pub fn with_probe(mut self, probe: Arc<dyn Probe>, clock: Option<Arc<dyn Clock>>) -> Self {
        self.members.trail = Trail::new(probe, clock);
        self
    }

    /// The devices.
    pub fn members(&self) -> &[D] {
        self.members.devices()
    }
}

fn limits_of(chunk: ByteLen, below: &[Limits]) -> Result<(Chunks, Limits), StripeError> {
    let block = below.iter().map(|limits| limits.logical_block).max();
    let block = block.ok_or(StripeError::NoMembers)?;
    if chunk < block || !chunk.get().is_multiple_of(block.get()) {
        return Err(StripeError::Chunk { chunk, block });
    }
    if let Some(member) = below.iter().position(|limits| limits.zones.is_some()) {
        return Err(StripeError::Zoned { member });
    }
    let shortest = below.iter().map(|limits| limits.capacity).min();
    let len = shortest.unwrap_or(ByteLen::ZERO);
    let each = len.get() - len.get() % chunk.get();
    if each == 0 {
        return Err(StripeError::TooShort { len, chunk });
    }
    let members = below.len() as u64;
    let capacity = each.checked_mul(members).ok_or(StripeError::TooLong)?;
    let mut whole: Option<Limits> = None;
    for limits in below {
        let mut limits = *limits;
        let finer = limits.chunk.map_or(0, ByteLen::get);
        limits.chunk = Some(ByteLen::new(common(chunk.get(), finer)));
        let start = BytePos::new(0);
        whole = Some(match whole {
            None => Limits::over(ByteLen::new(capacity), &limits, start)?,
            Some(whole) => whole.stack(&limits, start)?,
        });
    }
    let mut limits = whole.ok_or(StripeError::NoMembers)?;
    limits.io_min = limits.io_min.max(chunk);
    limits.io_opt = match chunk.get().checked_mul(members) {
        Some(row) => ByteLen::new(row),
        None => ByteLen::ZERO,
    };
    let chunks = Chunks {
        size: chunk.get(),
        members,
        capacity,
    };
    Ok((chunks, limits))
}

impl<D: BlockDevice> BlockDevice for Stripe<D> {
    fn limits(&self) -> Limits {
        self.limits
    }

    #[inline]
    fn submit(&self, request: Request) -> Submitted {
        self.members.submit(&self.chunks, request)
    }

    fn poll(&self, queue: QueueId, done: &mut dyn FnMut(Done)) {
        self.members.poll(&self.chunks, queue, done);
    }

    fn abort(&self, queue: QueueId, tag: Tag) -> Abort {
        self.members.abort(queue, tag)
    }

    fn expect(&self, op: Op, position: BytePos) {
        self.members.expect(&self.chunks, op, position);
    }
}

/// Why devices cannot be put side by side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum StripeError {
    /// At least one is needed.
    #[error("no devices")]
    NoMembers,
    /// Choose a multiple of the block.
    #[error("chunks of {chunk}: must be a multiple of the logical block of {block}")]
    Chunk {
        /// The chunk asked for.
        chunk: ByteLen,
        /// The coarsest logical block of the devices.
        block: ByteLen,
    },
    /// The shortest device has no room for a chunk.
    #[error("the shortest device has {len}, which is less than a chunk of {chunk}")]
    TooShort {
        /// Its capacity.
        len: ByteLen,
        /// The chunk asked for.
        chunk: ByteLen,
    },
    /// A zone is written from its start to its end, and stripes would tear it.
    #[error("device {member} has zones")]
    Zoned {
        /// Which one, counted from 0.
        member: usize,
    },
    /// More than 2^64 bytes.
    #[error("more than 2^64 bytes together")]
    TooLong,
    /// Their limits do not go together.
    #[error(transparent)]
    Limits(#[from] StackError),
}
