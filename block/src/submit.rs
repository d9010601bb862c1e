//! What goes in and what comes out: completions, rejected bios, and the call that waits.

use core::fmt;

use pageless_pfn::ByteLen;
use thiserror::Error;

use crate::bio::Bio;
use crate::device::BlockDevice;
use crate::op::Op;
use crate::position::{SECTOR_SIZE, Sector};
use crate::request::{QueueId, Request, Tag};
use crate::status::BlkError;

/// A bio that has come back, and how it went.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "says whether the bio succeeded"]
pub struct Completion {
    /// The bio as it was submitted. Its frames are the caller's again.
    pub bio: Bio,
    /// How it went.
    pub result: Result<(), BlkError>,
    /// Bytes in the pieces that succeeded before the first failure. What happened to the piece
    /// that failed is unknown.
    pub done: ByteLen,
}

/// A bio that was not taken in. Nothing has happened; the bio is the caller's again.
#[derive(Clone, PartialEq, Eq)]
pub struct Rejected {
    /// The bio as it was submitted.
    pub bio: Bio,
    /// Why.
    pub reason: RejectReason,
}

impl fmt::Debug for Rejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rejected")
            .field("bio", &self.bio)
            .field("reason", &self.reason)
            .finish()
    }
}

impl fmt::Display for Rejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} was not taken in: {}", self.bio, self.reason)
    }
}

impl core::error::Error for Rejected {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        Some(&self.reason)
    }
}

/// Why a bio was not taken in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum RejectReason {
    /// As many bios are in flight as the queue holds: reap one first.
    #[error("all {depth} places of the queue are taken")]
    QueueFull {
        /// The queue's depth.
        depth: u16,
    },
    /// Only a flush is about no bytes.
    #[error("{op} of no bytes")]
    NoBytes {
        /// The operation.
        op: Op,
    },
    /// Segments where no bytes move, or a length on a flush.
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

/// Whether `bio` makes sense, on any device.
#[inline]
pub(crate) fn well_formed(bio: &Bio) -> Result<(), RejectReason> {
    let (op, len, sector) = (bio.op(), bio.len(), bio.sector());
    let segments = bio.segments().len();
    let takes_segments = op.carries_data();
    let takes_len = !matches!(op, Op::Flush);
    if (segments != 0 && !takes_segments) || (!len.is_zero() && !takes_len) {
        return Err(RejectReason::UnexpectedData { op, len, segments });
    }
    if len.is_zero() && takes_len {
        return Err(RejectReason::NoBytes { op });
    }
    if !len.get().is_multiple_of(SECTOR_SIZE) {
        return Err(RejectReason::PartialSector { len });
    }
    match sector.position().and_then(|start| start.checked_add(len)) {
        Some(_) => Ok(()),
        None => Err(RejectReason::PastAddressSpace { sector, len }),
    }
}

/// Carries `bio` out on `device` and returns when it is done, without a queue.
///
/// A bio longer than the device's limit goes there in pieces, in order; the first failure ends
/// it. Past the end of the device nothing is done and the completion says
/// [`BlkError::Io`].
///
/// # Errors
/// [`Rejected`] gives a bio back that makes no sense on any device.
///
/// ```
/// use pageless_block::{Bio, DeviceInfo, NullDevice, submit_sync};
/// use pageless_pfn::ByteLen;
/// let device = NullDevice::new(DeviceInfo::new(ByteLen::new(1 << 20)));
/// assert!(submit_sync(&device, Bio::flush()).unwrap().result.is_ok());
/// ```
pub fn submit_sync<D: BlockDevice + ?Sized>(device: &D, bio: Bio) -> Result<Completion, Rejected> {
    if let Err(reason) = well_formed(&bio) {
        return Err(Rejected { bio, reason });
    }
    let info = device.info();
    if let Err(error) = info.admit(&bio) {
        return Ok(Completion {
            bio,
            result: Err(error),
            done: ByteLen::ZERO,
        });
    }
    // No queue, no tags: the names say so in a message, should the driver panic.
    let mut request = Request::first(bio, QueueId::new(u16::MAX), Tag::new(0), info.piece());
    let result = loop {
        let result = device.execute(&request);
        if result.is_err() || !request.advance(info.piece()) {
            break result;
        }
    };
    let done = match result {
        Ok(()) => request.before() + request.len().get(),
        Err(_) => request.before(),
    };
    Ok(Completion {
        bio: request.settle(),
        result,
        done: ByteLen::new(done),
    })
}
