//! Where a bio must be cut so that its pieces are within a device's limits.
//!
//! A piece that fits stays fitting when bytes are taken off either end, in whole blocks. So taking as
//! much as fits each time makes as few pieces as there can be, and where not even one block fits no
//! other way of cutting would have helped.

use pageless_pfn::{ByteLen, PhysSegment};

use super::Limits;
use super::segments::SegmentRules;
use crate::flags::BioFlags;
use crate::op::Op;
use crate::position::BytePos;
use crate::status::BlkError;

/// What of a bio matters for where it is cut.
///
/// Admission has looked at it: position and length are whole logical blocks on the device, and the
/// segments, if the operation carries data, are `len` long together.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape<'a> {
    pub(crate) op: Op,
    pub(crate) flags: BioFlags,
    pub(crate) position: BytePos,
    pub(crate) len: ByteLen,
    pub(crate) segments: &'a [PhysSegment],
}

/// How much of a bio goes into one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    /// All of it.
    Fits,
    /// This much: more than nothing, less than all, and whole logical blocks. The rest is looked at
    /// again.
    After(ByteLen),
    /// None of it.
    Refused(BlkError),
}

/// [`Limits`], made ready for cutting. A queue makes one and keeps it.
#[derive(Clone, Debug)]
pub(crate) struct Cutter {
    /// By operation, read or write: one segment of at most this many bytes needs no more than the
    /// look at bits below. 0 where that would not do.
    plain: [u64; 2],
    /// By operation, read or write: the bits of a position that must be the same in all of a request;
    /// none where chunks do not matter.
    chunk_bits: [u64; 2],
    /// The bits of an address that must be the same in all of a segment.
    boundary_bits: u64,
    rules: SegmentRules,
    limits: Limits,
}

impl Cutter {
    /// For a device with these limits, which have been [validated](Limits::validate).
    pub(crate) fn new(limits: &Limits) -> Self {
        let rules = SegmentRules::of(limits);
        let plain = limits.max_request.get().min(limits.max_segment.get());
        let bits = |op| match Chunks::of(limits, op) {
            Chunks { size: None, .. } => Some(0),
            // The finer of two powers of two cuts at every multiple of the coarser.
            Chunks {
                size: Some(a),
                zone,
            } => {
                let finest = zone.map_or(a, |b| a.min(b));
                let powers = a.is_power_of_two() && zone.is_none_or(u64::is_power_of_two);
                powers.then_some(!(finest - 1))
            }
        };
        let (read, write) = (bits(Op::Read), bits(Op::Write));
        Self {
            plain: [read, write].map(|bits| bits.map_or(0, |_| plain)),
            chunk_bits: [read, write].map(Option::unwrap_or_default),
            boundary_bits: !rules.boundary_mask(),
            rules,
            limits: *limits,
        }
    }

    /// The limits it was made from.
    pub(crate) const fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Which part of a bio the device takes in one request.
    ///
    /// Memory that is not aligned as the device needs it is refused wherever in the bio it lies. A
    /// block in so many pieces that no request could hold it is found when its turn has come.
    #[inline]
    pub(crate) fn cut(&self, shape: &Shape<'_>) -> Cut {
        if self.fits_plainly(shape) {
            return Cut::Fits;
        }
        self.cut_with_care(shape)
    }

    /// Whether it is a read or write of one segment far from every limit: nearly always.
    #[inline]
    fn fits_plainly(&self, shape: &Shape<'_>) -> bool {
        let &[segment] = shape.segments else {
            return false;
        };
        let op = usize::from(shape.op.code());
        let Some(&plain) = self.plain.get(op) else {
            return false;
        };
        let in_the_way = self.bits_of_request(shape, op) | self.bits_of_segment(segment);
        shape.len.get() <= plain && in_the_way == 0
    }

    /// Whether it is a read or write of several segments, none of which has to be cut.
    fn fits_segment_by_segment(&self, shape: &Shape<'_>) -> bool {
        let op = usize::from(shape.op.code());
        if self.plain.get(op).is_none_or(|plain| *plain == 0)
            || shape.len > self.limits.max_request
            || shape.segments.len() > self.limits.max_segments as usize
            || self.rules.has_virt_boundary()
        {
            return false;
        }
        let max = self.limits.max_segment;
        // Neighbours count as one segment, which may be too long; but cut where they meet they are as
        // many as here.
        let short = shape.segments.iter().all(|one| one.len() <= max);
        let bits = shape
            .segments
            .iter()
            .fold(self.bits_of_request(shape, op), |bits, segment| {
                bits | self.bits_of_segment(*segment)
            });
        short && bits == 0
    }

    /// 0, unless the request is in a chunk's way, or atomic.
    #[inline]
    fn bits_of_request(&self, shape: &Shape<'_>, op: usize) -> u64 {
        let (len, position) = (shape.len.get(), shape.position.get());
        let chunk_bits = self.chunk_bits.get(op).copied().unwrap_or(u64::MAX);
        // Wraps only for what admission has refused, and then the bits differ or do not matter.
        let last = position.wrapping_add(len).wrapping_sub(1);
        (position ^ last) & chunk_bits | u64::from((shape.flags & BioFlags::ATOMIC).bits())
    }

    /// 0, unless the segment is misaligned or straddles a boundary.
    #[inline]
    fn bits_of_segment(&self, segment: PhysSegment) -> u64 {
        let (addr, last, len) = (
            segment.phys().get(),
            segment.last_phys().get(),
            segment.len().get(),
        );
        (addr | len) & self.rules.dma_mask() | (addr ^ last) & self.boundary_bits
    }

    #[inline(never)]
    fn cut_with_care(&self, shape: &Shape<'_>) -> Cut {
        if self.fits_segment_by_segment(shape) {
            return Cut::Fits;
        }
        self.cut_at_limits(shape)
    }

    fn cut_at_limits(&self, shape: &Shape<'_>) -> Cut {
        let fitting = match shape.op {
            Op::Read | Op::Write => self.data(shape, self.limits.max_request),
            Op::ZoneAppend => self.append(shape),
            Op::Discard => self.range(shape, self.limits.max_discard),
            Op::SecureErase => self.range(shape, self.limits.max_secure_erase),
            Op::WriteZeroes => self.range(shape, self.limits.max_write_zeroes),
            Op::Flush
            | Op::ZoneOpen
            | Op::ZoneClose
            | Op::ZoneFinish
            | Op::ZoneReset
            | Op::ZoneResetAll
            | Op::DriverIn
            | Op::DriverOut => return Cut::Fits,
        };
        let len = shape.len.get();
        match fitting {
            Err(error) => Cut::Refused(error),
            Ok(all) if all >= len => Cut::Fits,
            Ok(0) => Cut::Refused(BlkError::Invalid),
            Ok(_) if shape.flags.contains(BioFlags::ATOMIC) => Cut::Refused(BlkError::Invalid),
            Ok(_) if shape.flags.contains(BioFlags::NOWAIT) => Cut::Refused(BlkError::Again),
            Ok(some) => Cut::After(ByteLen::new(some)),
        }
    }

    /// How much of a bio with data fits, in bytes; 0 if not even a block does.
    fn data(&self, shape: &Shape<'_>, max: ByteLen) -> Result<u64, BlkError> {
        if shape.op == Op::Write && shape.flags.contains(BioFlags::ATOMIC) {
            self.atomic(shape)?;
        }
        self.aligned(shape.segments)?;
        let len = shape.len.get();
        let limit = len
            .min(max.get())
            .min(Chunks::of(&self.limits, shape.op).left(shape.position));
        let fitting = self.within_segments(shape.segments, limit);
        if fitting >= len {
            return Ok(len);
        }
        // Segments are aligned, so that a multiple of the alignment leaves both parts aligned.
        let grain = (self.limits.logical_block.get() - 1) | self.rules.dma_mask();
        Ok(fitting & !grain)
    }

    /// How many of the first `limit` bytes of memory fit into one request.
    fn within_segments(&self, segments: &[PhysSegment], limit: u64) -> u64 {
        let mut seen = self.rules.cut(segments.iter().copied());
        let mut last: Option<PhysSegment> = None;
        let (mut bytes, mut count, mut slack) = (0_u64, 0, 0);
        while let Some((segment, more)) = seen.next_with_slack() {
            let gap = last.is_some_and(|last| self.rules.gap(last, segment));
            if gap || count == self.limits.max_segments {
                return bytes.saturating_add(slack).min(limit);
            }
            bytes = bytes.saturating_add(segment.len().get());
            if bytes >= limit {
                return limit;
            }
            count += 1;
            (last, slack) = (Some(segment), more);
        }
        bytes
    }

    /// Whether the device can reach all of the memory.
    fn aligned(&self, segments: &[PhysSegment]) -> Result<(), BlkError> {
        // Neighbours may be aligned only together; that is looked at where one alone is not.
        if segments.iter().all(|one| self.rules.aligned(*one)) {
            return Ok(());
        }
        let mut runs = self.rules.cut(segments.iter().copied());
        while let Some(run) = runs.run() {
            if !self.rules.aligned(run) {
                return Err(BlkError::Invalid);
            }
        }
        Ok(())
    }

    /// An append must go as a whole: nobody knows where its second half would end up.
    fn append(&self, shape: &Shape<'_>) -> Result<u64, BlkError> {
        let Some(zones) = &self.limits.zones else {
            return Err(BlkError::NotSupported);
        };
        if zones.max_append.is_zero() {
            return Err(BlkError::NotSupported);
        }
        if shape.len > zones.max_append
            || self.data(shape, self.limits.max_request)? < shape.len.get()
        {
            return Err(BlkError::Invalid);
        }
        Ok(shape.len.get())
    }

    /// Whether the device can write it as a whole or not at all.
    fn atomic(&self, shape: &Shape<'_>) -> Result<(), BlkError> {
        let Some(atomic) = &self.limits.atomic else {
            return Err(BlkError::NotSupported);
        };
        let (position, len) = (shape.position.get(), shape.len.get());
        let straddles = |boundary: ByteLen| position % boundary.get() + len > boundary.get();
        if !len.is_power_of_two()
            || !position.is_multiple_of(len)
            || shape.len < atomic.unit_min
            || shape.len > atomic.unit_max
            || atomic.boundary.is_some_and(straddles)
        {
            return Err(BlkError::Invalid);
        }
        Ok(())
    }

    /// How much of a range without data fits, in bytes.
    fn range(&self, shape: &Shape<'_>, max: ByteLen) -> Result<u64, BlkError> {
        if max.is_zero() {
            return Err(BlkError::NotSupported);
        }
        let (position, len) = (shape.position.get(), shape.len.get());
        let block = self.limits.logical_block.get();
        let left = Chunks::of(&self.limits, shape.op).left(shape.position);
        // A chunk's end is whole blocks, and where the next piece begins in any case.
        let fitting = (max.get() - max.get() % block).min(left);
        if fitting >= len {
            return Ok(len);
        }
        let granularity = self.limits.discard_granularity.get();
        if shape.op == Op::Discard && fitting < left {
            // Half a granule is of use to nobody: end where one ends, if there is one.
            let over = (position % granularity + fitting % granularity) % granularity;
            if over < fitting {
                return Ok(fitting - over);
            }
        }
        Ok(fitting)
    }
}

/// The places on a device that a request may not straddle.
#[derive(Clone, Copy, Debug)]
pub(super) struct Chunks {
    /// Multiples of this. None if there are no zones either.
    size: Option<u64>,
    /// And of this, if there are two kinds.
    zone: Option<u64>,
}

impl Chunks {
    pub(super) fn of(limits: &Limits, op: Op) -> Self {
        let chunk = limits.chunk.map(ByteLen::get);
        // A read may go from one zone into the next.
        let zone = match &limits.zones {
            Some(zones) if op.is_write() => Some(zones.size.get()),
            _ => None,
        };
        Self {
            size: chunk.or(zone),
            zone: chunk.and(zone),
        }
    }

    /// Bytes from `position` to the end of its chunk; without chunks, as many as there can be.
    pub(super) fn left(self, position: BytePos) -> u64 {
        [self.size, self.zone]
            .into_iter()
            .flatten()
            .map(|size| size - position.get() % size)
            .min()
            .unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
impl Limits {
    /// Which part of a bio the device takes in one request.
    pub(crate) fn cut(&self, shape: &Shape<'_>) -> Cut {
        Cutter::new(self).cut(shape)
    }
}

#[cfg(test)]
mod tests;
