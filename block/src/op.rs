//! What a bio asks for.

use core::fmt;

use thiserror::Error;

/// The operation of a bio, numbered as in Linux (`REQ_OP_*`, include/linux/blk_types.h).
///
/// ```
/// use pageless_block::Op;
/// assert_eq!(Op::WriteZeroes.code(), 9);
/// assert_eq!(Op::try_from(1), Ok(Op::Write));
/// assert!(Op::try_from(4).is_err());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Op {
    /// Device to memory.
    Read = 0,
    /// Memory to device.
    Write = 1,
    /// What was completed before is to survive a loss of power.
    Flush = 2,
    /// The contents of a range are of no use any more.
    Discard = 3,
    /// The contents of a range are to be gone for good.
    SecureErase = 5,
    /// Memory to the end of a zone; the completion says where that was.
    ZoneAppend = 7,
    /// A range is to read as zeroes.
    WriteZeroes = 9,
    /// A zone is opened explicitly.
    ZoneOpen = 11,
    /// A zone is closed.
    ZoneClose = 13,
    /// A zone is filled: its write pointer goes to its end.
    ZoneFinish = 15,
    /// A zone is emptied: its write pointer goes to its start.
    ZoneReset = 17,
    /// Every zone that may be is emptied.
    ZoneResetAll = 19,
    /// A driver's own request, device to memory. Never legal as a bio.
    DriverIn = 34,
    /// A driver's own request, memory to device. Never legal as a bio.
    DriverOut = 35,
}

impl Op {
    /// Every operation, by number.
    pub const ALL: [Self; 14] = [
        Self::Read,
        Self::Write,
        Self::Flush,
        Self::Discard,
        Self::SecureErase,
        Self::ZoneAppend,
        Self::WriteZeroes,
        Self::ZoneOpen,
        Self::ZoneClose,
        Self::ZoneFinish,
        Self::ZoneReset,
        Self::ZoneResetAll,
        Self::DriverIn,
        Self::DriverOut,
    ];

    /// Linux's number.
    #[inline]
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// Whether bytes move between the device and the bio's frames.
    #[inline]
    pub const fn carries_data(self) -> bool {
        matches!(
            self,
            Self::Read | Self::Write | Self::ZoneAppend | Self::DriverIn | Self::DriverOut
        )
    }

    /// Whether it changes the device, or may: odd numbers, as in Linux.
    #[inline]
    pub const fn is_write(self) -> bool {
        self.code() & 1 == 1
    }

    /// Whether it is about a range of the device, with or without data.
    #[inline]
    pub const fn has_range(self) -> bool {
        self.carries_data() || matches!(self, Self::Discard | Self::SecureErase | Self::WriteZeroes)
    }

    /// Whether it changes the state of a zone and moves nothing.
    #[inline]
    pub const fn manages_zones(self) -> bool {
        matches!(
            self,
            Self::ZoneOpen
                | Self::ZoneClose
                | Self::ZoneFinish
                | Self::ZoneReset
                | Self::ZoneResetAll
        )
    }
}

impl TryFrom<u8> for Op {
    type Error = UnknownOp;

    fn try_from(code: u8) -> Result<Self, UnknownOp> {
        Self::ALL
            .into_iter()
            .find(|op| op.code() == code)
            .ok_or(UnknownOp { code })
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Read => "READ",
            Self::Write => "WRITE",
            Self::Flush => "FLUSH",
            Self::Discard => "DISCARD",
            Self::SecureErase => "SECURE_ERASE",
            Self::ZoneAppend => "ZONE_APPEND",
            Self::WriteZeroes => "WRITE_ZEROES",
            Self::ZoneOpen => "ZONE_OPEN",
            Self::ZoneClose => "ZONE_CLOSE",
            Self::ZoneFinish => "ZONE_FINISH",
            Self::ZoneReset => "ZONE_RESET",
            Self::ZoneResetAll => "ZONE_RESET_ALL",
            Self::DriverIn => "DRV_IN",
            Self::DriverOut => "DRV_OUT",
        })
    }
}

/// A number that stands for no operation known here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("{code} is no operation (READ is 0, WRITE 1, FLUSH 2, DISCARD 3, ...)")]
pub struct UnknownOp {
    /// The number.
    pub code: u8,
}
