//! Times as fio reads them.

use core::time::Duration;

use super::error::ValueError;
use super::size::{is_hexadecimal, leading_number};

/// The unit of a bare number, which depends on the option.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BareUnit {
    /// `runtime`, `ramp_time`, `startdelay`.
    Seconds,
    /// `thinktime`, `thinktime_spin`.
    Microseconds,
}

/// Reads a time: a whole number with `d`, `h`, `m`, `s`, `ms` (or `msec`), `us` (or `usec`).
///
/// # Errors
/// [`ValueError`] for what fio rejects and for what it would silently misread: `0.3` is 0 seconds
/// to fio, `1sec` one microsecond.
pub fn job_time(text: &str, bare: BareUnit) -> Result<Duration, ValueError> {
    let (number, rest) = leading_number(text)?;
    if is_hexadecimal(text) {
        return Err(ValueError::Shape(
            "a decimal number with its unit, as in 30s",
        ));
    }
    let bare_micros = match bare {
        BareUnit::Seconds => 1_000_000,
        BareUnit::Microseconds => 1,
    };
    let micros: u64 = match rest.to_ascii_lowercase().as_str() {
        "" => bare_micros,
        "us" | "usec" => 1,
        "ms" | "msec" => 1_000,
        "s" => 1_000_000,
        "m" => 60_000_000,
        "h" => 3_600_000_000,
        "d" => 86_400_000_000,
        fraction if fraction.starts_with('.') => {
            let read = match (bare, fraction.ends_with(|c: char| c.is_ascii_digit())) {
                (BareUnit::Seconds, true) => format!("{number} s"),
                _ => format!("{number} us"),
            };
            return Err(ValueError::Fraction {
                read,
                instead: "milliseconds, as in 300ms",
            });
        }
        other => {
            let rest = other.to_owned();
            return Err(ValueError::UnknownUnit {
                rest,
                read: format!("{number} us"),
            });
        }
    };
    number
        .checked_mul(micros)
        .map(Duration::from_micros)
        .ok_or(ValueError::TooLarge)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_have_fios_meaning() {
        for (text, micros) in [
            ("1", 1_000_000),
            ("1s", 1_000_000),
            ("300ms", 300_000),
            ("1msec", 1_000),
            ("1500us", 1_500),
            ("2m", 120_000_000),
            ("1h", 3_600_000_000),
            ("1d", 86_400_000_000),
        ] {
            assert_eq!(
                job_time(text, BareUnit::Seconds),
                Ok(Duration::from_micros(micros)),
                "{text}"
            );
        }
        assert_eq!(
            job_time("5", BareUnit::Microseconds),
            Ok(Duration::from_micros(5))
        );
    }

    #[test]
    fn what_fio_would_truncate_is_an_error_that_says_so() {
        let error = job_time("0.3", BareUnit::Seconds).expect_err("a fraction");
        assert!(
            error.to_string().contains("silently read it as 0 s"),
            "{error}"
        );
        for text in ["", ".3", "1sec", "1min", "0x10s", "5x", "-1", "1.5ms"] {
            assert!(job_time(text, BareUnit::Seconds).is_err(), "{text}");
        }
    }
}
