//! How long things took: counts in buckets that are narrow where times are short.

use alloc::boxed::Box;
use alloc::vec;
use core::fmt;

use crate::op::Op;

/// Buckets for each power of two, as in fio: none is wider than 1/64 of what it holds.
const SUB_BUCKETS: u64 = 1 << SUB_BITS;
const SUB_BITS: u32 = 6;

/// Enough for every 64-bit number: the first 64 one by one, then 64 for each of 58 powers of two.
const BUCKETS: usize = (64 - SUB_BITS as usize + 1) << SUB_BITS;

/// Counts of durations in nanoseconds, each to within 1/64 (1.6 %); those below 128 ns exactly. 30 KiB,
/// allocated when it is made and never again.
///
/// Plain numbers behind `&mut`, not atomics: who waits for completions records them, so each thread has
/// one of its own, at the price of an addition, and they are [merged](Histogram::merge) when somebody
/// asks.
///
/// ```
/// use pageless_block::Histogram;
/// let mut latency = Histogram::new();
/// for nanos in 1..=1000 {
///     latency.record(nanos);
/// }
/// assert_eq!((latency.count(), latency.min(), latency.max()), (1000, Some(1), Some(1000)));
/// assert_eq!(latency.percentile(50.0), 503);
/// assert_eq!(latency.percentile(100.0), 1000);
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Histogram {
    buckets: Box<[u64]>,
    count: u64,
    /// Wide enough for 2^64 of the longest.
    sum: u128,
    /// [`u64::MAX`] while there is none.
    min: u64,
    max: u64,
}

/// Durations that are counted as one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bucket {
    /// The shortest, in ns.
    pub from: u64,
    /// The longest, in ns.
    pub to: u64,
    /// How many there were; never 0.
    pub count: u64,
}

impl Histogram {
    /// Nothing counted yet.
    pub fn new() -> Self {
        Self {
            buckets: vec![0; BUCKETS].into_boxed_slice(),
            count: 0,
            sum: 0,
            min: u64::MAX,
            max: 0,
        }
    }

    /// Counts a duration of `nanos`.
    #[inline]
    pub fn record(&mut self, nanos: u64) {
        if let Some(bucket) = self.buckets.get_mut(index(nanos)) {
            *bucket += 1;
        }
        self.count += 1;
        self.sum += u128::from(nanos);
        self.min = self.min.min(nanos);
        self.max = self.max.max(nanos);
    }

    /// Counts what `other` counted, too.
    pub fn merge(&mut self, other: &Self) {
        for (bucket, more) in self.buckets.iter_mut().zip(&other.buckets) {
            *bucket += more;
        }
        self.count += other.count;
        self.sum += other.sum;
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
    }

    /// Forgets everything and keeps its memory.
    pub fn clear(&mut self) {
        self.buckets.fill(0);
        self.count = 0;
        self.sum = 0;
        self.min = u64::MAX;
        self.max = 0;
    }

    /// How many durations.
    pub const fn count(&self) -> u64 {
        self.count
    }

    /// The shortest, exactly.
    pub const fn min(&self) -> Option<u64> {
        if self.count == 0 {
            return None;
        }
        Some(self.min)
    }

    /// The longest, exactly.
    pub const fn max(&self) -> Option<u64> {
        if self.count == 0 {
            return None;
        }
        Some(self.max)
    }

    /// Their mean in ns, exactly but for the rounding of an `f64`; 0 if there are none.
    pub fn mean(&self) -> f64 {
        if self.count == 0 {
            return 0.0;
        }
        self.sum as f64 / self.count as f64
    }

    /// A duration in ns that `percent` of all did not exceed: the end of the bucket in which the
    /// shortest such is, or [`max`](Histogram::max) if that is less. 0 if nothing was counted.
    ///
    /// `percent` beyond 0 to 100 counts as the nearer of the two.
    pub fn percentile(&self, percent: f64) -> u64 {
        // The conversion stops at 0 and at the largest number, and takes what is no number for 0.
        let exact = self.count as f64 * percent / 100.0;
        let floor = exact as u64;
        let rank = floor.saturating_add(u64::from(exact > floor as f64));
        let rank = rank.clamp(1, self.count.max(1));
        let mut seen = 0;
        for bucket in self.buckets() {
            seen += bucket.count;
            if seen >= rank {
                return bucket.to.min(self.max);
            }
        }
        0
    }

    /// The buckets that hold something, from the shortest duration on.
    pub fn buckets(&self) -> impl Iterator<Item = Bucket> {
        let counts = (0..).zip(&self.buckets);
        counts
            .filter(|&(_, &count)| count != 0)
            .map(|(index, &count)| {
                let (from, to) = bounds(index);
                Bucket { from, to, count }
            })
    }
}

impl Default for Histogram {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Histogram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Histogram")
            .field("count", &self.count)
            .field("min", &self.min())
            .field("median", &self.percentile(50.0))
            .field("max", &self.max())
            .finish_non_exhaustive()
    }
}

/// Which bucket holds `nanos`; below [`BUCKETS`].
#[inline]
const fn index(nanos: u64) -> usize {
    if nanos < SUB_BUCKETS {
        return nanos as usize;
    }
    let shift = nanos.ilog2() - SUB_BITS;
    let within = (nanos >> shift) & (SUB_BUCKETS - 1);
    ((shift as usize + 1) << SUB_BITS) + within as usize
}

/// The shortest and the longest duration in the bucket at `index`.
const fn bounds(index: u64) -> (u64, u64) {
    if index < SUB_BUCKETS {
        return (index, index);
    }
    let shift = (index >> SUB_BITS) - 1;
    let from = (SUB_BUCKETS | (index & (SUB_BUCKETS - 1))) << shift;
    (from, from | ((1 << shift) - 1))
}

const _: () = assert!(index(u64::MAX) == BUCKETS - 1);

/// A [`Histogram`] for each operation.
///
/// ```
/// use pageless_block::{Op, OpHistograms};
/// let mut latency = OpHistograms::new();
/// latency.record(Op::Read, 4000);
/// assert_eq!(latency.get(Op::Read).count(), 1);
/// let seen: Vec<Op> = latency.iter().map(|(op, _)| op).collect();
/// assert_eq!(seen, [Op::Read]);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OpHistograms {
    /// In the order of [`Op::ALL`].
    by_op: [Histogram; Op::ALL.len()],
}

impl OpHistograms {
    /// Nothing counted yet. Takes 30 KiB for each operation, at once.
    pub fn new() -> Self {
        Self::default()
    }

    /// Counts that one of `op` took `nanos`.
    #[inline]
    pub fn record(&mut self, op: Op, nanos: u64) {
        if let Some(histogram) = self.by_op.get_mut(place(op)) {
            histogram.record(nanos);
        }
    }

    /// Those of `op`.
    pub fn get(&self, op: Op) -> &Histogram {
        &self.by_op[place(op)]
    }

    /// Counts what `other` counted, too.
    pub fn merge(&mut self, other: &Self) {
        for (histogram, more) in self.by_op.iter_mut().zip(&other.by_op) {
            histogram.merge(more);
        }
    }

    /// The operations there were.
    pub fn iter(&self) -> impl Iterator<Item = (Op, &Histogram)> {
        let all = Op::ALL.into_iter().zip(&self.by_op);
        all.filter(|(_, histogram)| histogram.count() != 0)
    }
}

/// Where `op` stands in [`Op::ALL`].
#[inline]
const fn place(op: Op) -> usize {
    match op {
        Op::Read => 0,
        Op::Write => 1,
        Op::Flush => 2,
        Op::Discard => 3,
        Op::SecureErase => 4,
        Op::ZoneAppend => 5,
        Op::WriteZeroes => 6,
        Op::ZoneOpen => 7,
        Op::ZoneClose => 8,
        Op::ZoneFinish => 9,
        Op::ZoneReset => 10,
        Op::ZoneResetAll => 11,
        Op::DriverIn => 12,
        Op::DriverOut => 13,
    }
}

const _: () = {
    let mut at = 0;
    while at < Op::ALL.len() {
        assert!(place(Op::ALL[at]) == at);
        at += 1;
    }
};

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    fn of(values: &[u64]) -> Histogram {
        let mut histogram = Histogram::new();
        for &value in values {
            histogram.record(value);
        }
        histogram
    }

    /// Durations of every magnitude, as many short ones as long ones.
    fn durations() -> impl Strategy<Value = Vec<u64>> {
        let duration = (0_u32..64, any::<u64>()).prop_map(|(shift, bits)| bits >> shift);
        prop::collection::vec(duration, 1..300)
    }

    #[test]
    fn buckets_meet_without_gap_or_overlap() {
        let mut next = Some(0);
        for bucket in 0..BUCKETS as u64 {
            let (from, to) = bounds(bucket);
            assert_eq!(Some(from), next);
            assert_eq!((index(from), index(to)), (bucket as usize, bucket as usize));
            assert!(to - from <= from / 64, "{from}..={to} is too wide");
            next = to.checked_add(1);
        }
        assert_eq!(next, None, "the last one ends where the numbers do");
    }

    #[test]
    fn an_empty_one_has_no_shortest_and_no_longest() {
        let empty = Histogram::new();
        assert_eq!((empty.min(), empty.max(), empty.count()), (None, None, 0));
        assert_eq!((empty.percentile(50.0), empty.mean()), (0, 0.0));
        assert_eq!(empty.buckets().count(), 0);
    }

    #[test]
    fn any_number_is_a_percentage() {
        let histogram = of(&[5, 6, 7]);
        for (percent, expected) in [
            (f64::NEG_INFINITY, 5),
            (-1.0, 5),
            (0.0, 5),
            (f64::NAN, 5),
            (34.0, 6),
            (100.0, 7),
            (f64::INFINITY, 7),
        ] {
            assert_eq!(histogram.percentile(percent), expected, "{percent}");
        }
    }

    #[test]
    fn clearing_leaves_a_new_one() {
        let mut histogram = of(&[5, 6, u64::MAX]);
        histogram.clear();
        assert_eq!(histogram, Histogram::new());
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            failure_persistence: None,
            ..ProptestConfig::default()
        })]

        #[test]
        fn percentiles_are_those_of_a_sorted_list(mut values in durations(), percent in 0.0..=100.0) {
            let histogram = of(&values);
            values.sort_unstable();
            let rank = f64::ceil(values.len() as f64 * percent / 100.0) as usize;
            let exact = values[rank.clamp(1, values.len()) - 1];
            let found = histogram.percentile(percent);
            prop_assert!(found >= exact, "{found} < {exact}");
            prop_assert!(found <= values[values.len() - 1], "{found} is longer than the longest");
            prop_assert!(found - exact <= exact / 64, "{found} is too far from {exact}");
            prop_assert_eq!(histogram.min(), values.first().copied());
            prop_assert_eq!(histogram.max(), values.last().copied());
            prop_assert_eq!(histogram.count(), values.len() as u64);
            let mean = values.iter().map(|&value| value as f64).sum::<f64>() / values.len() as f64;
            prop_assert!((histogram.mean() - mean).abs() <= mean * 1e-9);
        }

        #[test]
        fn merging_is_counting_both(one in durations(), other in durations()) {
            let mut merged = of(&one);
            merged.merge(&of(&other));
            let both: Vec<u64> = one.iter().chain(&other).copied().collect();
            prop_assert_eq!(&merged, &of(&both));
            let counted: u64 = merged.buckets().map(|bucket| bucket.count).sum();
            prop_assert_eq!(counted, both.len() as u64);
        }

        /// Theirs with two significant digits is at least as fine as ours (1/128): no two answers
        /// differ by more than the two errors together.
        #[test]
        #[cfg_attr(miri, ignore = "long, and nothing in it for Miri")]
        fn percentiles_agree_with_hdrhistogram(values in durations(), percent in 0.0..=100.0) {
            let ours = of(&values);
            let longest = u64::MAX / 2;
            let mut theirs = hdrhistogram::Histogram::<u64>::new_with_bounds(1, longest, 2).unwrap();
            for &value in &values {
                theirs.saturating_record(value);
            }
            let found = ours.percentile(percent).min(longest);
            let expected = theirs.value_at_percentile(percent).min(longest);
            let allowed = expected / 64 + expected / 128 + 1;
            prop_assert!(
                found.abs_diff(expected) <= allowed,
                "{} and {} at {} %", found, expected, percent
            );
        }
    }
}
