//! `rw=`: directions and order.

use crate::job::direction::Direction;
use crate::job::error::ValueError;
use crate::job::size::{KbBase, job_size};

/// Which directions a section mixes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mix {
    /// One direction only.
    Only(Direction),
    /// Reads and writes, drawn by `rwmixread`.
    ReadWrite,
    /// Each block is trimmed, then written.
    TrimThenWrite,
}

/// In which order a section visits its blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// One after another, `skip` bytes left out after each.
    Sequential {
        /// Bytes left out after each request (`rw=write:4k`).
        skip: u64,
    },
    /// At random, a new position after every `run` requests (`rw=randread:8`).
    Random {
        /// Consecutive requests from one random position, at least 1.
        run: u32,
    },
}

/// The access pattern of a section.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Access {
    /// Its directions.
    pub mix: Mix,
    /// Its order.
    pub order: Order,
}

impl Access {
    /// What fio does when a job says nothing.
    pub const DEFAULT: Self = Self {
        mix: Mix::Only(Direction::Read),
        order: Order::Sequential { skip: 0 },
    };

    /// Reads fio's `rw` value, `:N` included.
    ///
    /// # Errors
    /// An unknown word or a malformed `:N`.
    pub fn parse(text: &str, base: KbBase) -> Result<Self, ValueError> {
        let (word, modifier) = match text.split_once(':') {
            Some((word, modifier)) => (word, Some(modifier)),
            None => (text, None),
        };
        let (random, mix) = match word {
            "read" => (false, Mix::Only(Direction::Read)),
            "write" => (false, Mix::Only(Direction::Write)),
            "trim" => (false, Mix::Only(Direction::Trim)),
            "randread" => (true, Mix::Only(Direction::Read)),
            "randwrite" => (true, Mix::Only(Direction::Write)),
            "randtrim" => (true, Mix::Only(Direction::Trim)),
            "rw" | "readwrite" => (false, Mix::ReadWrite),
            "randrw" => (true, Mix::ReadWrite),
            "trimwrite" => (false, Mix::TrimThenWrite),
            "randtrimwrite" => (true, Mix::TrimThenWrite),
            _ => {
                return Err(ValueError::NotOneOf(
                    "read, write, trim, randread, randwrite, randtrim, rw, readwrite, randrw, \
                     trimwrite, randtrimwrite",
                ));
            }
        };
        let number = modifier
            .map(|m| job_size(m, base))
            .transpose()?
            .map(|b| b.get());
        let order = if random {
            let run = u32::try_from(number.unwrap_or(1)).ok().filter(|n| *n > 0);
            let run = run.ok_or(ValueError::OutOfRange {
                low: "1".into(),
                high: u32::MAX.to_string(),
            })?;
            Order::Random { run }
        } else {
            let skip = number.unwrap_or(0);
            if skip % 512 != 0 {
                return Err(ValueError::Shape(
                    "write:4k, a multiple of the 512-byte sector",
                ));
            }
            Order::Sequential { skip }
        };
        Ok(Self { mix, order })
    }

    /// Whether requests of `direction` occur.
    #[must_use]
    pub fn has(self, direction: Direction) -> bool {
        match self.mix {
            Mix::Only(only) => only == direction,
            Mix::ReadWrite => direction != Direction::Trim,
            Mix::TrimThenWrite => direction != Direction::Read,
        }
    }

    /// Whether blocks are visited at random.
    #[must_use]
    pub const fn is_random(self) -> bool {
        matches!(self.order, Order::Random { .. })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_ten_modes_and_both_aliases_are_read() {
        for (word, random, directions) in [
            ("read", false, "r"),
            ("write", false, "w"),
            ("trim", false, "t"),
            ("randread", true, "r"),
            ("randwrite", true, "w"),
            ("randtrim", true, "t"),
            ("rw", false, "rw"),
            ("readwrite", false, "rw"),
            ("randrw", true, "rw"),
            ("trimwrite", false, "wt"),
            ("randtrimwrite", true, "wt"),
        ] {
            let access = Access::parse(word, KbBase::Binary).expect(word);
            assert_eq!(access.is_random(), random, "{word}");
            let found: String = Direction::ALL
                .iter()
                .filter(|d| access.has(**d))
                .filter_map(|d| d.name().chars().next())
                .collect();
            assert_eq!(found, directions, "{word}");
        }
    }

    #[test]
    fn the_number_behind_the_colon_depends_on_the_order() {
        let order = |text| Access::parse(text, KbBase::Binary).map(|a| a.order);
        assert_eq!(order("write:4k"), Ok(Order::Sequential { skip: 4096 }));
        assert_eq!(order("randread:8"), Ok(Order::Random { run: 8 }));
        for text in ["", "foo", "randread:0", "randread:x", "read:", "READ"] {
            assert!(order(text).is_err(), "{text}");
        }
    }
}
