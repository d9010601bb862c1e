//! Faults by probability, the same ones in every run.

use core::fmt;
use core::num::IntErrorKind;
use core::str::FromStr;

use fastrand::Rng;
use thiserror::Error;

/// When a fault is injected: `<interval>,<probability>,<space>,<times>`, as the kernel's fault
/// injection has it (`struct fault_attr`, lib/fault-inject.c) and null_blk's `timeout` and
/// `requeue` parameters take it.
///
/// ```
/// use pageless_block::FaultAttr;
/// let attr: FaultAttr = "1,100,2,5".parse()?;
/// assert_eq!((attr.probability, attr.times), (100, Some(5)));
/// assert_eq!(attr.to_string(), "1,100,2,5");
/// assert_eq!("1,10,0,-1".parse::<FaultAttr>()?.times, None);
/// let error = "1,101,0,-1".parse::<FaultAttr>().unwrap_err();
/// assert_eq!(error.to_string(), "probability is 101: must be from 0 to 100");
/// # Ok::<(), pageless_block::FaultAttrError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FaultAttr {
    /// Only every so manyth time is asked; 0 and 1 stand for every time.
    pub interval: u64,
    /// Percent of the times asked.
    pub probability: u8,
    /// So many times pass first, less one: 0 and 1 stand for none.
    pub space: u32,
    /// So many faults and no more; `None` for no end of them.
    pub times: Option<u32>,
}

impl FaultAttr {
    /// Never.
    pub const NEVER: Self = Self {
        interval: 1,
        probability: 0,
        space: 0,
        times: None,
    };

    /// Every time.
    pub const ALWAYS: Self = Self::percent(100);

    /// That many times in a hundred, from the start and without end.
    pub const fn percent(probability: u8) -> Self {
        Self {
            interval: 1,
            probability,
            space: 0,
            times: None,
        }
    }

    /// Whether it never happens.
    pub const fn is_never(&self) -> bool {
        self.probability == 0 || matches!(self.times, Some(0))
    }

    pub(super) const fn validate(&self) -> Result<(), FaultAttrError> {
        if self.probability > 100 {
            return Err(FaultAttrError::Probability {
                percent: self.probability as u64,
            });
        }
        Ok(())
    }
}

impl Default for FaultAttr {
    fn default() -> Self {
        Self::NEVER
    }
}

impl fmt::Display for FaultAttr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{},{},{},", self.interval, self.probability, self.space)?;
        match self.times {
            Some(times) => write!(f, "{times}"),
            None => f.write_str("-1"),
        }
    }
}

impl FromStr for FaultAttr {
    type Err = FaultAttrError;

    fn from_str(text: &str) -> Result<Self, FaultAttrError> {
        let found = text.split(',').count();
        let mut fields = text.trim().split(',');
        let mut next = |what| {
            let field = fields.next().ok_or(FaultAttrError::Fields { found })?;
            match field.trim() {
                "-1" if what == "times" => Ok(None),
                field => number(what, field).map(Some),
            }
        };
        let (interval, probability) = (next("interval")?, next("probability")?);
        let (space, times) = (next("space")?, next("times")?);
        if found != 4 {
            return Err(FaultAttrError::Fields { found });
        }
        let percent = probability.unwrap_or(0);
        let small = |what, value| u32::try_from(value).map_err(|_| FaultAttrError::Large { what });
        let attr = Self {
            interval: interval.unwrap_or(1),
            probability: u8::try_from(percent)
                .map_err(|_| FaultAttrError::Probability { percent })?,
            space: small("space", space.unwrap_or(0))?,
            times: times.map(|times| small("times", times)).transpose()?,
        };
        attr.validate()?;
        Ok(attr)
    }
}

fn number(what: &'static str, field: &str) -> Result<u64, FaultAttrError> {
    field
        .parse()
        .map_err(|error: core::num::ParseIntError| match error.kind() {
            IntErrorKind::PosOverflow => FaultAttrError::Large { what },
            _ => FaultAttrError::Number { what },
        })
}

/// Why something is no [`FaultAttr`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum FaultAttrError {
    /// Not four fields.
    #[error("{found} fields: must be <interval>,<probability>,<space>,<times>")]
    Fields {
        /// How many there are.
        found: usize,
    },
    /// A field is no number.
    #[error("{what} is no number")]
    Number {
        /// Which field.
        what: &'static str,
    },
    /// A field is too large a number.
    #[error("{what} is too large")]
    Large {
        /// Which field.
        what: &'static str,
    },
    /// More than always.
    #[error("probability is {percent}: must be from 0 to 100")]
    Probability {
        /// What it is.
        percent: u64,
    },
}

/// An attribute at work: what it has counted, and its own stream of random numbers, so that two
/// faults do not shift each other's.
#[derive(Clone, Debug)]
pub(super) struct Injector {
    attr: FaultAttr,
    /// Times asked, for the interval.
    asked: u64,
    /// Times that still pass first.
    space: u32,
    /// Faults that are left.
    times: Option<u32>,
    rng: Rng,
}

impl Injector {
    pub(super) fn new(attr: FaultAttr, seed: u64) -> Self {
        Self {
            attr,
            asked: 0,
            space: attr.space,
            times: attr.times,
            rng: Rng::with_seed(seed),
        }
    }

    /// Whether a fault happens this time.
    pub(super) fn strikes(&mut self) -> bool {
        if self.attr.probability == 0 || self.times == Some(0) {
            return false;
        }
        // As in the kernel, where a request weighs 1, the last one of the space does not pass.
        if self.space > 1 {
            self.space -= 1;
            return false;
        }
        if self.attr.interval > 1 {
            self.asked = self.asked.wrapping_add(1);
            if !self.asked.is_multiple_of(self.attr.interval) {
                return false;
            }
        }
        if self.attr.probability <= self.rng.u8(0..100) {
            return false;
        }
        if let Some(times) = &mut self.times {
            *times -= 1;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;

    fn strikes(attr: &str, seed: u64, asked: usize) -> Vec<usize> {
        let mut injector = Injector::new(attr.parse().unwrap(), seed);
        (1..=asked).filter(|_| injector.strikes()).collect()
    }

    #[test]
    fn space_interval_and_times_are_counted_as_the_kernel_counts_them() {
        assert_eq!(strikes("1,100,0,-1", 7, 4), [1, 2, 3, 4]);
        assert_eq!(strikes("1,100,0,2", 7, 4), [1, 2]);
        assert_eq!(strikes("3,100,0,-1", 7, 9), [3, 6, 9]);
        // The space is what a size may not exceed: a space of 3 lets two pass.
        assert_eq!(strikes("1,100,3,-1", 7, 4), [3, 4]);
        assert_eq!(strikes("0,100,0,1", 7, 4), [1]);
        assert!(strikes("1,0,0,-1", 7, 100).is_empty());
        assert!(strikes("1,100,0,0", 7, 100).is_empty());
    }

    #[test]
    fn a_seed_always_gives_the_same_faults_and_about_as_many_as_asked_for() {
        let once = strikes("1,30,0,-1", 42, 10_000);
        assert_eq!(once, strikes("1,30,0,-1", 42, 10_000));
        assert_ne!(once, strikes("1,30,0,-1", 43, 10_000));
        // Ten standard deviations.
        assert!((2500..3500).contains(&once.len()), "{}", once.len());
        let rare = strikes("1,1,0,-1", 42, 10_000).len();
        assert!((50..150).contains(&rare), "{rare}");
    }

    #[test]
    fn texts_that_are_no_attribute_say_where() {
        for (text, error) in [
            ("", FaultAttrError::Number { what: "interval" }),
            ("1,2,3", FaultAttrError::Fields { found: 3 }),
            ("1,2,3,4,5", FaultAttrError::Fields { found: 5 }),
            (
                "1,x,3,4",
                FaultAttrError::Number {
                    what: "probability",
                },
            ),
            (
                "1,-1,3,4",
                FaultAttrError::Number {
                    what: "probability",
                },
            ),
            ("1,2,3,-2", FaultAttrError::Number { what: "times" }),
            ("1,300,3,4", FaultAttrError::Probability { percent: 300 }),
            ("1,2,4294967296,4", FaultAttrError::Large { what: "space" }),
            (
                "99999999999999999999,2,3,4",
                FaultAttrError::Large { what: "interval" },
            ),
        ] {
            assert_eq!(text.parse::<FaultAttr>(), Err(error), "{text:?}");
        }
    }
}
