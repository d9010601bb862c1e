//! What is measured of each direction.

use core::time::Duration;
use std::time::Instant;

use hdrhistogram::Histogram;

/// Latencies in nanoseconds: a histogram with three significant digits, and exact extremes.
#[derive(Debug, Clone)]
pub struct Latencies {
    histogram: Histogram<u64>,
    sum: u64,
    min: u64,
    max: u64,
}

/// Longer latencies are counted as this long: one hour.
const LONGEST_NS: u64 = 3_600_000_000_000;

impl Default for Latencies {
    fn default() -> Self {
        Self::new()
    }
}

impl Latencies {
    /// No latencies yet. Recording allocates nothing afterwards.
    #[must_use]
    pub fn new() -> Self {
        // The bounds are constants that the crate accepts; a histogram that grows would allocate.
        let histogram = Histogram::new_with_bounds(1, LONGEST_NS, 3)
            .or_else(|_| Histogram::new(3))
            .unwrap_or_else(|error| unreachable!("three digits are allowed: {error}"));
        Self {
            histogram,
            sum: 0,
            min: u64::MAX,
            max: 0,
        }
    }

    /// Adds one latency.
    #[inline]
    pub fn record(&mut self, latency: Duration) {
        self.record_nanos(u64::try_from(latency.as_nanos()).unwrap_or(LONGEST_NS));
    }

    /// Adds one latency of so many nanoseconds.
    #[inline]
    pub fn record_nanos(&mut self, nanos: u64) {
        self.histogram.saturating_record(nanos);
        self.sum = self.sum.saturating_add(nanos);
        self.min = self.min.min(nanos);
        self.max = self.max.max(nanos);
    }

    /// Forgets all.
    pub fn reset(&mut self) {
        self.histogram.reset();
        (self.sum, self.min, self.max) = (0, u64::MAX, 0);
    }

    /// Adds those of another.
    pub fn merge(&mut self, other: &Self) {
        // Both have the same bounds, which is all that adding can fail for.
        let added = self.histogram.add(&other.histogram);
        debug_assert!(added.is_ok());
        self.sum = self.sum.saturating_add(other.sum);
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.histogram.len()
    }

    /// The shortest, in nanoseconds; 0 if there is none.
    #[must_use]
    pub fn min(&self) -> u64 {
        if self.count() == 0 { 0 } else { self.min }
    }

    /// The longest, in nanoseconds.
    #[must_use]
    pub const fn max(&self) -> u64 {
        self.max
    }

    /// The mean in nanoseconds, exact.
    #[must_use]
    pub fn mean(&self) -> f64 {
        if self.count() == 0 {
            0.0
        } else {
            self.sum as f64 / self.count() as f64
        }
    }

    /// The standard deviation in nanoseconds, to three digits.
    #[must_use]
    pub fn stddev(&self) -> f64 {
        if self.count() == 0 {
            0.0
        } else {
            self.histogram.stdev()
        }
    }

    /// The latency in nanoseconds that `percent` of all do not exceed, to three digits.
    #[must_use]
    pub fn percentile(&self, percent: f64) -> u64 {
        self.histogram
            .value_at_quantile(percent / 100.0)
            .min(self.max)
    }

    /// The recorded values with their counts, ascending.
    pub fn values(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.histogram
            .iter_recorded()
            .map(|v| (v.value_iterated_to(), v.count_since_last_iteration()))
    }
}

/// Rates sampled while the job ran: in each second, so many.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Samples {
    count: u64,
    min: f64,
    max: f64,
    sum: f64,
    squares: f64,
}

impl Default for Samples {
    fn default() -> Self {
        Self {
            count: 0,
            min: f64::INFINITY,
            max: 0.0,
            sum: 0.0,
            squares: 0.0,
        }
    }
}

impl Samples {
    /// Adds a sample.
    pub fn push(&mut self, value: f64) {
        self.count += 1;
        self.min = self.min.min(value);
        self.max = self.max.max(value);
        self.sum += value;
        self.squares += value * value;
    }

    /// Adds those of another thread that ran at the same time, as samples of their own.
    pub fn merge(&mut self, other: &Self) {
        self.count += other.count;
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
        self.sum += other.sum;
        self.squares += other.squares;
    }

    /// How many samples there are.
    #[must_use]
    pub const fn count(&self) -> u64 {
        self.count
    }

    /// The least; 0 if there is none.
    #[must_use]
    pub const fn min(&self) -> f64 {
        if self.count == 0 { 0.0 } else { self.min }
    }

    /// The greatest.
    #[must_use]
    pub const fn max(&self) -> f64 {
        self.max
    }

    /// The mean.
    #[must_use]
    pub fn mean(&self) -> f64 {
        if self.count == 0 {
            0.0
        } else {
            self.sum / self.count as f64
        }
    }

    /// The standard deviation.
    #[must_use]
    pub fn stddev(&self) -> f64 {
        if self.count == 0 {
            return 0.0;
        }
        let mean = self.mean();
        (self.squares / self.count as f64 - mean * mean)
            .max(0.0)
            .sqrt()
    }
}

/// Everything about one direction of a section.
#[derive(Debug, Clone, Default)]
pub struct DirectionStats {
    /// Requests completed.
    pub ios: u64,
    /// Bytes of those.
    pub bytes: u64,
    /// From just before a request was pinned and submitted until it had come back and was
    /// unpinned. A device here completes within its submission, as fio's synchronous engines do,
    /// so this is fio's `lat` and `clat` in one, and there is no `slat` apart from it.
    pub latencies: Latencies,
    /// How long the section issued requests of this direction. Of threads that were merged, from
    /// the first one's start to the last one's end.
    pub runtime: Duration,
    /// When it first began to and when it last ended.
    pub interval: Option<(Instant, Instant)>,
    /// Bytes each second, sampled twice a second.
    pub bandwidth: Samples,
    /// Requests each second, sampled twice a second.
    pub iops: Samples,
}

impl DirectionStats {
    /// Accounts for time in which requests of this direction were issued.
    pub(super) fn ran(&mut self, from: Instant, to: Instant) {
        self.runtime += to.saturating_duration_since(from);
        self.interval = hull(self.interval, Some((from, to)));
    }

    /// Adds another thread's, which belongs to the same group. Rates are over the time from the
    /// first start to the last end: threads that are short hardly overlap.
    pub fn merge(&mut self, other: &Self) {
        self.ios += other.ios;
        self.bytes += other.bytes;
        self.latencies.merge(&other.latencies);
        self.interval = hull(self.interval, other.interval);
        let whole = self.interval.map_or(Duration::ZERO, length);
        self.runtime = self.runtime.max(other.runtime).max(whole);
        self.bandwidth.merge(&other.bandwidth);
        self.iops.merge(&other.iops);
    }

    /// Bytes each second over the whole runtime.
    #[must_use]
    pub fn bytes_per_second(&self) -> f64 {
        per_second(self.bytes, self.runtime)
    }

    /// Requests each second over the whole runtime.
    #[must_use]
    pub fn per_second(&self) -> f64 {
        per_second(self.ios, self.runtime)
    }

    /// If nothing was sampled because the section was too short, the whole is one sample.
    pub(super) fn settle_samples(&mut self) {
        if self.bandwidth.count() == 0 && self.ios > 0 {
            self.bandwidth.push(self.bytes_per_second());
            self.iops.push(self.per_second());
        }
    }
}

/// The shortest interval around both.
pub(super) fn hull(
    one: Option<(Instant, Instant)>,
    other: Option<(Instant, Instant)>,
) -> Option<(Instant, Instant)> {
    match (one, other) {
        (Some(a), Some(b)) => Some((a.0.min(b.0), a.1.max(b.1))),
        (one, other) => one.or(other),
    }
}

/// From the first instant to the second.
pub(super) fn length((from, to): (Instant, Instant)) -> Duration {
    to.saturating_duration_since(from)
}

fn per_second(count: u64, time: Duration) -> f64 {
    if time.is_zero() {
        0.0
    } else {
        count as f64 / time.as_secs_f64()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extremes_and_mean_are_exact_and_percentiles_have_three_digits() {
        let mut latencies = Latencies::new();
        for nanos in 1..=100_000u64 {
            latencies.record(Duration::from_nanos(nanos));
        }
        assert_eq!(
            (latencies.min(), latencies.max(), latencies.count()),
            (1, 100_000, 100_000)
        );
        assert!((latencies.mean() - 50_000.5).abs() < 1e-6);
        let p99 = latencies.percentile(99.0);
        assert!(p99.abs_diff(99_000) < 100, "{p99}");
        assert_eq!(latencies.values().map(|(_, n)| n).sum::<u64>(), 100_000);
        let mut other = Latencies::new();
        other.record(Duration::from_secs(100_000));
        latencies.merge(&other);
        assert_eq!(latencies.count(), 100_001);
        latencies.reset();
        assert_eq!(
            (latencies.min(), latencies.max(), latencies.count()),
            (0, 0, 0)
        );
    }

    #[test]
    fn threads_that_ran_one_after_the_other_are_not_counted_as_if_at_the_same_time() {
        let begin = Instant::now();
        let second = |n| begin + Duration::from_secs(n);
        let thread = |from, to| {
            let mut stats = DirectionStats {
                ios: 100,
                bytes: 100 * 4096,
                ..DirectionStats::default()
            };
            stats.ran(second(from), second(to));
            stats
        };
        let mut group = thread(0, 1);
        assert!((group.per_second() - 100.0).abs() < 1e-9);
        group.merge(&thread(1, 2));
        group.merge(&thread(3, 4));
        assert_eq!(group.runtime, Duration::from_secs(4));
        assert!((group.per_second() - 75.0).abs() < 1e-9);
        let mut together = thread(0, 2);
        together.merge(&thread(0, 2));
        assert!((together.per_second() - 100.0).abs() < 1e-9);
    }

    #[test]
    fn samples_merge_as_if_they_were_one_row() {
        let (mut a, mut b, mut all) = (Samples::default(), Samples::default(), Samples::default());
        for (n, v) in [3.0, 5.0, 10.0, 2.0].into_iter().enumerate() {
            if n < 2 { &mut a } else { &mut b }.push(v);
            all.push(v);
        }
        a.merge(&b);
        assert_eq!(a, all);
        assert_eq!((a.min(), a.max(), a.mean()), (2.0, 10.0, 5.0));
    }
}
