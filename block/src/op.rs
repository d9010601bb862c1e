//! What a bio asks for.

use core::fmt;

use thiserror::Error;

/// The operation of a bio, numbered as in Linux (`REQ_OP_*`).
///
/// ```
/// use pageless_block::Op;
/// assert_eq!(Op::WriteZeroes.code(), 9);
/// assert_eq!(Op::try_from(1), Ok(Op::Write));
/// assert!(Op::try_from(5).is_err());
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
    /// A range is to read as zeroes.
    WriteZeroes = 9,
}

impl Op {
    /// Every operation.
    pub const ALL: [Self; 5] = [
        Self::Read,
        Self::Write,
        Self::Flush,
        Self::Discard,
        Self::WriteZeroes,
    ];

    /// Linux's number.
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// Whether bytes move between the device and the bio's frames.
    pub const fn carries_data(self) -> bool {
        matches!(self, Self::Read | Self::Write)
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
        f.write_str(match self {
            Self::Read => "READ",
            Self::Write => "WRITE",
            Self::Flush => "FLUSH",
            Self::Discard => "DISCARD",
            Self::WriteZeroes => "WRITE_ZEROES",
        })
    }
}

/// A number that stands for no operation known here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("{code} is no operation: READ 0, WRITE 1, FLUSH 2, DISCARD 3 and WRITE_ZEROES 9 are")]
pub struct UnknownOp {
    /// The number.
    pub code: u8,
}
