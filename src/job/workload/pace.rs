//! `rate_iops` and `rate`: when a request may be issued.

use core::time::Duration;

use crate::job::direction::{Direction, PerDirection};

/// What a direction may not exceed; `None` is no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rates {
    /// Requests each second.
    pub iops: PerDirection<Option<u64>>,
    /// Bytes each second.
    pub bytes: PerDirection<Option<u64>>,
}

impl Rates {
    /// Whether nothing is limited.
    #[must_use]
    pub fn is_unlimited(&self) -> bool {
        self.iops.iter().chain(&self.bytes).all(Option::is_none)
    }
}

/// Counts what has been issued and says when the next is due.
///
/// Due times are computed from the totals, so that rounding never accumulates and a thread that
/// fell behind catches up, as in fio's linear pacing.
#[derive(Debug, Clone, Default)]
pub struct Pace {
    rates: Rates,
    ios: PerDirection<u64>,
    bytes: PerDirection<u64>,
}

impl Pace {
    /// A pace that has issued nothing yet.
    #[must_use]
    pub fn new(rates: Rates) -> Self {
        Self {
            rates,
            ..Self::default()
        }
    }

    /// When the next request of `direction` is due, counted from the thread's start, and counts
    /// it as issued; `None` if the direction is not limited.
    pub fn admit(&mut self, direction: Direction, len: u32) -> Option<Duration> {
        let by_ios = self.rates.iops[direction].map(|rate| at(self.ios[direction], rate));
        let by_bytes = self.rates.bytes[direction].map(|rate| at(self.bytes[direction], rate));
        self.ios[direction] += 1;
        self.bytes[direction] += u64::from(len);
        by_ios.max(by_bytes)
    }
}

fn at(done: u64, rate: u64) -> Duration {
    let nanos = u128::from(done) * 1_000_000_000 / u128::from(rate.max(1));
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_due_evenly_and_each_direction_has_its_own_clock() {
        let iops = PerDirection::new(Some(1000), None, None);
        let bytes = PerDirection::new(None, Some(1 << 20), None);
        let mut pace = Pace::new(Rates { iops, bytes });
        let due: Vec<_> = (0..4).map(|_| pace.admit(Direction::Read, 4096)).collect();
        assert_eq!(due, [0, 1, 2, 3].map(|ms| Some(Duration::from_millis(ms))));
        assert_eq!(pace.admit(Direction::Write, 1 << 19), Some(Duration::ZERO));
        assert_eq!(
            pace.admit(Direction::Write, 1 << 19),
            Some(Duration::from_millis(500))
        );
        assert_eq!(pace.admit(Direction::Trim, 4096), None);
    }
}
