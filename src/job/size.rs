//! Sizes as fio reads them, and as the command line reads them.
//!
//! In a job file `k`, `kb`, `ki` are 1024 and `kib` is 1000 unless `kb_base=1000` turns the two
//! around; that is fio's own reading, kept for compatibility with old scripts. On the command line
//! the units are those of IEC 80000-13: `KiB` is 1024, `kB` is 1000.

use super::error::ValueError;

/// A number of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Bytes(u64);

impl Bytes {
    /// No bytes.
    pub const ZERO: Self = Self(0);

    /// `n` bytes.
    #[must_use]
    pub const fn new(n: u64) -> Self {
        Self(n)
    }

    /// The number of bytes.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl core::fmt::Display for Bytes {
    /// Writes the size with the largest IEC unit that leaves at least one whole.
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
        let mut shift = 0;
        while shift < 60 && self.0 >> (shift + 10) != 0 {
            shift += 10;
        }
        if shift == 0 {
            return write!(f, "{} B", self.0);
        }
        let unit = UNITS[shift / 10 - 1];
        let whole = self.0 >> shift;
        if self.0.trailing_zeros() >= u32::try_from(shift).unwrap_or(0) {
            write!(f, "{whole} {unit}")
        } else {
            let scaled = self.0 as f64 / (1u64 << shift) as f64;
            write!(f, "{scaled:.*} {unit}", if whole < 10 { 2 } else { 1 })
        }
    }
}

/// Whether `k` means 1024 (fio's default) or 1000.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum KbBase {
    /// `k`, `kb`, `ki` are 1024, `kib` is 1000.
    #[default]
    Binary,
    /// `k`, `kb`, `ki` are 1000, `kib` is 1024.
    Decimal,
}

/// A size, or a share of whatever it is a size of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// So many bytes.
    Bytes(Bytes),
    /// So many hundredths of the whole, 0 to 100.
    Percent(u8),
}

impl Extent {
    /// The extent in bytes where the whole is `whole`.
    #[must_use]
    pub fn of(self, whole: Bytes) -> Bytes {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Percent(p) => {
                let share = u128::from(whole.0) * u128::from(p) / 100;
                Bytes(u64::try_from(share).unwrap_or(u64::MAX))
            }
        }
    }
}

/// Reads a whole number as fio does: decimal or `0x`, with a size suffix.
///
/// # Errors
/// [`ValueError`] for what fio rejects, and for what it would silently misread: text behind the
/// number, fractions, overflow.
pub fn job_size(text: &str, base: KbBase) -> Result<Bytes, ValueError> {
    let (number, rest) = leading_number(text)?;
    if rest.starts_with('.') {
        return Err(ValueError::Fraction {
            read: number.to_string(),
            instead: "a whole number of a smaller unit",
        });
    }
    let (kilo, kibi) = match base {
        KbBase::Binary => (1024u64, 1000u64),
        KbBase::Decimal => (1000, 1024),
    };
    if is_hexadecimal(text) && !rest.is_empty() {
        return Err(ValueError::UnknownUnit {
            rest: rest.to_owned(),
            read: number.to_string(),
        });
    }
    let lower = rest.to_ascii_lowercase();
    let mut letters = lower.chars();
    let power = match letters.next() {
        None => return Ok(Bytes(number)),
        Some('b') if letters.as_str().is_empty() => return Ok(Bytes(number)),
        Some('k') => 1,
        Some('m') => 2,
        Some('g') => 3,
        Some('t') => 4,
        Some('p') => 5,
        Some(_) => 0,
    };
    let unit = match (power, letters.as_str()) {
        (1.., "" | "b" | "i") => kilo,
        (1.., "ib") => kibi,
        _ => {
            let read = match (power, letters.as_str()) {
                (0, _) => number.to_string(),
                (p, _) => format!("{number}{}", ["k", "m", "g", "t", "p"][p as usize - 1]),
            };
            return Err(ValueError::UnknownUnit {
                rest: rest.to_owned(),
                read,
            });
        }
    };
    let factor = unit.checked_pow(power).ok_or(ValueError::TooLarge)?;
    number
        .checked_mul(factor)
        .map(Bytes)
        .ok_or(ValueError::TooLarge)
}

/// Reads a size or a percentage.
///
/// # Errors
/// As [`job_size`], and a percentage above 100.
pub fn job_extent(text: &str, base: KbBase) -> Result<Extent, ValueError> {
    let Some(percent) = text.strip_suffix('%') else {
        return job_size(text, base).map(Extent::Bytes);
    };
    let (number, rest) = leading_number(percent)?;
    if !rest.is_empty() {
        return Err(ValueError::Shape("N%, with N a whole number"));
    }
    match u8::try_from(number) {
        Ok(p @ 0..=100) => Ok(Extent::Percent(p)),
        _ => Err(ValueError::OutOfRange {
            low: "0%".into(),
            high: "100%".into(),
        }),
    }
}

/// Reads a size given on the command line: `64MiB`, `6TiB`, `4k`, `1.5GiB`, `1GB`.
///
/// Here the units mean what IEC 80000-13 says; a lone letter is binary.
///
/// # Errors
/// [`ValueError`] naming what is wrong.
pub fn command_line_size(text: &str) -> Result<Bytes, ValueError> {
    let text = text.trim();
    let digits = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    if number.is_empty() {
        return Err(if text.is_empty() {
            ValueError::Empty
        } else {
            ValueError::NotANumber
        });
    }
    let unit = unit.trim_start().to_ascii_lowercase();
    let factor: u64 = match unit.as_str() {
        "" | "b" => 1,
        "k" | "ki" | "kib" => 1 << 10,
        "m" | "mi" | "mib" => 1 << 20,
        "g" | "gi" | "gib" => 1 << 30,
        "t" | "ti" | "tib" => 1 << 40,
        "p" | "pi" | "pib" => 1 << 50,
        "kb" => 1000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "tb" => 1_000_000_000_000,
        "pb" => 1_000_000_000_000_000,
        _ => {
            return Err(ValueError::NotOneOf(
                "B, KiB, MiB, GiB, TiB, PiB, kB, MB, GB, TB, PB",
            ));
        }
    };
    if let Ok(whole) = number.parse::<u64>() {
        return whole
            .checked_mul(factor)
            .map(Bytes)
            .ok_or(ValueError::TooLarge);
    }
    let fraction: f64 = number.parse().map_err(|_| {
        if number.contains('.') {
            ValueError::NotANumber
        } else {
            ValueError::TooLarge
        }
    })?;
    let bytes = fraction * factor as f64;
    if bytes.fract() != 0.0 {
        return Err(ValueError::Shape("a whole number of bytes"));
    }
    if bytes >= 9.0e18 {
        return Err(ValueError::TooLarge);
    }
    Ok(Bytes(bytes as u64))
}

/// Whether `text` begins as a hexadecimal number. fio ignores the unit behind one.
pub(super) fn is_hexadecimal(text: &str) -> bool {
    text.starts_with("0x") || text.starts_with("0X")
}

/// Splits `text` into its leading decimal or hexadecimal number and the rest.
///
/// # Errors
/// Empty text, no digit, more than 64 bits.
pub(super) fn leading_number(text: &str) -> Result<(u64, &str), ValueError> {
    if text.is_empty() {
        return Err(ValueError::Empty);
    }
    let hex = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X"));
    let (digits, radix) = match hex {
        Some(rest) if rest.starts_with(|c: char| c.is_ascii_hexdigit()) => (rest, 16),
        _ => (text, 10),
    };
    let end = digits
        .find(|c: char| !c.is_digit(radix))
        .unwrap_or(digits.len());
    if end == 0 {
        return Err(ValueError::NotANumber);
    }
    let number = u64::from_str_radix(&digits[..end], radix).map_err(|_| ValueError::TooLarge)?;
    Ok((number, &digits[end..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<u64, ValueError> {
        job_size(text, KbBase::Binary).map(Bytes::get)
    }

    #[test]
    fn suffixes_have_fios_meaning() {
        for (text, bytes) in [
            ("1", 1),
            ("10k", 10_240),
            ("10KB", 10_240),
            ("10ki", 10_240),
            ("10KiB", 10_000),
            ("1MiB", 1_000_000),
            ("1m", 1 << 20),
            ("1g", 1 << 30),
            ("1t", 1 << 40),
            ("1p", 1 << 50),
            ("0x10", 16),
            ("010", 10),
            ("10b", 10),
        ] {
            assert_eq!(read(text), Ok(bytes), "{text}");
        }
        assert_eq!(job_size("10KiB", KbBase::Decimal), Ok(Bytes(10_240)));
        assert_eq!(job_size("10ki", KbBase::Decimal), Ok(Bytes(10_000)));
    }

    #[test]
    fn what_fio_misreads_silently_is_an_error() {
        for text in [
            "1.5k", "1e3", "10q", "10kx", "1kk", "10 k", "", "k", ".5", "-1", "+1", "0x10k", "0x1g",
        ] {
            assert!(read(text).is_err(), "{text}");
        }
        assert_eq!(read("99999999p"), Err(ValueError::TooLarge));
        assert_eq!(read("18446744073709551616"), Err(ValueError::TooLarge));
    }

    #[test]
    fn percentages_are_of_the_whole() {
        let half = job_extent("50%", KbBase::Binary).map(|e| e.of(Bytes(1 << 40)));
        assert_eq!(half, Ok(Bytes(1 << 39)));
        for text in ["150%", "%", "1.5%", "-3%"] {
            assert!(job_extent(text, KbBase::Binary).is_err(), "{text}");
        }
    }

    #[test]
    fn the_command_line_reads_iec_units() {
        for (text, bytes) in [
            ("6TiB", 6u64 << 40),
            ("64MiB", 64 << 20),
            ("64 MiB", 64 << 20),
            ("4k", 4096),
            ("1GB", 1_000_000_000),
            ("1.5GiB", 3 << 29),
            ("4096", 4096),
            ("1PiB", 1 << 50),
        ] {
            assert_eq!(command_line_size(text), Ok(Bytes(bytes)), "{text}");
        }
        for text in [
            "",
            "TiB",
            "1XiB",
            "-1",
            "0.3",
            "1..2k",
            "20000PiB",
            "99999999999999999999",
        ] {
            assert!(command_line_size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_are_shown_with_iec_units() {
        for (bytes, text) in [
            (0, "0 B"),
            (512, "512 B"),
            (4096, "4 KiB"),
            (6 << 40, "6 TiB"),
            (1536, "1.50 KiB"),
        ] {
            assert_eq!(Bytes(bytes).to_string(), text);
        }
    }
}
