//! The stream of requests of one thread.

use thiserror::Error;

use rand_xoshiro::Xoshiro256PlusPlus;

use super::access::{Access, Mix, Order};
use super::blocksize::BlockSizes;
use super::distribution::{Distribution, Draw};
use super::permutation::Permutation;
use super::randommap::RandomMap;
use super::seed::{Seed, random_below};
use crate::job::direction::{Direction, PerDirection};

/// One request: a direction and a piece of the region, both in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request {
    /// Read, write or trim.
    pub direction: Direction,
    /// Where it begins, counted from the beginning of the region.
    pub offset: u64,
    /// How long it is.
    pub len: u32,
}

/// What a generator answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Issue this.
    Request(Request),
    /// The pass is over; [`Generator::restart`] begins the next.
    PassOver,
}

/// How much one pass issues.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes; a pass that also trims what it writes counts each byte once.
    pub bytes: u64,
    /// Requests, if they are limited as well.
    pub ios: Option<u64>,
}

/// A map of the visited blocks would take more memory than the region warrants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error(
    "a map of {blocks} blocks of {block} bytes is needed to visit each once with requests of \
     different lengths: use one block size, or norandommap"
)]
pub struct TooManyBlocks {
    /// How many blocks the region has.
    pub blocks: u64,
    /// Their length in bytes.
    pub block: u32,
}

/// What a generator is made from.
#[derive(Debug, Clone)]
pub struct Shape<'a> {
    /// Directions and order.
    pub access: Access,
    /// Lengths.
    pub sizes: &'a PerDirection<BlockSizes>,
    /// `blockalign`, where the job sets it.
    pub align: Option<PerDirection<u32>>,
    /// Spread of random visits.
    pub distribution: &'a PerDirection<Distribution>,
    /// Whether blocks may be visited twice in a pass.
    pub without_map: bool,
    /// Reads among a hundred requests, for mixes.
    pub reads_percent: u8,
    /// Length of the region in bytes.
    pub region: u64,
    /// What ends a pass.
    pub limits: Limits,
}

/// How a random walk chooses its blocks.
enum Visits {
    Once,
    Mapped,
    Drawn,
}

impl Shape<'_> {
    /// Whether a generator can be made of it, without making one.
    ///
    /// # Errors
    /// [`TooManyBlocks`], as [`Generator::new`].
    pub fn check(&self) -> Result<(), TooManyBlocks> {
        self.visits().map(drop)
    }

    fn used(&self) -> impl Iterator<Item = Direction> {
        let access = self.access;
        Direction::ALL.into_iter().filter(move |d| access.has(*d))
    }

    fn shortest(&self) -> u32 {
        let shortest = self.used().map(|d| self.sizes[d].min()).min();
        shortest.unwrap_or(1).max(1)
    }

    fn blocks(&self) -> u64 {
        self.region / u64::from(self.shortest())
    }

    fn visits(&self) -> Result<Visits, TooManyBlocks> {
        let (shortest, blocks) = (self.shortest(), self.blocks());
        let uniform = self.used().all(|d| self.distribution[d].is_uniform());
        if !uniform || self.without_map || self.align.is_some() {
            return Ok(Visits::Drawn);
        }
        match self.access.order {
            Order::Sequential { .. } => Ok(Visits::Drawn),
            Order::Random { run: 1 }
                if self.used().all(|d| self.sizes[d].fixed() == Some(shortest)) =>
            {
                Ok(Visits::Once)
            }
            Order::Random { .. } if blocks > MOST_MAPPED => Err(TooManyBlocks {
                blocks,
                block: shortest,
            }),
            Order::Random { .. } => Ok(Visits::Mapped),
        }
    }
}

/// Blocks a map may cover: its bits then take 256 MiB, which is 8 TiB in blocks of 4 KiB.
const MOST_MAPPED: u64 = 1 << 31;

/// Produces the requests of one thread, pass by pass.
#[derive(Debug, Clone)]
pub struct Generator {
    mix: Mix,
    reads_percent: u64,
    sizes: PerDirection<BlockSizes>,
    shortest: u32,
    region: u64,
    limits: Limits,
    walk: Walk,
    seed: Seed,
    pass: u64,
    bytes: u64,
    ios: u64,
    owed_write: Option<Request>,
    rng: Xoshiro256PlusPlus,
}

#[derive(Debug, Clone)]
enum Walk {
    Sequential {
        skip: u64,
        at: PerDirection<u64>,
    },
    /// All requests have one length, and each block comes once in a pass.
    Once {
        order: Permutation,
        index: u64,
    },
    /// Each block comes once in a pass, lengths differ or requests come in runs.
    Mapped {
        map: RandomMap,
        run: u32,
        left: u32,
        at: u64,
    },
    /// Any block at any time.
    Drawn {
        draw: Box<PerDirection<Draw>>,
        step: PerDirection<u64>,
        run: u32,
        left: u32,
        at: u64,
    },
}

impl Generator {
    /// Prepares the stream; the only place that allocates.
    ///
    /// # Errors
    /// [`TooManyBlocks`] if visiting each block once would need an unreasonably large map.
    pub fn new(shape: &Shape<'_>, seed: Seed) -> Result<Self, TooManyBlocks> {
        let (shortest, blocks) = (shape.shortest(), shape.blocks());
        let walk = match (shape.access.order, shape.visits()?) {
            (Order::Sequential { skip }, _) => Walk::Sequential {
                skip,
                at: PerDirection::all(0),
            },
            (Order::Random { .. }, Visits::Once) => Walk::Once {
                order: Permutation::new(blocks, seed.derive(0x1000)),
                index: 0,
            },
            (Order::Random { run }, Visits::Mapped) => Walk::Mapped {
                map: RandomMap::new(blocks),
                run,
                left: 0,
                at: 0,
            },
            (Order::Random { run }, Visits::Drawn) => {
                let step = PerDirection::from_fn(|d| match &shape.align {
                    Some(align) => u64::from(align[d].max(1)),
                    None => u64::from(shape.sizes[d].min().max(1)),
                });
                let draw = PerDirection::from_fn(|d| {
                    let blocks = shape.region / step[d];
                    // One scatter for all directions: what is hot for reads is hot for writes.
                    Draw::new(&shape.distribution[d], blocks, step[d], seed.derive(2))
                });
                Walk::Drawn {
                    draw: Box::new(draw),
                    step,
                    run,
                    left: 0,
                    at: 0,
                }
            }
        };
        Ok(Self {
            mix: shape.access.mix,
            reads_percent: u64::from(shape.reads_percent),
            sizes: shape.sizes.clone(),
            shortest,
            region: shape.region,
            limits: shape.limits,
            walk,
            seed,
            pass: 0,
            bytes: 0,
            ios: 0,
            owed_write: None,
            rng: seed.derive(1).rng(),
        })
    }

    /// How many requests one pass has at most, as far as that is known.
    #[must_use]
    pub fn most_requests(&self) -> u64 {
        let by_bytes = self.limits.bytes.div_ceil(u64::from(self.shortest));
        let twice = if self.mix == Mix::TrimThenWrite { 2 } else { 1 };
        let all = by_bytes.min(self.limits.ios.unwrap_or(u64::MAX));
        all.saturating_mul(twice)
    }

    /// Whether one pass may visit a byte twice, so that what is read back later is of the last
    /// visit only.
    #[must_use]
    pub const fn may_overlap(&self) -> bool {
        match self.walk {
            Walk::Drawn { .. } => true,
            Walk::Sequential { skip, .. } => skip > 0 || self.limits.bytes > self.region,
            Walk::Once { .. } | Walk::Mapped { .. } => self.limits.bytes > self.region,
        }
    }

    /// Begins the next pass: sequential walks start over, random ones take a new order.
    pub fn restart(&mut self) {
        self.pass += 1;
        self.bytes = 0;
        self.ios = 0;
        self.owed_write = None;
        match &mut self.walk {
            Walk::Sequential { at, .. } => *at = PerDirection::all(0),
            Walk::Once { order, index } => {
                *order = Permutation::new(order.len(), self.seed.derive(0x1000 + self.pass));
                *index = 0;
            }
            Walk::Mapped { map, left, .. } => {
                map.reset();
                *left = 0;
            }
            Walk::Drawn { left, .. } => *left = 0,
        }
    }

    /// The next request.
    // Always inline, so that the request stays in registers. Behind a write to cold memory nothing that was
    // just stored can be loaded by other widths before that write is through, and a request that is
    // returned through memory is loaded so.
    #[inline(always)]
    pub fn next_request(&mut self) -> Next {
        if self.mix == Mix::TrimThenWrite
            && let Some(write) = self.owed_write.take()
        {
            return Next::Request(write);
        }
        let left = self.limits.bytes.saturating_sub(self.bytes);
        if left < u64::from(self.shortest) || self.limits.ios.is_some_and(|n| self.ios >= n) {
            return Next::PassOver;
        }
        let direction = match self.mix {
            Mix::Only(direction) => direction,
            Mix::ReadWrite if random_below(&mut self.rng, 100) < self.reads_percent => {
                Direction::Read
            }
            Mix::ReadWrite | Mix::TrimThenWrite => Direction::Write,
        };
        let drawn = u64::from(self.sizes[direction].draw(&mut self.rng));
        let unit = u64::from(self.shortest);
        let wanted = if drawn > left {
            left - left % unit
        } else {
            drawn
        };
        let Some((offset, len)) = self.place(direction, wanted) else {
            return Next::PassOver;
        };
        self.bytes += len;
        self.ios += 1;
        // No length exceeds a drawn one, which has 32 bits.
        let len = u32::try_from(len).unwrap_or(u32::MAX);
        let request = Request {
            direction,
            offset,
            len,
        };
        if self.mix == Mix::TrimThenWrite {
            self.owed_write = Some(request);
            return Next::Request(Request {
                direction: Direction::Trim,
                ..request
            });
        }
        Next::Request(request)
    }

    /// Finds a place for `wanted` bytes and cuts them to what fits there.
    #[inline(always)]
    fn place(&mut self, direction: Direction, wanted: u64) -> Option<(u64, u64)> {
        let unit = u64::from(self.shortest);
        let region = self.region;
        let fit = |offset: u64, wanted: u64| {
            let room = region.checked_sub(offset)?;
            let len = wanted.min(room);
            // A request that had to be cut ends on a block boundary; whole ones keep their length.
            let len = if len < wanted { len - len % unit } else { len };
            (len >= unit).then_some((offset, len))
        };
        match &mut self.walk {
            Walk::Sequential { skip, at } => {
                let place = fit(at[direction], wanted).or_else(|| fit(0, wanted))?;
                at[direction] = place.0.checked_add(place.1)?.saturating_add(*skip);
                Some(place)
            }
            Walk::Once { order, index } => {
                if *index >= order.len() {
                    *order = Permutation::new(order.len(), self.seed.derive(!self.bytes));
                    *index = 0;
                }
                let block = order.at(*index);
                *index += 1;
                Some((block * unit, unit))
            }
            Walk::Mapped { map, run, left, at } => {
                if map.is_full() {
                    map.reset();
                }
                let from = if *left == 0 {
                    *left = *run;
                    random_below(&mut self.rng, map.len())
                } else {
                    *at
                };
                *left -= 1;
                let block = map.next_free(from)?;
                let took = map.take(block, (wanted / unit).max(1));
                *at = block + took;
                Some((block * unit, took * unit))
            }
            Walk::Drawn {
                draw,
                step,
                run,
                left,
                at,
            } => {
                if *left > 0
                    && let Some(place) = fit(*at, wanted)
                {
                    *left -= 1;
                    *at = place.0 + place.1;
                    return Some(place);
                }
                let offset = draw[direction].draw(&mut self.rng) * step[direction];
                let place = fit(offset, wanted).or_else(|| fit(0, wanted))?;
                *left = *run - 1;
                *at = place.0 + place.1;
                Some(place)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::size::KbBase;

    struct Make {
        rw: &'static str,
        bs: &'static str,
        region: u64,
        bytes: u64,
        without_map: bool,
    }

    fn make(what: &Make) -> Generator {
        let sizes = if what.bs.contains('/') {
            BlockSizes::parse_split(what.bs, KbBase::Binary)
        } else if what.bs.contains('-') {
            BlockSizes::parse_range(what.bs, KbBase::Binary)
        } else {
            BlockSizes::parse_fixed(what.bs, KbBase::Binary)
        };
        let shape = Shape {
            access: Access::parse(what.rw, KbBase::Binary).expect("rw"),
            sizes: &PerDirection::all(sizes.expect("bs")),
            align: None,
            distribution: &PerDirection::all(Distribution::Uniform),
            without_map: what.without_map,
            reads_percent: 70,
            region: what.region,
            limits: Limits {
                bytes: what.bytes,
                ios: None,
            },
        };
        Generator::new(&shape, Seed::new(5)).expect("small")
    }

    fn pass(generator: &mut Generator) -> Vec<Request> {
        let mut all = Vec::new();
        while let Next::Request(request) = generator.next_request() {
            all.push(request);
        }
        all
    }

    const MIB: u64 = 1 << 20;

    fn simple(rw: &'static str, bs: &'static str) -> Make {
        Make {
            rw,
            bs,
            region: MIB,
            bytes: MIB,
            without_map: false,
        }
    }

    #[test]
    fn a_pass_covers_the_region_exactly_once_for_every_pattern_with_a_map() {
        for rw in [
            "read",
            "randwrite",
            "randread:8",
            "rw",
            "randrw",
            "trimwrite",
            "randtrimwrite",
        ] {
            for bs in ["4k", "64k", "512-8k", "4k/50:32k/50", "1536"] {
                let mut generator = make(&simple(rw, bs));
                for _ in 0..2 {
                    let requests = pass(&mut generator);
                    let mut bytes = vec![0u8; usize::try_from(MIB).expect("small")];
                    let mut read_write_positions_differ = false;
                    for r in requests.iter().filter(|r| r.direction != Direction::Trim) {
                        let from = usize::try_from(r.offset).expect("small");
                        for b in &mut bytes[from..from + r.len as usize] {
                            *b += 1;
                        }
                        read_write_positions_differ |= rw == "rw";
                    }
                    if read_write_positions_differ {
                        // Each direction of a sequential mix keeps its own position.
                        assert!(bytes.iter().all(|b| *b <= 2), "{rw} {bs}");
                    } else {
                        let missed = bytes.iter().filter(|b| **b != 1).count() as u64;
                        assert!(missed <= MIB % 1536, "{rw} {bs}: {missed} bytes not once");
                    }
                    generator.restart();
                }
            }
        }
    }

    #[test]
    fn equal_seeds_give_equal_requests_and_passes_differ() {
        let (mut a, mut b) = (make(&simple("randrw", "4k")), make(&simple("randrw", "4k")));
        let first = pass(&mut a);
        assert_eq!(first, pass(&mut b));
        a.restart();
        assert_ne!(first, pass(&mut a));
    }

    #[test]
    fn the_mix_has_the_share_of_reads_asked_for() {
        let what = Make {
            bytes: 64 * MIB,
            ..simple("randrw", "4k")
        };
        let requests = pass(&mut make(&what));
        let reads = requests
            .iter()
            .filter(|r| r.direction == Direction::Read)
            .count();
        let percent = reads * 100 / requests.len();
        assert!((68..=72).contains(&percent), "{percent}");
    }

    #[test]
    fn a_trim_precedes_the_write_of_the_same_block() {
        let requests = pass(&mut make(&simple("randtrimwrite", "4k")));
        assert_eq!(requests.len(), 512);
        for pair in requests.chunks(2) {
            assert_eq!(pair[0].direction, Direction::Trim);
            assert_eq!(pair[1].direction, Direction::Write);
            assert_eq!((pair[0].offset, pair[0].len), (pair[1].offset, pair[1].len));
        }
    }

    #[test]
    fn requests_never_leave_the_region() {
        for rw in ["write:4k", "randwrite", "randread:3", "rw"] {
            for without_map in [false, true] {
                let what = Make {
                    rw,
                    bs: "512-7k",
                    region: 100_000,
                    bytes: MIB,
                    without_map,
                };
                for r in pass(&mut make(&what)) {
                    assert!(r.len >= 512, "{rw} {r:?}");
                    assert!(r.offset + u64::from(r.len) <= 100_000, "{rw} {r:?}");
                    assert_eq!(r.offset % 512 + u64::from(r.len) % 512, 0, "{rw} {r:?}");
                }
            }
        }
    }

    #[test]
    fn a_sequential_walk_skips_and_wraps() {
        let what = Make {
            rw: "read:4k",
            bs: "4k",
            region: 16_384,
            bytes: 16_384,
            without_map: false,
        };
        let offsets: Vec<_> = pass(&mut make(&what)).iter().map(|r| r.offset).collect();
        assert_eq!(offsets, [0, 8192, 0, 8192]);
    }

    #[test]
    fn more_bytes_than_the_region_go_round_again() {
        let what = Make {
            bytes: 3 * MIB,
            ..simple("randwrite", "4k")
        };
        let mut counts = vec![0; 256];
        for r in pass(&mut make(&what)) {
            counts[usize::try_from(r.offset / 4096).expect("small")] += 1;
        }
        assert!(counts.iter().all(|c| *c == 3));
    }

    #[test]
    fn a_map_that_would_be_huge_is_refused() {
        let shape = Shape {
            access: Access::parse("randread", KbBase::Binary).expect("rw"),
            sizes: &PerDirection::all(BlockSizes::Range {
                min: 512,
                max: 4096,
            }),
            align: None,
            distribution: &PerDirection::all(Distribution::Uniform),
            without_map: false,
            reads_percent: 50,
            region: 1 << 50,
            limits: Limits {
                bytes: 1 << 50,
                ios: None,
            },
        };
        let error = Generator::new(&shape, Seed::new(1)).expect_err("1 PiB of 512 bytes");
        assert!(error.to_string().contains("norandommap"));
    }
}
