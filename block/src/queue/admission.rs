//! Whether a bio is legal, on any device and on this one: the rules of `submit_bio_noacct`.

use pageless_pfn::ByteLen;
use thiserror::Error;

use crate::bio::Inner;
use crate::flags::BioFlags;
use crate::limits::{Features, Limits};
use crate::op::Op;
use crate::position::{SECTOR_SIZE, Sector};
use crate::status::BlkError;

/// Why a bio was not taken in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum RejectReason {
    /// As many bios are in flight as the queue holds: reap one first.
    #[error("all {depth} places of the queue are taken")]
    QueueFull {
        /// The queue's depth.
        depth: u16,
    },
    /// The queue is frozen: try again when it no longer is.
    #[error("the queue is frozen")]
    Frozen,
    /// There is no memory for a request.
    #[error("no memory for a request")]
    NoMemory,
    /// Only a flush and what manages zones are about no bytes.
    #[error("{op} of no bytes")]
    NoBytes {
        /// The operation.
        op: Op,
    },
    /// Segments where no bytes move, or a length where there is no range.
    #[error("{op} does not take {len} in {segments} segments")]
    UnexpectedData {
        /// The operation.
        op: Op,
        /// How many bytes.
        len: ByteLen,
        /// How many segments.
        segments: usize,
    },
    /// Data or a range must be whole sectors, whatever its segments are cut into.
    #[error("{len} are not a whole number of sectors of {SECTOR_SIZE} bytes")]
    PartialSector {
        /// How many bytes.
        len: ByteLen,
    },
    /// Position and length do not fit in 64 bits of bytes.
    #[error("{len} at {sector} reach past 2^64 bytes")]
    PastAddressSpace {
        /// Where it begins.
        sector: Sector,
        /// How many bytes.
        len: ByteLen,
    },
}

/// What becomes of a bio that makes sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It goes on, with these flags.
    Admitted(BioFlags),
    /// It is over before it began: there is nothing to do.
    Over,
    /// It fails.
    Refused(BlkError),
}

/// What nearly every bio is, in a few compares: a read or write of whole blocks within the device, without
/// flags that have rules. Made once from a device's limits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Usual {
    /// The device's size in bytes; 0 if nothing is usual there.
    capacity: u64,
    /// The bits of positions and lengths that must be 0.
    partial: u64,
}

impl Usual {
    pub(crate) fn new(limits: &Limits) -> Self {
        let plain = limits.accepts_pageless() && !limits.features.contains(Features::READ_ONLY);
        Self {
            capacity: if plain { limits.capacity.get() } else { 0 },
            partial: limits.logical_block.get() - 1,
        }
    }

    /// Whether [`well_formed`] and [`admit`] have nothing to say to it. (That it has memory is seen where it is
    /// cut.)
    #[inline]
    pub(crate) fn admits(&self, bio: &Inner) -> bool {
        let sector = bio.sector.get();
        if sector >= self.capacity / SECTOR_SIZE || bio.op.code() > 1 {
            return false;
        }
        // Neither wraps: the sector is on the device. A length of 0 becomes the greatest of all.
        let start = sector * SECTOR_SIZE;
        bio.len.wrapping_sub(1) < self.capacity - start
            && (start | bio.len) & self.partial == 0
            && !bio.flags.intersects(LOOKED_AT)
            && !bio.segments.is_empty()
    }
}

/// Whether `bio` makes sense on any device at all.
pub(crate) fn well_formed(bio: &Inner) -> Result<(), RejectReason> {
    let (op, sector) = (bio.op, bio.sector);
    let (len, segments) = (ByteLen::new(bio.len), bio.segments.len());
    if (segments != 0 && !op.carries_data()) || (!len.is_zero() && !op.has_range()) {
        return Err(RejectReason::UnexpectedData { op, len, segments });
    }
    if len.is_zero() && op.has_range() && !is_flush(bio) {
        return Err(RejectReason::NoBytes { op });
    }
    if segments == 0 && op.carries_data() && !len.is_zero() {
        return Err(RejectReason::UnexpectedData { op, len, segments });
    }
    if !len.get().is_multiple_of(SECTOR_SIZE) {
        return Err(RejectReason::PartialSector { len });
    }
    match sector.position().and_then(|start| start.checked_add(len)) {
        Some(_) => Ok(()),
        None => Err(RejectReason::PastAddressSpace { sector, len }),
    }
}

/// Whether it is a flush as bios express it: nothing, with PREFLUSH. (Where PREFLUSH is illegal the device's
/// rules say so.)
fn is_flush(bio: &Inner) -> bool {
    bio.len == 0 && bio.flags.contains(BioFlags::PREFLUSH)
}

/// What this device has to say to a well-formed bio.
pub(crate) fn admit(limits: &Limits, bio: &Inner) -> Verdict {
    use Verdict::{Admitted, Over, Refused};

    // Well-formed: neither this product nor the sum overflows.
    let start = bio.sector.get().wrapping_mul(SECTOR_SIZE);
    let inside = bio.len <= limits.capacity.get() && start <= limits.capacity.get() - bio.len;
    let aligned = (start | bio.len) & (limits.logical_block.get() - 1) == 0;
    let pageless = limits.accepts_pageless() || has_descriptors(bio);
    let (op, mut flags, features) = (bio.op, bio.flags, limits.features);
    if flags.contains(BioFlags::NOWAIT) && !features.contains(Features::NOWAIT) {
        return Refused(BlkError::NotSupported);
    }
    // A zone's sector is a place as well; that of a flush or of a reset of all zones means nothing.
    let at_zone = (op.manages_zones() && op != Op::ZoneResetAll) || op == Op::ZoneAppend;
    let placeless = bio.len == 0 && !at_zone;
    let start = bio.sector.get().saturating_mul(SECTOR_SIZE);
    if (!inside && !placeless) || (at_zone && start >= limits.capacity.get()) {
        return Refused(BlkError::Io);
    }
    if features.contains(Features::READ_ONLY) && op.is_write() && !is_flush(bio) {
        // Linux warns once and lets it through.
        return Refused(BlkError::Io);
    }
    if flags.intersects(BioFlags::FLUSHES) {
        if !matches!(op, Op::Write | Op::ZoneAppend) {
            return Refused(BlkError::Io);
        }
        if !features.contains(Features::WRITE_CACHE) {
            flags -= BioFlags::FLUSHES;
            if bio.len == 0 {
                return Over;
            }
        }
    }
    let supported = match op {
        Op::Read | Op::Write => true,
        Op::Discard => !limits.max_discard.is_zero(),
        Op::SecureErase => !limits.max_secure_erase.is_zero(),
        Op::WriteZeroes => !limits.max_write_zeroes.is_zero(),
        Op::ZoneAppend => limits
            .zones
            .is_some_and(|zones| !zones.max_append.is_zero()),
        Op::ZoneOpen | Op::ZoneClose | Op::ZoneFinish | Op::ZoneReset | Op::ZoneResetAll => {
            limits.zones.is_some()
        }
        Op::Flush | Op::DriverIn | Op::DriverOut => false,
    };
    if !supported || !pageless {
        return Refused(BlkError::NotSupported);
    }
    if !aligned && op.has_range() && !placeless {
        return Refused(BlkError::Invalid);
    }
    if let (Some(zones), true) = (&limits.zones, at_zone)
        && !start.is_multiple_of(zones.size.get())
    {
        return Refused(BlkError::Io);
    }
    if flags.contains(BioFlags::ATOMIC)
        && let Err(error) = atomic(limits, bio)
    {
        return Refused(error);
    }
    if !features.contains(Features::POLL) {
        flags -= BioFlags::POLLED;
    }
    Admitted(flags)
}

/// The rules of an atomic write: a power of two long, aligned to its length, within the units, and not
/// across a boundary.
fn atomic(limits: &Limits, bio: &Inner) -> Result<(), BlkError> {
    let Some(atomic) = &limits.atomic else {
        // Linux has units of zero then, which every length exceeds.
        return Err(BlkError::Invalid);
    };
    let (start, len) = (bio.sector.get().wrapping_mul(SECTOR_SIZE), bio.len);
    let units = atomic.unit_min.get()..=atomic.unit_max.get();
    if bio.op != Op::Write
        || !len.is_power_of_two()
        || !units.contains(&len)
        || !start.is_multiple_of(len)
        || atomic
            .boundary
            .is_some_and(|b| start / b.get() != (start + len - 1) / b.get())
    {
        return Err(BlkError::Invalid);
    }
    Ok(())
}

/// Flags that have rules.
const LOOKED_AT: BioFlags = BioFlags::FLUSHES
    .union(BioFlags::NOWAIT)
    .union(BioFlags::POLLED)
    .union(BioFlags::ATOMIC);

fn has_descriptors(bio: &Inner) -> bool {
    bio.segments.iter().all(|s| s.frame().paged().is_ok())
}
