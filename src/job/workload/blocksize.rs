//! `bs`, `bsrange`, `bssplit`: how long a request is.

use rand_xoshiro::Xoshiro256PlusPlus;

use super::seed::random_below;
use crate::job::error::ValueError;
use crate::job::size::{KbBase, job_size};

/// The lengths of one direction's requests, in bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BlockSizes {
    /// Always the same.
    Fixed(u32),
    /// Between the two, in steps of the smaller.
    Range {
        /// The shortest.
        min: u32,
        /// The longest.
        max: u32,
    },
    /// Each length with its share.
    Split(Vec<Part>),
}

/// One length of a `bssplit` and the hundredths of requests that have at most this rank.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    length: u32,
    share: u8,
}

impl Part {
    /// The length in bytes.
    #[must_use]
    pub const fn length(self) -> u32 {
        self.length
    }

    /// How many of a hundred requests have it.
    #[must_use]
    pub const fn share(self) -> u8 {
        self.share
    }
}

/// The longest request that a job may ask for: one frame table of it still fits 32 bits.
const LONGEST: u64 = 1 << 30;

impl BlockSizes {
    /// Reads one part of `bs`.
    ///
    /// # Errors
    /// Not a size, zero, above 1 GiB.
    pub fn parse_fixed(text: &str, base: KbBase) -> Result<Self, ValueError> {
        length(text, base).map(Self::Fixed)
    }

    /// Reads one part of `bsrange`: `1k-4k`, either end first.
    ///
    /// # Errors
    /// Not two sizes.
    pub fn parse_range(text: &str, base: KbBase) -> Result<Self, ValueError> {
        let (a, b) = text.split_once('-').ok_or(ValueError::Shape("1k-4k"))?;
        let (a, b) = (length(a, base)?, length(b, base)?);
        Ok(Self::Range {
            min: a.min(b),
            max: a.max(b),
        })
    }

    /// Reads one part of `bssplit`: `4k/10:64k/50:32k/40`; lengths without a share split what is
    /// left evenly.
    ///
    /// # Errors
    /// Not sizes and shares, or shares that do not add up to 100.
    pub fn parse_split(text: &str, base: KbBase) -> Result<Self, ValueError> {
        let mut parts: Vec<(u32, Option<u8>)> = Vec::new();
        for part in text.split(':') {
            let (size, share) = part.split_once('/').unwrap_or((part, ""));
            let share = match share {
                "" => None,
                digits => Some(digits.parse::<u8>().ok().filter(|s| *s <= 100).ok_or_else(
                    || ValueError::OutOfRange {
                        low: "0".into(),
                        high: "100 (percent)".into(),
                    },
                )?),
            };
            parts.push((length(size, base)?, share));
        }
        let given: u32 = parts.iter().filter_map(|(_, s)| s.map(u32::from)).sum();
        let open = parts.iter().filter(|(_, s)| s.is_none()).count();
        let bad = |must| ValueError::PercentSum {
            sum: f64::from(given),
            must,
        };
        if given > 100 {
            return Err(bad("more than 100"));
        }
        if given < 100 && open == 0 {
            return Err(bad("less than 100"));
        }
        let mut left = 100 - given;
        let mut open = u32::try_from(open).unwrap_or(u32::MAX);
        let parts = parts
            .into_iter()
            .map(|(length, share)| {
                let share = share.unwrap_or_else(|| {
                    // The last one takes what integer division leaves over.
                    let part = left / open.max(1);
                    left -= part;
                    open -= 1;
                    u8::try_from(part).unwrap_or(100)
                });
                Part { length, share }
            })
            .filter(|part| part.share > 0)
            .collect();
        Ok(Self::Split(parts))
    }

    /// The shortest length.
    #[must_use]
    pub fn min(&self) -> u32 {
        match self {
            Self::Fixed(n) => *n,
            Self::Range { min, .. } => *min,
            Self::Split(parts) => parts.iter().map(|p| p.length).min().unwrap_or(1),
        }
    }

    /// The longest length.
    #[must_use]
    pub fn max(&self) -> u32 {
        match self {
            Self::Fixed(n) => *n,
            Self::Range { max, .. } => *max,
            Self::Split(parts) => parts.iter().map(|p| p.length).max().unwrap_or(1),
        }
    }

    /// The only length, if there is only one.
    #[must_use]
    pub fn fixed(&self) -> Option<u32> {
        (self.min() == self.max()).then(|| self.min())
    }

    /// Draws a length.
    #[inline]
    pub fn draw(&self, rng: &mut Xoshiro256PlusPlus) -> u32 {
        match self {
            Self::Fixed(n) => *n,
            Self::Range { min, max } => {
                let steps = u64::from(max / min);
                let drawn = u64::from(*min) * (1 + random_below(rng, steps));
                u32::try_from(drawn).unwrap_or(*max)
            }
            Self::Split(parts) => {
                let mut ticket = random_below(rng, 100);
                for part in parts {
                    match ticket.checked_sub(u64::from(part.share)) {
                        Some(left) => ticket = left,
                        None => return part.length,
                    }
                }
                self.min()
            }
        }
    }

    /// All lengths that [`draw`](Self::draw) can be built from: each is one of these or, for a
    /// range, a multiple of the first.
    pub fn lengths(&self) -> impl Iterator<Item = u32> + '_ {
        let (ends, parts): ([u32; 2], &[Part]) = match self {
            Self::Fixed(n) => ([*n, *n], &[]),
            Self::Range { min, max } => ([*min, *max], &[]),
            Self::Split(parts) => ([self.min(), self.max()], parts),
        };
        ends.into_iter().chain(parts.iter().map(|p| p.length))
    }
}

fn length(text: &str, base: KbBase) -> Result<u32, ValueError> {
    let bytes = job_size(text, base)?.get();
    match u32::try_from(bytes) {
        Ok(n) if n > 0 && u64::from(n) <= LONGEST => Ok(n),
        _ => Err(ValueError::OutOfRange {
            low: "512".into(),
            high: "1 GiB".into(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::workload::Seed;

    fn split(text: &str) -> Result<BlockSizes, ValueError> {
        BlockSizes::parse_split(text, KbBase::Binary)
    }

    #[test]
    fn shares_come_out_as_asked() {
        let sizes = split("4k/10:64k/50:32k/40").expect("parses");
        let mut rng = Seed::new(1).rng();
        let mut counts = [0u32; 3];
        for _ in 0..100_000 {
            match sizes.draw(&mut rng) {
                4096 => counts[0] += 1,
                65_536 => counts[1] += 1,
                32_768 => counts[2] += 1,
                other => panic!("{other} was not asked for"),
            }
        }
        for (count, percent) in counts.into_iter().zip([10u32, 50, 40]) {
            let wanted = percent * 1000;
            assert!(
                count.abs_diff(wanted) < wanted / 20,
                "{count} for {percent} %"
            );
        }
    }

    #[test]
    fn lengths_without_a_share_split_the_rest() {
        let shares = |text| match split(text) {
            Ok(BlockSizes::Split(parts)) => parts.iter().map(|p| p.share).collect::<Vec<_>>(),
            other => panic!("{other:?}"),
        };
        assert_eq!(shares("4k/50:8k:16k"), [50, 25, 25]);
        assert_eq!(shares("4k:8k:16k/"), [33, 33, 34]);
        assert_eq!(shares("4k/0:8k/100"), [100]);
    }

    #[test]
    fn shares_that_do_not_add_up_are_errors() {
        for text in [
            "4k/60:8k/60",
            "4k/10:8k/10",
            "4k/200",
            "4k/x",
            "",
            "0/100",
            "4kx",
        ] {
            assert!(split(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_range_is_drawn_in_steps_of_its_lower_end_and_reaches_both() {
        let sizes = BlockSizes::parse_range("16k-4k", KbBase::Binary).expect("parses");
        let mut rng = Seed::new(7).rng();
        let mut seen: Vec<u32> = (0..1000).map(|_| sizes.draw(&mut rng)).collect();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen, [4096, 8192, 12_288, 16_384]);
        for text in ["4k", "4k-", "-4k", "0-4k", "4k-2g"] {
            assert!(
                BlockSizes::parse_range(text, KbBase::Binary).is_err(),
                "{text}"
            );
        }
    }
}
