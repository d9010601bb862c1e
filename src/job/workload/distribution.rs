//! `random_distribution`: how the visits spread over the blocks.

use rand_distr::Distribution as _;
use rand_distr::{StandardNormal, Zipf};
use rand_xoshiro::Xoshiro256PlusPlus;

use super::permutation::Permutation;
use super::seed::{Seed, random_below, unit_interval};
use crate::job::error::ValueError;
use crate::job::size::{KbBase, job_extent};
use crate::job::{Bytes, Extent};

/// What a job asks for.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum Distribution {
    /// All blocks alike, each once in a pass unless `norandommap`.
    #[default]
    Uniform,
    /// Rank `k` is visited in proportion to `k^-theta`; ranks are scattered over the range.
    Zipf(f64),
    /// The fraction `h` of the blocks takes `1 - h` of the visits, and so on within it.
    Pareto(f64),
    /// Around the middle, with a deviation of so many hundredths of the range.
    Normal(f64),
    /// Zones from the beginning of the range on, each with its share of the visits.
    Zoned(Vec<Share>),
}

/// One zone: so many hundredths of the visits go to the next piece of the range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// Hundredths of all visits.
    pub access: u8,
    /// How long the piece is.
    pub extent: Extent,
}

impl Distribution {
    /// Reads fio's value (for `zoned`, one direction's part).
    ///
    /// # Errors
    /// An unknown name, a parameter outside its range, zones that do not add up.
    pub fn parse(text: &str, base: KbBase) -> Result<Self, ValueError> {
        let (name, parameter) = match text.split_once(':') {
            Some((name, parameter)) => (name, Some(parameter)),
            None => (text, None),
        };
        match name {
            "random" if parameter.is_none() => Ok(Self::Uniform),
            "zipf" => {
                let theta = float(
                    parameter,
                    1.1,
                    (0.0, 100.0),
                    "zipf:1.2, theta above 0, not 1",
                )?;
                if theta == 0.0 || theta.to_bits() == 1.0f64.to_bits() {
                    return Err(ValueError::Shape("zipf:1.2, theta above 0, not 1"));
                }
                Ok(Self::Zipf(theta))
            }
            "pareto" => {
                let h = float(parameter, 0.2, (0.0, 1.0), "pareto:0.2, h between 0 and 1")?;
                if h <= 0.0 || h >= 1.0 {
                    return Err(ValueError::Shape("pareto:0.2, h between 0 and 1"));
                }
                Ok(Self::Pareto(h))
            }
            "normal" | "gauss" => float(
                parameter,
                0.0,
                (0.0, 99.999),
                "normal:20, deviation below 100 %",
            )
            .map(Self::Normal),
            "zoned" => zones(parameter.unwrap_or_default(), base, false).map(Self::Zoned),
            "zoned_abs" => zones(parameter.unwrap_or_default(), base, true).map(Self::Zoned),
            _ => Err(ValueError::NotOneOf(
                "random, zipf:theta, pareto:h, normal:deviation, zoned:access/range:..., \
                 zoned_abs:access/size:...",
            )),
        }
    }

    /// How many bytes the zones name that are given in bytes.
    #[must_use]
    pub fn absolute_bytes(&self) -> u64 {
        let Self::Zoned(zones) = self else { return 0 };
        let bytes = zones.iter().map(|zone| match zone.extent {
            Extent::Bytes(bytes) => bytes.get(),
            Extent::Percent(_) => 0,
        });
        bytes.fold(0, u64::saturating_add)
    }

    /// Whether visits spread evenly, so that a pass can reach each block once.
    #[must_use]
    pub const fn is_uniform(&self) -> bool {
        matches!(self, Self::Uniform)
    }
}

fn float(
    parameter: Option<&str>,
    default: f64,
    (low, high): (f64, f64),
    shape: &'static str,
) -> Result<f64, ValueError> {
    let Some(text) = parameter else {
        return Ok(default);
    };
    let value: f64 = text.parse().map_err(|_| ValueError::Shape(shape))?;
    if value >= low && value <= high {
        Ok(value)
    } else {
        Err(ValueError::Shape(shape))
    }
}

fn zones(text: &str, base: KbBase, absolute: bool) -> Result<Vec<Share>, ValueError> {
    const SHAPE: ValueError = ValueError::Shape("zoned:60/10:30/20:10/70");
    let mut zones = Vec::new();
    for part in text.split(':') {
        let (access, piece) = part.split_once('/').unwrap_or((part, ""));
        let access: u8 = access.parse().ok().filter(|a| *a <= 100).ok_or(SHAPE)?;
        let extent = match piece {
            "" => None,
            _ if absolute => Some(job_extent(piece, base)?),
            _ => {
                let percent = piece.parse().ok().filter(|p| *p <= 100);
                Some(Extent::Percent(percent.ok_or(SHAPE)?))
            }
        };
        if let Some(Extent::Bytes(Bytes::ZERO) | Extent::Percent(0)) = extent {
            return Err(SHAPE);
        }
        zones.push((access, extent));
    }
    let visits: u32 = zones.iter().map(|(access, _)| u32::from(*access)).sum();
    if visits != 100 {
        return Err(ValueError::PercentSum {
            sum: f64::from(visits),
            must: "not 100 visits",
        });
    }
    let pieces: u32 = zones
        .iter()
        .map(|(_, extent)| match extent {
            Some(Extent::Percent(p)) => u32::from(*p),
            _ => 0,
        })
        .sum();
    let open = zones.iter().filter(|(_, extent)| extent.is_none()).count();
    let left = 100u32.saturating_sub(pieces);
    let share = left.checked_div(u32::try_from(open).unwrap_or(u32::MAX));
    // Pieces without a size split what is left; in bytes, what is left is not known here.
    if pieces > 100 || share == Some(0) {
        return Err(ValueError::PercentSum {
            sum: f64::from(pieces),
            must: "more than the range",
        });
    }
    if absolute && open > 0 {
        return Err(SHAPE);
    }
    let share = u8::try_from(share.unwrap_or(0)).unwrap_or(100);
    let finish = |(access, extent): (u8, Option<Extent>)| Share {
        access,
        extent: extent.unwrap_or(Extent::Percent(share)),
    };
    Ok(zones.into_iter().map(finish).collect())
}

/// A distribution over a given number of blocks, ready to draw from.
#[derive(Debug, Clone)]
pub(super) enum Draw {
    Uniform {
        blocks: u64,
    },
    Zipf {
        law: Zipf<f64>,
        scatter: Permutation,
    },
    Pareto {
        blocks: u64,
        power: f64,
        scatter: Permutation,
    },
    Normal {
        blocks: u64,
        middle: f64,
        deviation: f64,
    },
    Zoned {
        zones: Vec<Zone>,
    },
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Zone {
    access: u64,
    first: u64,
    blocks: u64,
}

impl Draw {
    /// Prepares `distribution` over `blocks` blocks of `block` bytes each.
    pub(super) fn new(distribution: &Distribution, blocks: u64, block: u64, seed: Seed) -> Self {
        let blocks = blocks.max(1);
        let scatter = Permutation::new(blocks, seed);
        match distribution {
            Distribution::Uniform => Self::Uniform { blocks },
            Distribution::Zipf(theta) => match Zipf::new(blocks as f64, *theta) {
                Ok(law) => Self::Zipf { law, scatter },
                Err(_) => Self::Uniform { blocks },
            },
            Distribution::Pareto(h) => Self::Pareto {
                blocks,
                power: h.ln() / (1.0 - h).ln(),
                scatter,
            },
            Distribution::Normal(percent) => Self::Normal {
                blocks,
                middle: blocks as f64 / 2.0,
                deviation: blocks as f64 * percent / 100.0,
            },
            Distribution::Zoned(shares) => {
                let whole = Bytes::new(blocks.saturating_mul(block));
                let mut first = 0;
                let zones = shares
                    .iter()
                    .map(|share| {
                        let wanted = share.extent.of(whole).get() / block.max(1);
                        let start = first.min(blocks - 1);
                        let length = wanted.clamp(1, blocks - start);
                        first = start + length;
                        Zone {
                            access: u64::from(share.access),
                            first: start,
                            blocks: length,
                        }
                    })
                    .collect();
                Self::Zoned { zones }
            }
        }
    }

    /// Draws a block.
    pub(super) fn draw(&self, rng: &mut Xoshiro256PlusPlus) -> u64 {
        match self {
            Self::Uniform { blocks } => random_below(rng, *blocks),
            Self::Zipf { law, scatter } => {
                let rank = law.sample(rng) as u64;
                scatter.at(rank.saturating_sub(1).min(scatter.len() - 1))
            }
            Self::Pareto {
                blocks,
                power,
                scatter,
            } => {
                let rank = (*blocks as f64 * unit_interval(rng).powf(*power)) as u64;
                scatter.at(rank.min(blocks - 1))
            }
            Self::Normal {
                blocks,
                middle,
                deviation,
            } => {
                let z: f64 = StandardNormal.sample(rng);
                ((middle + z * deviation).max(0.0) as u64).min(blocks - 1)
            }
            Self::Zoned { zones } => {
                let mut ticket = random_below(rng, 100);
                for zone in zones {
                    match ticket.checked_sub(zone.access) {
                        Some(left) => ticket = left,
                        None => return zone.first + random_below(rng, zone.blocks),
                    }
                }
                0
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn histogram(text: &str, blocks: u64) -> Vec<u32> {
        let wanted = Distribution::parse(text, KbBase::Binary).expect(text);
        let draw = Draw::new(&wanted, blocks, 4096, Seed::new(3));
        let mut rng = Seed::new(4).rng();
        let mut counts = vec![0; usize::try_from(blocks).expect("small")];
        for _ in 0..200_000 {
            counts[usize::try_from(draw.draw(&mut rng)).expect("small")] += 1;
        }
        counts
    }

    fn share_of_top(counts: &[u32], fraction: usize) -> f64 {
        let mut sorted = counts.to_vec();
        sorted.sort_unstable_by(|a, b| b.cmp(a));
        let top: u32 = sorted[..counts.len() / fraction].iter().sum();
        f64::from(top) / f64::from(counts.iter().sum::<u32>())
    }

    #[test]
    fn pareto_keeps_its_promise() {
        let counts = histogram("pareto:0.2", 1000);
        let share = share_of_top(&counts, 5);
        assert!(
            (share - 0.8).abs() < 0.02,
            "a fifth of the blocks takes {share}, 0.8 expected"
        );
    }

    #[test]
    fn zipf_favours_few_blocks_and_scatters_them() {
        let counts = histogram("zipf:1.2", 1000);
        assert!(
            share_of_top(&counts, 100) > 0.5,
            "{}",
            share_of_top(&counts, 100)
        );
        let mut ranked: Vec<_> = counts.iter().enumerate().collect();
        ranked.sort_unstable_by_key(|(_, c)| core::cmp::Reverse(**c));
        // Rank 1 against rank 2 in proportion to 2^1.2.
        let ratio = f64::from(*ranked[0].1) / f64::from(*ranked[1].1);
        assert!((ratio - 2f64.powf(1.2)).abs() < 0.15, "{ratio}");
        assert!(
            ranked[0].0.abs_diff(ranked[1].0) > 1,
            "the hottest blocks are neighbours"
        );
    }

    #[test]
    fn normal_has_its_middle_and_deviation() {
        let counts = histogram("normal:10", 1000);
        let total: f64 = counts.iter().map(|c| f64::from(*c)).sum();
        let at = |i: usize| i as f64;
        let mean: f64 = counts
            .iter()
            .enumerate()
            .map(|(i, c)| at(i) * f64::from(*c))
            .sum::<f64>()
            / total;
        let variance: f64 = counts
            .iter()
            .enumerate()
            .map(|(i, c)| (at(i) - mean).powi(2) * f64::from(*c))
            .sum::<f64>()
            / total;
        assert!((mean - 500.0).abs() < 2.0, "{mean}");
        assert!((variance.sqrt() - 100.0).abs() < 2.0, "{}", variance.sqrt());
    }

    #[test]
    fn zones_take_their_share_of_the_visits() {
        for text in [
            "zoned:60/10:30/20:8/30:2/40",
            "zoned:60/10:30/20:8/30:2/",
            "zoned_abs:60/400k:30/800k:8/1200k:2/1600k",
        ] {
            let counts = histogram(text, 1000);
            let share = |range: core::ops::Range<usize>| {
                f64::from(counts[range].iter().sum::<u32>()) / 200_000.0
            };
            for (range, wanted) in [
                (0..100, 0.60),
                (100..300, 0.30),
                (300..600, 0.08),
                (600..1000, 0.02),
            ] {
                assert!(
                    (share(range.clone()) - wanted).abs() < 0.01,
                    "{text} {range:?}"
                );
            }
        }
    }

    #[test]
    fn parameters_out_of_range_are_errors() {
        for text in [
            "",
            "foo",
            "random:1",
            "zipf:1",
            "zipf:0",
            "zipf:x",
            "zipf:-1",
            "zipf:1.2:0.5",
            "pareto:0",
            "pareto:1.5",
            "normal:200",
            "zoned",
            "zoned:60/10:30/20",
            "zoned:60/10:40/95",
            "zoned:60:40/100",
            "zoned_abs:60:40/1m",
            "zoned:50/0:50/50",
            "zoned_abs:100/0",
        ] {
            assert!(Distribution::parse(text, KbBase::Binary).is_err(), "{text}");
        }
    }
}
