//! How many bytes may pass in a time.

use pageless_pfn::ByteLen;

use crate::clock::Nanos;

/// Nanoseconds of a period: null_blk fills its bucket fifty times a second.
const PERIOD: u64 = 20_000_000;
/// Periods in a second.
const PERIODS: u64 = 50;

/// A bucket of bytes that is filled up at the start of each period of 20 ms, as null_blk's `mbps`
/// has it (drivers/block/null_blk/main.c). What was not used in a period is gone with it.
///
/// Something longer than a whole bucket takes a full one and the next ones, too; in null_blk it
/// never passes. It is told the time and never asks for it: the same times, the same answers.
///
/// ```
/// use pageless_block::{Nanos, Throttle};
/// use pageless_pfn::ByteLen;
/// // 1 MiB/s are 20971 bytes a period.
/// let mut throttle = Throttle::from_mbps(1);
/// throttle.take(Nanos::new(5), ByteLen::new(16384)).unwrap();
/// let again = throttle.take(Nanos::new(6), ByteLen::new(16384)).unwrap_err();
/// assert_eq!(again, Nanos::new(20_000_005));
/// throttle.take(again, ByteLen::new(16384)).unwrap();
/// ```
#[derive(Clone, Debug)]
pub struct Throttle {
    /// Bytes of a full bucket; at least 1.
    full: u64,
    /// Bytes left in this period.
    left: u64,
    /// Bytes that later periods still have to pay for.
    owed: u64,
    /// When this period began; the first one begins with the first use.
    began: Option<Nanos>,
}

impl Throttle {
    /// This many MiB in a second (2^20 bytes); 0 is taken as the least there is, a byte a period.
    pub const fn from_mbps(mbps: u32) -> Self {
        // In this order, as in Linux: 20971 bytes for each MiB.
        let full = (1 << 20) / PERIODS * mbps as u64;
        Self::with_period(full)
    }

    /// This many bytes in a second, rounded down to a multiple of 50, and at least 50.
    pub const fn new(bytes_per_second: ByteLen) -> Self {
        Self::with_period(bytes_per_second.get() / PERIODS)
    }

    const fn with_period(full: u64) -> Self {
        let full = if full == 0 { 1 } else { full };
        Self {
            full,
            left: full,
            owed: 0,
            began: None,
        }
    }

    /// How many bytes a period has.
    pub const fn bucket(&self) -> ByteLen {
        ByteLen::new(self.full)
    }

    /// Lets `len` bytes pass at `now`, all of them or none. A time before an earlier one counts as
    /// that one.
    ///
    /// # Errors
    /// When to try again: the start of the first period in which it passes, if nobody else takes
    /// anything until then.
    pub fn take(&mut self, now: Nanos, len: ByteLen) -> Result<(), Nanos> {
        self.fill(now);
        let len = len.get();
        // Whatever is longer than a bucket has to find a full one, and leaves the rest owed.
        if len.min(self.full) <= self.left {
            self.owed += len.saturating_sub(self.left);
            self.left = self.left.saturating_sub(len);
            return Ok(());
        }
        // Owed bytes come first; then the bucket must be as full as this needs it.
        let wanted = self.owed.saturating_add(len.min(self.full));
        let periods = wanted.div_ceil(self.full);
        let began = self.began.unwrap_or(now).get();
        Err(Nanos::new(
            began.saturating_add(periods.saturating_mul(PERIOD)),
        ))
    }

    /// Begins as many periods as have begun until `now`.
    fn fill(&mut self, now: Nanos) {
        let began = *self.began.get_or_insert(now);
        let periods = now.since(began) / PERIOD;
        if periods == 0 {
            return;
        }
        self.began = Some(Nanos::new(began.get() + periods * PERIOD));
        let filled = self.full.saturating_mul(periods);
        let paid = filled.min(self.owed);
        self.owed -= paid;
        // Buckets do not add up.
        self.left = self.full.min(filled - paid);
    }
}
