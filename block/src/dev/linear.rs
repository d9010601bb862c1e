//! Devices one after the other (dm-linear).

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;

use pageless_pfn::ByteLen;
use thiserror::Error;

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

/// The ends of members are made a limit, at which the queue cuts, if they are multiples of at least
/// this.
const WORTH_A_CHUNK: u64 = 1 << 20;

/// Several devices, one after the other, as one. Parts of devices are added as
/// [`Partition`](crate::Partition)s.
///
/// Nearly every request lies on one member, and that very request is passed on. Those that straddle
/// the end of one are cut: by the queue, if all members begin at multiples of a power of two of at
/// least 1 MiB, which is then the [chunk](Limits::chunk); otherwise here, into requests of the
/// driver's own that are carried out one after the other while the caller waits. A chunk that meets
/// irregular ends would be as short as a sector, and cut all the requests that lie nowhere near an
/// end.
///
/// A flush goes to every member, from the first on, until one fails.
///
/// A member that completes requests later must not be submitted to by anybody else.
///
/// ```
/// use pageless_block::{BlockDevice, Limits, Linear, NullDevice};
/// use pageless_pfn::ByteLen;
/// let disk = |bytes| NullDevice::new(Limits::new(ByteLen::new(bytes)));
/// let both = Linear::try_new([disk(1 << 30), disk(3 << 30)])?;
/// assert_eq!(both.limits().capacity.get(), 4 << 30);
/// assert_eq!(both.limits().chunk, Some(ByteLen::new(1 << 30)));
/// let odd = Linear::try_new([disk((1 << 30) + 512), disk(1 << 30)])?;
/// assert_eq!(odd.limits().chunk, None);
/// # Ok::<(), pageless_block::LinearError>(())
/// ```
#[derive(Debug)]
pub struct Linear<D> {
    members: Members<D>,
    ends: Ends,
    limits: Limits,
}

/// Where each member ends, in the whole: ascending.
#[derive(Debug)]
struct Ends(Box<[u64]>);

impl Ends {
    fn start_of(&self, member: usize) -> u64 {
        match member.checked_sub(1) {
            Some(before) => self.0[before],
            None => 0,
        }
    }
}

impl Layout for Ends {
    #[inline]
    fn place(&self, at: BytePos) -> Option<Place> {
        let at = at.get();
        let member = self.0.partition_point(|&end| end <= at);
        let end = *self.0.get(member)?;
        Some(Place {
            member,
            position: BytePos::new(at - self.start_of(member)),
            left: end - at,
        })
    }

    fn origin(&self, member: usize, at: BytePos) -> BytePos {
        BytePos::new(self.start_of(member).saturating_add(at.get()))
    }
}

impl<D: BlockDevice> Linear<D> {
    /// These devices, in this order.
    ///
    /// # Errors
    /// [`LinearError`] if there are none, or if they make no device together.
    pub fn try_new(devices: impl IntoIterator<Item = D>) -> Result<Self, LinearError> {
        let devices: Vec<D> = devices.into_iter().collect();
        let below: Vec<Limits> = devices.iter().map(|device| device.limits()).collect();
        let mut ends = Vec::with_capacity(devices.len());
        let mut end = ByteLen::ZERO;
        for limits in &below {
            end = match end.checked_add(limits.capacity) {
                Some(end) => end,
                None => return Err(LinearError::TooLong),
            };
            ends.push(end.get());
        }
        let limits = limits_of(&below, &ends, end)?;
        Ok(Self {
            members: Members::new(devices.into_boxed_slice()),
            ends: Ends(ends.into_boxed_slice()),
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

fn limits_of(below: &[Limits], ends: &[u64], capacity: ByteLen) -> Result<Limits, LinearError> {
    let Some((last, others)) = ends.split_last() else {
        return Err(LinearError::NoMembers);
    };
    let block = below.iter().map(|limits| limits.logical_block).max();
    let block = block.unwrap_or(ByteLen::ZERO);
    for (member, (end, limits)) in ends.iter().zip(below).enumerate() {
        let zone = limits.zones.map_or(block, |zones| zones.size.max(block));
        // What lies behind the last one begins nowhere.
        let unit = if end == last { block } else { zone };
        if !end.is_multiple_of(unit.get()) || limits.capacity.is_zero() {
            let len = limits.capacity;
            return Err(LinearError::Member { member, len, unit });
        }
    }
    let regular = others.iter().fold(0, |a, &b| common(a, b));
    let power = regular & regular.wrapping_neg();
    let of_a_member = |limits: &Limits| {
        // Memory that must be aligned more coarsely than blocks cannot be cut just anywhere.
        limits.chunk.is_some() || limits.dma_alignment > block
    };
    let chunk = if power >= WORTH_A_CHUNK {
        Some(power)
    } else {
        (regular != 0 && below.iter().any(of_a_member)).then_some(regular)
    };
    let mut whole: Option<Limits> = None;
    for limits in below {
        let mut limits = *limits;
        if let Some(chunk) = chunk {
            let finer = limits.chunk.map_or(0, ByteLen::get);
            limits.chunk = Some(ByteLen::new(common(chunk, finer)));
        } else if regular != 0 {
            // The driver cuts anywhere.
            limits.atomic = None;
        }
        let start = BytePos::new(0);
        whole = Some(match whole {
            None => Limits::over(capacity, &limits, start)?,
            Some(whole) => whole.stack(&limits, start)?,
        });
    }
    whole.ok_or(LinearError::NoMembers)
}

/// The greatest number that both are multiples of; the other if one is 0.
pub(super) const fn common(mut a: u64, mut b: u64) -> u64 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

impl<D: BlockDevice> BlockDevice for Linear<D> {
    fn limits(&self) -> Limits {
        self.limits
    }

    #[inline]
    fn submit(&self, request: Request) -> Submitted {
        self.members.submit(&self.ends, request)
    }

    fn poll(&self, queue: QueueId, done: &mut dyn FnMut(Done)) {
        self.members.poll(&self.ends, queue, done);
    }

    fn abort(&self, queue: QueueId, tag: Tag) -> Abort {
        self.members.abort(queue, tag)
    }

    fn expect(&self, op: Op, position: BytePos) {
        self.members.expect(&self.ends, op, position);
    }
}

/// Why devices cannot be put one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum LinearError {
    /// At least one is needed.
    #[error("no devices")]
    NoMembers,
    /// Leave it out, or make a partition of it that is a multiple of `unit` long.
    #[error(
        "device {member} has {len}: must be more than nothing, and end at a multiple of {unit}"
    )]
    Member {
        /// Which one, counted from 0.
        member: usize,
        /// Its capacity.
        len: ByteLen,
        /// What it must be a multiple of: the coarsest logical block, or a zone.
        unit: ByteLen,
    },
    /// More than 2^64 bytes.
    #[error("more than 2^64 bytes together")]
    TooLong,
    /// Their limits do not go together.
    #[error(transparent)]
    Limits(#[from] StackError),
}
