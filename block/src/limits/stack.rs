//! What a device promises that passes its requests on to others.

use pageless_pfn::ByteLen;
use thiserror::Error;

use super::{AtomicLimits, Features, LimitError, Limits, ZoneLimits};
use crate::position::BytePos;

/// What a device above has only if all below have it.
const IF_ALL: Features = Features::SYNCHRONOUS
    .union(Features::NOWAIT)
    .union(Features::DAX)
    .union(Features::POLL)
    .union(Features::PCI_P2PDMA)
    .union(Features::ADD_RANDOM)
    .union(Features::PAGELESS);

/// What a device above has if any below has it.
const IF_ANY: Features = Features::WRITE_CACHE
    .union(Features::ROTATIONAL)
    .union(Features::STABLE_WRITES)
    .union(Features::IO_STAT)
    .union(Features::READ_ONLY);

impl Limits {
    /// The limits of a device of `capacity` whose byte 0 is byte `start` of a device with the limits
    /// `below`: a partition, or the first part of something larger. More parts are added with
    /// [`Limits::stack`].
    ///
    /// A request within these limits is within those of the device below, `start` bytes further on. So
    /// it is passed on as it is, one to one.
    ///
    /// ```
    /// use pageless_block::{BytePos, Limits};
    /// use pageless_pfn::ByteLen;
    /// let mut disk = Limits::new(ByteLen::new(1 << 40));
    /// disk.chunk = Some(ByteLen::new(128 << 10));
    /// let part = Limits::over(ByteLen::new(1 << 30), &disk, BytePos::new(1 << 20))?;
    /// assert_eq!(part.chunk, disk.chunk);
    /// // Chunks below do not begin where they would above: only what they have in common remains.
    /// let odd = Limits::over(ByteLen::new(1 << 30), &disk, BytePos::new(63 * 512))?;
    /// assert_eq!(odd.chunk, Some(ByteLen::new(512)));
    /// # Ok::<(), pageless_block::StackError>(())
    /// ```
    ///
    /// # Errors
    /// [`StackError`] if no limits can promise that: `start` lies within a logical block or a zone.
    pub fn over(capacity: ByteLen, below: &Self, start: BytePos) -> Result<Self, StackError> {
        for (what, len) in [
            ("logical block", Some(below.logical_block)),
            ("zone", below.zones.map(|zones| zones.size)),
        ] {
            if let Some(len) = len
                && !start.get().is_multiple_of(len.get())
            {
                return Err(StackError::Misaligned { start, what, len });
            }
        }
        let mut limits = *below;
        limits.capacity = capacity;
        // A multiple of the common divisor above is one below, and every multiple below is met.
        limits.chunk = below.chunk.map(|chunk| common(chunk, start.get()));
        // A unit above is one below. Then no boundary is straddled either, wherever it lies above: a
        // unit is a power of two long, as a boundary is, and begins at a multiple of its length.
        limits.atomic = below.atomic.and_then(|atomic| {
            whole_atoms(AtomicLimits {
                unit_max: atomic.unit_max.min(alignment_of(start.get())),
                ..atomic
            })
        });
        limits.settle()
    }

    /// The limits of a device with a part that has these limits already and another one, from byte
    /// `start` of a device with the limits `below` on (`blk_stack_limits`). The capacity stays.
    ///
    /// Where a part begins *above* is not said and does not matter for as long as it is a multiple of
    /// the chunk, the zone and the atomic units that come out.
    ///
    /// Lengths are the shorter ones, alignments the coarser. What one lacks the whole lacks: discards,
    /// atomic writes, taking frames without descriptors, polling, not waiting. What one has the whole
    /// has: a volatile cache, slow seeks, being read-only. FUA is promised if each part either has it
    /// or has no volatile cache; without it, a flush after the write does the same.
    ///
    /// # Errors
    /// [`StackError`] if no limits can promise that requests pass down as they are.
    pub fn stack(&self, below: &Self, start: BytePos) -> Result<Self, StackError> {
        let other = Self::over(self.capacity, below, start)?;
        let durable = |limits: &Self| {
            !limits.features.contains(Features::WRITE_CACHE)
                || limits.features.contains(Features::FUA)
        };
        let mut features = (self.features & other.features & IF_ALL)
            | ((self.features | other.features) & IF_ANY)
            | (self.features & other.features & Features::ZONED);
        if durable(self)
            && durable(&other)
            && (self.features | other.features).contains(Features::FUA)
        {
            features |= Features::FUA;
        }
        let limits = Self {
            capacity: self.capacity,
            logical_block: self.logical_block.max(other.logical_block),
            physical_block: self.physical_block.max(other.physical_block),
            io_min: self.io_min.max(other.io_min),
            io_opt: best_for_both(self.io_opt, other.io_opt),
            max_request: self.max_request.min(other.max_request),
            max_segments: self.max_segments.min(other.max_segments),
            max_segment: self.max_segment.min(other.max_segment),
            segment_boundary: either(self.segment_boundary, other.segment_boundary, ByteLen::min),
            // Coarser is stricter: what is a multiple of the coarser is one of the finer.
            virt_boundary: either(self.virt_boundary, other.virt_boundary, ByteLen::max),
            chunk: either(self.chunk, other.chunk, |a, b| common(a, b.get())),
            dma_alignment: self.dma_alignment.max(other.dma_alignment),
            max_discard: self.max_discard.min(other.max_discard),
            discard_granularity: self.discard_granularity.max(other.discard_granularity),
            max_secure_erase: self.max_secure_erase.min(other.max_secure_erase),
            max_write_zeroes: self.max_write_zeroes.min(other.max_write_zeroes),
            zones: both_zones(self.zones, other.zones)?,
            atomic: match (self.atomic, other.atomic) {
                (Some(a), Some(b)) => whole_atoms(AtomicLimits {
                    unit_min: a.unit_min.max(b.unit_min),
                    unit_max: a.unit_max.min(b.unit_max),
                    boundary: either(a.boundary, b.boundary, ByteLen::min),
                }),
                _ => None,
            },
            features,
        };
        limits.settle()
    }

    /// Makes what follows from other limits do so, and looks whether they go together.
    fn settle(mut self) -> Result<Self, StackError> {
        let block = self.logical_block;
        // Coarser blocks may leave nothing of what one part could do.
        for max in [
            &mut self.max_discard,
            &mut self.max_secure_erase,
            &mut self.max_write_zeroes,
        ] {
            if *max < block {
                *max = ByteLen::ZERO;
            }
        }
        if !self.io_opt.get().is_multiple_of(self.physical_block.get()) {
            self.io_opt = ByteLen::ZERO;
        }
        // A unit that is a multiple of no chunk would be torn at one's end.
        let chunk = self.chunk.map_or(UNTORN, |chunk| alignment_of(chunk.get()));
        self.atomic = self.atomic.and_then(|atomic| {
            whole_atoms(AtomicLimits {
                unit_min: atomic.unit_min.max(block),
                unit_max: atomic
                    .unit_max
                    .min(chunk)
                    .min(power_below(self.max_request)),
                ..atomic
            })
        });
        self.validate().map_err(StackError::Limits)?;
        Ok(self)
    }
}

/// Longer than any atomic write.
const UNTORN: ByteLen = ByteLen::new(1 << 63);

/// The largest power of two that `bytes` is a multiple of.
const fn alignment_of(bytes: u64) -> ByteLen {
    match bytes {
        0 => UNTORN,
        _ => ByteLen::new(1 << bytes.trailing_zeros()),
    }
}

/// The largest power of two that is not longer, or nothing.
const fn power_below(len: ByteLen) -> ByteLen {
    match len.get() {
        0 => ByteLen::ZERO,
        bytes => ByteLen::new(1 << bytes.ilog2()),
    }
}

/// Those units, if there is one.
fn whole_atoms(atomic: AtomicLimits) -> Option<AtomicLimits> {
    (atomic.unit_min <= atomic.unit_max).then_some(atomic)
}

/// The greatest length that both are multiples of; `len` if the other is 0.
const fn common(len: ByteLen, other: u64) -> ByteLen {
    let (mut a, mut b) = (len.get(), other);
    while b != 0 {
        (a, b) = (b, a % b);
    }
    ByteLen::new(a)
}

/// The least length that is a multiple of both; the other if one has no preference; none if there is no
/// such length.
fn best_for_both(a: ByteLen, b: ByteLen) -> ByteLen {
    if a.is_zero() {
        return b;
    }
    if b.is_zero() {
        return a;
    }
    let parts = b.get() / common(a, b.get()).get();
    ByteLen::new(a.get().checked_mul(parts).unwrap_or(0))
}

/// Both by `combine`, or the one there is.
fn either<T>(a: Option<T>, b: Option<T>, combine: impl FnOnce(T, T) -> T) -> Option<T> {
    match (a, b) {
        (Some(a), Some(b)) => Some(combine(a, b)),
        (one, other) => one.or(other),
    }
}

fn both_zones(
    a: Option<ZoneLimits>,
    b: Option<ZoneLimits>,
) -> Result<Option<ZoneLimits>, StackError> {
    // 0 is no limit.
    let fewer = |a: u32, b: u32| if a == 0 || b == 0 { a.max(b) } else { a.min(b) };
    match (a, b) {
        (None, None) => Ok(None),
        (Some(a), Some(b)) if a.size == b.size => Ok(Some(ZoneLimits {
            size: a.size,
            max_append: a.max_append.min(b.max_append),
            max_open: fewer(a.max_open, b.max_open),
            max_active: fewer(a.max_active, b.max_active),
        })),
        (a, b) => Err(StackError::Zones {
            one: a.map_or(ByteLen::ZERO, |zones| zones.size),
            other: b.map_or(ByteLen::ZERO, |zones| zones.size),
        }),
    }
}

/// Why no device can be made of those.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum StackError {
    /// Begin at a multiple of `len`.
    #[error("{start} lies within a {what} of {len} of the device below")]
    Misaligned {
        /// Where the part begins on the device below.
        start: BytePos,
        /// What it begins in the middle of.
        what: &'static str,
        /// How long that is.
        len: ByteLen,
    },
    /// Zones of different sizes, or some with and some without: keep those apart.
    #[error("zones of {one} and {other} side by side (0 stands for none)")]
    Zones {
        /// The size in the parts so far; zero if they have none.
        one: ByteLen,
        /// The size in the other; zero if it has none.
        other: ByteLen,
    },
    /// The parts have nothing in common that would do.
    #[error("what the parts have in common makes no device: {0}")]
    Limits(#[source] LimitError),
}

#[cfg(test)]
mod tests;
