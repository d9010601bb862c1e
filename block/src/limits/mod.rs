//! What a device can do, and in what portions.

pub(crate) mod merge;
#[cfg(test)]
mod model;
pub(crate) mod segments;
pub(crate) mod split;
pub(crate) mod stack;

use bitflags::bitflags;
use pageless_pfn::ByteLen;
use thiserror::Error;

use crate::position::SECTOR_SIZE;

bitflags! {
    /// What a device can do beyond reading and writing. The bits of Linux's `BLK_FEAT_*`
    /// (include/linux/blkdev.h), and from bit 24 on ours.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
    pub struct Features: u32 {
        /// A volatile write cache: what is written is durable after a flush.
        const WRITE_CACHE = 1 << 0;
        /// Writes that bypass the volatile cache.
        const FUA = 1 << 1;
        /// Seeking costs.
        const ROTATIONAL = 1 << 2;
        /// Its timing is worth something as a source of randomness.
        const ADD_RANDOM = 1 << 3;
        /// Keeps statistics.
        const IO_STAT = 1 << 4;
        /// Memory must not change while it is written.
        const STABLE_WRITES = 1 << 5;
        /// Completes in the call that submits.
        const SYNCHRONOUS = 1 << 6;
        /// Never waits where a bio says not to.
        const NOWAIT = 1 << 7;
        /// Its bytes can be reached by frame number, without I/O.
        const DAX = 1 << 8;
        /// Completions can be polled for.
        const POLL = 1 << 9;
        /// Has zones.
        const ZONED = 1 << 10;
        /// Takes memory of other PCI devices.
        const PCI_P2PDMA = 1 << 12;
        /// Takes frames that have no descriptor and never will.
        const PAGELESS = 1 << 24;
        /// Nothing that changes it is let through.
        const READ_ONLY = 1 << 25;
    }
}

/// The zones of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ZoneLimits {
    /// Bytes from the start of one zone to that of the next: a power of two.
    pub size: ByteLen,
    /// The longest append; zero if the device has none.
    pub max_append: ByteLen,
    /// How many zones may be open at a time; 0 for no limit.
    pub max_open: u32,
    /// How many zones may be open or closed at a time; 0 for no limit.
    pub max_active: u32,
}

/// Writes that happen as a whole or not at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AtomicLimits {
    /// The shortest; a power of two.
    pub unit_min: ByteLen,
    /// The longest; a power of two. An atomic write is a power of two long and aligned to its length.
    pub unit_max: ByteLen,
    /// Places that no atomic write may straddle: multiples of this power of two.
    pub boundary: Option<ByteLen>,
}

/// A device's capacity, features and limits (`struct queue_limits`).
///
/// Bios that are too long, have too many segments or straddle what they must not are split, so that a
/// driver sees only requests within its limits. [`Limits::new`] has none, and accepts frames without
/// descriptors. Change fields, then have [`Limits::validate`] look at them; a queue does so too.
///
/// ```
/// use pageless_block::{Features, Limits};
/// use pageless_pfn::ByteLen;
/// let mut limits = Limits::new(ByteLen::new(6 << 40));
/// limits.set_logical_block(ByteLen::new(4096));
/// limits.max_request = ByteLen::new(1 << 20);
/// limits.features |= Features::WRITE_CACHE | Features::FUA;
/// limits.validate()?;
/// limits.max_request = ByteLen::new(512);
/// assert!(limits.validate().is_err());
/// # Ok::<(), pageless_block::LimitError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Its size.
    pub capacity: ByteLen,
    /// What positions and lengths must be multiples of: a power of two, at least a sector.
    pub logical_block: ByteLen,
    /// What it writes without reading first; at least a logical block.
    pub physical_block: ByteLen,
    /// The shortest I/O that makes sense; a hint.
    pub io_min: ByteLen,
    /// The best length of an I/O; zero if there is none. A hint.
    pub io_opt: ByteLen,
    /// The longest read or write.
    pub max_request: ByteLen,
    /// The most segments of a read or write.
    pub max_segments: u32,
    /// The longest segment.
    pub max_segment: ByteLen,
    /// Physical addresses that no segment may straddle: multiples of this power of two.
    pub segment_boundary: Option<ByteLen>,
    /// All segments but the first begin, and all but the last end, at a multiple of this power of two.
    pub virt_boundary: Option<ByteLen>,
    /// Positions that no request may straddle: multiples of this.
    pub chunk: Option<ByteLen>,
    /// What each segment's address and length must be multiples of; a power of two.
    pub dma_alignment: ByteLen,
    /// The longest discard; zero if the device has none.
    pub max_discard: ByteLen,
    /// Discards are worth while in multiples of this; pieces of one that is split end there.
    pub discard_granularity: ByteLen,
    /// The longest secure erase; zero if the device has none.
    pub max_secure_erase: ByteLen,
    /// The longest write-zeroes; zero if the device has none.
    pub max_write_zeroes: ByteLen,
    /// Its zones, if it has [`Features::ZONED`].
    pub zones: Option<ZoneLimits>,
    /// Its atomic writes, if it has any.
    pub atomic: Option<AtomicLimits>,
    /// What it can do.
    pub features: Features,
}

/// The longest length that is a whole number of sectors.
const UNLIMITED: ByteLen = ByteLen::new(u64::MAX - u64::MAX % SECTOR_SIZE);

impl Limits {
    /// A device of this size without limits: logical blocks of a sector, any length, any number of
    /// segments, frames without descriptors welcome; and without discard, secure erase,
    /// write-zeroes, zones, atomic writes and a volatile cache.
    pub const fn new(capacity: ByteLen) -> Self {
        Self {
            capacity,
            logical_block: ByteLen::new(SECTOR_SIZE),
            physical_block: ByteLen::new(SECTOR_SIZE),
            io_min: ByteLen::new(SECTOR_SIZE),
            io_opt: ByteLen::ZERO,
            max_request: UNLIMITED,
            max_segments: u32::MAX,
            max_segment: ByteLen::new(u64::MAX),
            segment_boundary: None,
            virt_boundary: None,
            chunk: None,
            dma_alignment: ByteLen::new(1),
            max_discard: ByteLen::ZERO,
            discard_granularity: ByteLen::new(SECTOR_SIZE),
            max_secure_erase: ByteLen::ZERO,
            max_write_zeroes: ByteLen::ZERO,
            zones: None,
            atomic: None,
            features: Features::PAGELESS,
        }
    }

    /// Sets the logical block, and raises what must not be shorter.
    pub fn set_logical_block(&mut self, len: ByteLen) {
        self.logical_block = len;
        self.physical_block = self.physical_block.max(len);
        self.io_min = self.io_min.max(len);
        self.discard_granularity = self.discard_granularity.max(len);
    }

    /// A length without limit, for `max_discard` and the like.
    pub const UNLIMITED: ByteLen = UNLIMITED;

    /// Whether frames without descriptors are welcome.
    #[inline]
    pub const fn accepts_pageless(&self) -> bool {
        self.features.contains(Features::PAGELESS)
    }

    /// Looks whether the limits go together.
    ///
    /// # Errors
    /// [`LimitError`] names the first that does not.
    pub fn validate(&self) -> Result<(), LimitError> {
        let block = self.logical_block.get();
        let power = |what, len: ByteLen| match len.get().is_power_of_two() {
            true => Ok(()),
            false => Err(LimitError::PowerOfTwo { what, len }),
        };
        let blocks =
            |what, len: ByteLen| match len.get() >= block && len.get().is_multiple_of(block) {
                true => Ok(()),
                false => Err(LimitError::Blocks {
                    what,
                    len,
                    logical_block: self.logical_block,
                }),
            };
        power("logical_block", self.logical_block)?;
        if block < SECTOR_SIZE {
            return Err(LimitError::LogicalBlock {
                len: self.logical_block,
            });
        }
        power("physical_block", self.physical_block)?;
        blocks("physical_block", self.physical_block)?;
        power("dma_alignment", self.dma_alignment)?;
        if self.max_request.get() < block {
            return Err(LimitError::MaxRequest {
                len: self.max_request,
                logical_block: self.logical_block,
            });
        }
        if self.max_segments == 0 {
            return Err(LimitError::NoSegments);
        }
        // A segment must have room for a logical block, or a split could make no progress.
        for (what, len) in [
            ("max_segment", Some(self.max_segment)),
            ("segment_boundary", self.segment_boundary),
        ] {
            if let Some(len) = len
                && len.get() < block
            {
                return Err(LimitError::Segment {
                    what,
                    len,
                    logical_block: self.logical_block,
                });
            }
        }
        for (what, len) in [
            ("segment_boundary", self.segment_boundary),
            ("virt_boundary", self.virt_boundary),
        ] {
            if let Some(len) = len {
                power(what, len)?;
            }
        }
        for (what, len) in [
            ("max_request", Some(self.max_request)),
            ("max_segment", Some(self.max_segment)),
            ("segment_boundary", self.segment_boundary),
        ] {
            if let Some(len) = len
                && len < self.dma_alignment
            {
                return Err(LimitError::DmaAlignment {
                    what,
                    len,
                    dma_alignment: self.dma_alignment,
                });
            }
        }
        if let Some(chunk) = self.chunk {
            blocks("chunk", chunk)?;
        }
        power("discard_granularity", self.discard_granularity)?;
        blocks("discard_granularity", self.discard_granularity)?;
        for (what, len) in [
            ("max_discard", self.max_discard),
            ("max_secure_erase", self.max_secure_erase),
            ("max_write_zeroes", self.max_write_zeroes),
        ] {
            if !len.is_zero() && len.get() < block {
                return Err(LimitError::Blocks {
                    what,
                    len,
                    logical_block: self.logical_block,
                });
            }
        }
        if self.zones.is_some() != self.features.contains(Features::ZONED) {
            return Err(LimitError::ZonesWithoutFeature);
        }
        if let Some(zones) = &self.zones {
            power("zones.size", zones.size)?;
            blocks("zones.size", zones.size)?;
        }
        if let Some(atomic) = &self.atomic {
            power("atomic.unit_min", atomic.unit_min)?;
            power("atomic.unit_max", atomic.unit_max)?;
            blocks("atomic.unit_min", atomic.unit_min)?;
            if atomic.unit_max < atomic.unit_min || atomic.unit_max > self.max_request {
                return Err(LimitError::AtomicUnits {
                    min: atomic.unit_min,
                    max: atomic.unit_max,
                    max_request: self.max_request,
                });
            }
            if let Some(boundary) = atomic.boundary {
                power("atomic.boundary", boundary)?;
            }
        }
        Ok(())
    }
}

/// Limits that make no sense, or not together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum LimitError {
    /// Must be a power of two.
    #[error("{what} is {len}: must be a power of two")]
    PowerOfTwo {
        /// Which limit.
        what: &'static str,
        /// What it is.
        len: ByteLen,
    },
    /// A logical block of less than a sector.
    #[error("a logical block of {len}: must be at least a sector of {SECTOR_SIZE} bytes")]
    LogicalBlock {
        /// What it is.
        len: ByteLen,
    },
    /// Must be a whole number of logical blocks, and at least one.
    #[error("{what} is {len}: must be a multiple of the logical block of {logical_block}")]
    Blocks {
        /// Which limit.
        what: &'static str,
        /// What it is.
        len: ByteLen,
        /// The device's logical block.
        logical_block: ByteLen,
    },
    /// Requests that hold no logical block.
    #[error("requests of at most {len} hold no logical block of {logical_block}")]
    MaxRequest {
        /// What it is.
        len: ByteLen,
        /// The device's logical block.
        logical_block: ByteLen,
    },
    /// Requests without segments carry no data.
    #[error("max_segments is 0")]
    NoSegments,
    /// Segments that hold no logical block.
    #[error("{what} is {len}: a segment must have room for a logical block of {logical_block}")]
    Segment {
        /// Which limit.
        what: &'static str,
        /// What it is.
        len: ByteLen,
        /// The device's logical block.
        logical_block: ByteLen,
    },
    /// No segment of this length is aligned.
    #[error("{what} is {len}: too short for memory that must be aligned to {dma_alignment}")]
    DmaAlignment {
        /// Which limit.
        what: &'static str,
        /// What it is.
        len: ByteLen,
        /// The device's alignment.
        dma_alignment: ByteLen,
    },
    /// Zones and the feature that announces them come together or not at all.
    #[error("zones without the feature ZONED, or the feature without zones")]
    ZonesWithoutFeature,
    /// Atomic units out of order, or longer than a request.
    #[error(
        "atomic writes of {min} to {max}: must be in order and at most a request of {max_request}"
    )]
    AtomicUnits {
        /// The shortest.
        min: ByteLen,
        /// The longest.
        max: ByteLen,
        /// The longest request.
        max_request: ByteLen,
    },
}
