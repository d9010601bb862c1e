//! An operation and its flags in a few letters, as traces print them.

use core::fmt;

use crate::flags::BioFlags;
use crate::op::Op;

/// The letters for an operation and its flags, as Linux' tracepoints print them (`blk_fill_rwbs`,
/// kernel/trace/blktrace.c).
///
/// | place | letter | for |
/// |---|---|---|
/// | first | `F` | PREFLUSH |
/// | then | `R` `W` `D` `DE` `F` `WZ` | READ, WRITE, DISCARD, SECURE_ERASE, FLUSH, WRITE_ZEROES |
/// | | `ZA` `ZO` `ZC` `ZF` `ZR` `ZRA` | ZONE_APPEND, ZONE_OPEN, ZONE_CLOSE, ZONE_FINISH, ZONE_RESET, ZONE_RESET_ALL |
/// | | `N` | DRV_IN, DRV_OUT |
/// | last | `F` `A` `S` `M` `U` | FUA, RAHEAD, SYNC, META, ATOMIC |
///
/// Kernels before 6.18 print `N` for the zone operations, and those that do not know `WZ` print it for
/// WRITE_ZEROES.
///
/// ```
/// use pageless_block::{BioFlags, Op, Rwbs};
/// let flags = BioFlags::PREFLUSH | BioFlags::FUA | BioFlags::SYNC | BioFlags::META;
/// assert_eq!(Rwbs::new(Op::Write, flags).as_str(), "FWFSM");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Rwbs {
    /// ASCII; what lies beyond `len` is zero.
    letters: [u8; Self::MAX],
    len: u8,
}

impl Rwbs {
    /// The longest there is: `FZRAFASMU`.
    pub const MAX: usize = 9;

    /// The letters for `op` with `flags`.
    pub fn new(op: Op, flags: BioFlags) -> Self {
        let name = match op {
            Op::Read => "R",
            Op::Write => "W",
            Op::Flush => "F",
            Op::Discard => "D",
            Op::SecureErase => "DE",
            Op::WriteZeroes => "WZ",
            Op::ZoneAppend => "ZA",
            Op::ZoneOpen => "ZO",
            Op::ZoneClose => "ZC",
            Op::ZoneFinish => "ZF",
            Op::ZoneReset => "ZR",
            Op::ZoneResetAll => "ZRA",
            Op::DriverIn | Op::DriverOut => "N",
        };
        let mut rwbs = Self {
            letters: [0; Self::MAX],
            len: 0,
        };
        if flags.contains(BioFlags::PREFLUSH) {
            rwbs.push(b'F');
        }
        for letter in name.bytes() {
            rwbs.push(letter);
        }
        for (flag, letter) in [
            (BioFlags::FUA, b'F'),
            (BioFlags::RAHEAD, b'A'),
            (BioFlags::SYNC, b'S'),
            (BioFlags::META, b'M'),
            (BioFlags::ATOMIC, b'U'),
        ] {
            if flags.contains(flag) {
                rwbs.push(letter);
            }
        }
        rwbs
    }

    /// The letters.
    pub fn as_str(&self) -> &str {
        // Only ASCII letters are ever pushed, so that neither default is ever taken.
        let letters = self.letters.get(..usize::from(self.len));
        core::str::from_utf8(letters.unwrap_or_default()).unwrap_or_default()
    }

    fn push(&mut self, letter: u8) {
        if let Some(place) = self.letters.get_mut(usize::from(self.len)) {
            *place = letter;
            self.len += 1;
        }
    }
}

impl fmt::Display for Rwbs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Debug for Rwbs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Rwbs({})", self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString;

    use super::*;

    #[test]
    fn letters_are_the_kernels() {
        let none = BioFlags::empty();
        let sync = BioFlags::SYNC;
        let table = [
            (Op::Read, none, "R"),
            (Op::Read, BioFlags::RAHEAD, "RA"),
            (Op::Read, BioFlags::RAHEAD | BioFlags::META, "RAM"),
            (Op::Read, sync | BioFlags::META, "RSM"),
            (Op::Write, none, "W"),
            (Op::Write, sync, "WS"),
            (Op::Write, BioFlags::FUA | sync, "WFS"),
            (Op::Write, BioFlags::PREFLUSH | sync, "FWS"),
            (Op::Write, BioFlags::FLUSHES | sync, "FWFS"),
            (
                Op::Write,
                BioFlags::FLUSHES | sync | BioFlags::META,
                "FWFSM",
            ),
            (Op::Write, BioFlags::ATOMIC | sync, "WSU"),
            (Op::Flush, none, "F"),
            (Op::Flush, BioFlags::PREFLUSH, "FF"),
            (Op::Discard, none, "D"),
            (Op::Discard, sync, "DS"),
            (Op::SecureErase, sync, "DES"),
            (Op::WriteZeroes, none, "WZ"),
            (Op::WriteZeroes, BioFlags::NOUNMAP | sync, "WZS"),
            (Op::ZoneAppend, sync, "ZAS"),
            (Op::ZoneOpen, none, "ZO"),
            (Op::ZoneClose, none, "ZC"),
            (Op::ZoneFinish, none, "ZF"),
            (Op::ZoneReset, sync, "ZRS"),
            (Op::ZoneResetAll, none, "ZRA"),
            (Op::DriverIn, none, "N"),
            (Op::DriverOut, sync, "NS"),
        ];
        for (op, flags, letters) in table {
            assert_eq!(Rwbs::new(op, flags).as_str(), letters, "{op} {flags:?}");
        }
        for op in Op::ALL {
            assert!(table.iter().any(|row| row.0 == op), "{op} is in no row");
        }
    }

    #[test]
    fn the_longest_one_fits() {
        let longest = Rwbs::new(Op::ZoneResetAll, BioFlags::all());
        assert_eq!(longest.to_string(), "FZRAFASMU");
        assert_eq!(longest.as_str().len(), Rwbs::MAX);
    }
}
