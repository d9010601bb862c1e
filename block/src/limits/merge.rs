//! Whether two parts of a device's bytes can go to it as one request.
//!
//! What decides is arithmetic on frame numbers and a compare of flags. Linux looks into descriptors
//! here, for whether two frames of device memory belong to the same device; those that do not have
//! different flags or are not neighbours.

use core::iter::Copied;
use core::slice;

use pageless_pfn::{ByteLen, PhysSegment};

use super::Limits;
use super::segments::SegmentRules;
use super::split::{Chunks, Shape};
use crate::flags::BioFlags;
use crate::op::Op;
use crate::position::BytePos;
use crate::priority::Priority;

/// A request, or a bio that may become part of one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Part<I> {
    pub(crate) op: Op,
    pub(crate) flags: BioFlags,
    pub(crate) priority: Priority,
    pub(crate) position: BytePos,
    pub(crate) len: ByteLen,
    /// How many segments hardware sees of it, or an upper bound: see [`Limits::count`].
    pub(crate) count: u32,
    /// Its first segment and its last one; none without data.
    pub(crate) ends: Option<(PhysSegment, PhysSegment)>,
    /// All of them. Looked at only near the limits.
    pub(crate) segments: I,
}

impl<'a> Part<Copied<slice::Iter<'a, PhysSegment>>> {
    /// A part whose segments lie in one slice.
    pub(crate) fn new(limits: &Limits, shape: &Shape<'a>, priority: Priority) -> Self {
        let segments = shape.segments.iter().copied();
        let ends = match *shape.segments {
            [] => None,
            [only] => Some((only, only)),
            [first, .., last] => Some((first, last)),
        };
        Self {
            op: shape.op,
            flags: shape.flags,
            priority,
            position: shape.position,
            len: shape.len,
            count: limits.count(segments.clone()),
            ends,
            segments,
        }
    }
}

/// Whether an operation can share a request with its like.
///
/// An append's place is known only when it has completed, a flush has none, and write-zeroes is left
/// alone as in Linux (`rq_mergeable`).
#[inline]
pub(crate) const fn is_mergeable(op: Op, flags: BioFlags) -> bool {
    let alone = BioFlags::NEVER_MERGED.union(BioFlags::ATOMIC);
    matches!(op, Op::Read | Op::Write | Op::Discard | Op::SecureErase) && !flags.intersects(alone)
}

impl Limits {
    /// How many segments hardware sees of these.
    #[inline]
    pub(crate) fn count<I>(&self, segments: I) -> u32
    where
        I: Iterator<Item = PhysSegment>,
    {
        u32::try_from(SegmentRules::of(self).cut(segments).count()).unwrap_or(u32::MAX)
    }

    /// Whether `back`, which begins where `front` ends on the device, can go with it in one request,
    /// and how many segments hardware sees then, at most.
    ///
    /// Both are within the limits. `None` where both together would not be, or are too different: op,
    /// flags and priority must be equal, as all of a request is treated alike.
    ///
    /// An atomic write is never merged, although two of them might make a legal third: it would be
    /// torn where the device tears what is longer than one promises.
    #[inline]
    pub(crate) fn merged<F, B>(&self, front: &Part<F>, back: &Part<B>) -> Option<u32>
    where
        F: Iterator<Item = PhysSegment> + Clone,
        B: Iterator<Item = PhysSegment> + Clone,
    {
        let alike =
            front.op == back.op && front.flags == back.flags && front.priority == back.priority;
        if !alike || !is_mergeable(front.op, front.flags) {
            return None;
        }
        let len = front.len.checked_add(back.len)?;
        let max = match front.op {
            Op::Discard => self.max_discard,
            Op::SecureErase => self.max_secure_erase,
            _ => self.max_request,
        };
        if len > max || len.get() > Chunks::of(self, front.op).left(front.position) {
            return None;
        }
        let (Some((_, last)), Some((first, _))) = (front.ends, back.ends) else {
            return Some(0);
        };
        let rules = SegmentRules::of(self);
        let joined = last.try_merge(first).is_some();
        if !joined && rules.gap(last, first) {
            return None;
        }
        let count = front.count.checked_add(back.count)?;
        // Joined memory takes no more segments than both alone, unless they must end at certain places.
        if count <= self.max_segments && !(joined && rules.has_virt_boundary()) {
            return Some(count);
        }
        // And a bound may have been too high: what is refused has been counted.
        let both = front.segments.clone().chain(back.segments.clone());
        one_request(rules, both, self.max_segments)
    }
}

/// How many segments hardware sees of a request, if it can take it.
fn one_request<I>(rules: SegmentRules, segments: I, max: u32) -> Option<u32>
where
    I: Iterator<Item = PhysSegment>,
{
    let mut last: Option<PhysSegment> = None;
    let mut count = 0;
    for segment in rules.cut(segments) {
        if count == max || last.is_some_and(|last| rules.gap(last, segment)) {
            return None;
        }
        count += 1;
        last = Some(segment);
    }
    Some(count)
}

#[cfg(test)]
mod tests;
