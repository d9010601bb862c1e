//! How a bio can fail.

use pageless_pfn::ByteLen;
use thiserror::Error;

/// The ways in which a bio fails, numbered as in Linux (`BLK_STS_*`); success is `Ok(())`, there
/// as here number 0.
///
/// ```
/// use pageless_block::BlkError;
/// assert_eq!((BlkError::Io.code(), BlkError::Io.errno()), (10, 5));
/// assert_eq!(BlkError::Medium.errno(), 61);
/// assert!(!BlkError::Medium.is_path_error());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Error)]
#[repr(u8)]
pub enum BlkError {
    /// The device does not do this. `EOPNOTSUPP`
    #[error("operation not supported by the device")]
    NotSupported = 1,
    /// No answer in time. `ETIMEDOUT`
    #[error("timed out")]
    Timeout = 2,
    /// No space left on a thinly provisioned device. `ENOSPC`
    #[error("no space left on the device")]
    NoSpace = 3,
    /// A recoverable failure on the way to the device. `ENOLINK`
    #[error("transport failed, recoverable")]
    Transport = 4,
    /// The target failed for good. `EREMOTEIO`
    #[error("target failed")]
    Target = 5,
    /// Somebody else holds a reservation. `EBADE`
    #[error("reservation conflict")]
    ReservationConflict = 6,
    /// The medium cannot give or take the bytes. `ENODATA`
    #[error("medium error")]
    Medium = 7,
    /// Integrity metadata does not match. `EILSEQ`
    #[error("protection information does not match")]
    Protection = 8,
    /// A resource is short: try again later. `ENOMEM`
    #[error("a resource is short for the moment")]
    Resource = 9,
    /// Any other failure, and everything past the end of the device. `EIO`
    #[error("I/O error")]
    Io = 10,
    /// A stacked device asks for the bio again. `EREMCHG`
    #[error("to be queued again")]
    Requeue = 11,
    /// Would have to wait, and must not. `EAGAIN`
    #[error("would block")]
    Again = 12,
    /// A resource of the device is short. `EBUSY`
    #[error("a resource of the device is short for the moment")]
    DeviceResource = 13,
    /// Too many open zones. `ETOOMANYREFS`
    #[error("too many open zones")]
    ZoneOpenResource = 14,
    /// Too many active zones. `EOVERFLOW`
    #[error("too many active zones")]
    ZoneActiveResource = 15,
    /// The device has gone. `ENODEV`
    #[error("device is offline")]
    Offline = 16,
    /// A limit on the duration has passed. `ETIME`
    #[error("duration limit exceeded")]
    DurationLimit = 17,
    /// The bio does not fit the device, say by its alignment. `EINVAL`
    #[error("invalid for this device")]
    Invalid = 19,
}

impl BlkError {
    /// Every way to fail.
    pub const ALL: [Self; 18] = [
        Self::NotSupported,
        Self::Timeout,
        Self::NoSpace,
        Self::Transport,
        Self::Target,
        Self::ReservationConflict,
        Self::Medium,
        Self::Protection,
        Self::Resource,
        Self::Io,
        Self::Requeue,
        Self::Again,
        Self::DeviceResource,
        Self::ZoneOpenResource,
        Self::ZoneActiveResource,
        Self::Offline,
        Self::DurationLimit,
        Self::Invalid,
    ];

    /// Linux's status number.
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// Linux's errno on x86-64, positive.
    pub const fn errno(self) -> i32 {
        match self {
            Self::NotSupported => 95,
            Self::Timeout => 110,
            Self::NoSpace => 28,
            Self::Transport => 67,
            Self::Target => 121,
            Self::ReservationConflict => 52,
            Self::Medium => 61,
            Self::Protection => 84,
            Self::Resource => 12,
            Self::Io => 5,
            Self::Requeue => 78,
            Self::Again => 11,
            Self::DeviceResource => 16,
            Self::ZoneOpenResource => 109,
            Self::ZoneActiveResource => 75,
            Self::Offline => 19,
            Self::DurationLimit => 62,
            Self::Invalid => 22,
        }
    }

    /// Whether another path to the same device might do better.
    pub const fn is_path_error(self) -> bool {
        !matches!(
            self,
            Self::NotSupported
                | Self::NoSpace
                | Self::Target
                | Self::ReservationConflict
                | Self::Medium
                | Self::Protection
        )
    }
}

/// How a request failed, and what of it is done all the same.
///
/// ```
/// use pageless_block::{BlkError, Failure};
/// use pageless_pfn::ByteLen;
/// let nothing: Failure = BlkError::NotSupported.into();
/// assert!(nothing.done.is_zero());
/// let some = Failure { error: BlkError::Medium, done: ByteLen::new(512) };
/// assert_eq!(some.to_string(), "medium error after 512 bytes");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("{error} after {done}")]
pub struct Failure {
    /// The status.
    pub error: BlkError,
    /// Bytes from the start on that are done. Of those after them nothing is known.
    pub done: ByteLen,
}

impl From<BlkError> for Failure {
    #[inline]
    fn from(error: BlkError) -> Self {
        Self {
            error,
            done: ByteLen::ZERO,
        }
    }
}
