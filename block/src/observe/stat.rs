//! What a disk did so far, in the 17 numbers of `/sys/block/*/stat`.

use alloc::boxed::Box;
use core::fmt;

use pageless_pfn::ByteLen;

use crate::clock::Nanos;
use crate::op::Op;
use crate::position::SECTOR_SIZE;
use crate::sync::atomic::{AtomicU64, Ordering};

/// Nanoseconds in the unit of all ticks.
const MILLI: u64 = 1_000_000;

/// The line in `/sys/block/*/stat` (Documentation/block/stat.rst), and what its [`Display`] prints.
///
/// Ticks are milliseconds. Those of I/Os add up over all that are in flight: with several at a time
/// they grow by more than 1000 a second. Linux keeps most of the numbers in 32 bits, where they
/// start again; these do not.
///
/// ```
/// use pageless_block::DiskStat;
/// let stat = DiskStat { read_ios: 2, read_sectors: 16, ..DiskStat::default() };
/// assert!(stat.to_string().starts_with("       2        0       16        0 "));
/// ```
///
/// [`Display`]: fmt::Display
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskStat {
    /// Reads completed, whether they failed or not.
    pub read_ios: u64,
    /// Reads that joined another request.
    pub read_merges: u64,
    /// Sectors read.
    pub read_sectors: u64,
    /// From start to completion, over all reads.
    pub read_ticks: u64,
    /// Writes completed: whatever changes the device and is no discard.
    pub write_ios: u64,
    /// Writes that joined another request.
    pub write_merges: u64,
    /// Sectors written.
    pub write_sectors: u64,
    /// From start to completion, over all writes.
    pub write_ticks: u64,
    /// I/Os started and not completed.
    pub in_flight: u64,
    /// How long something was in flight, to a tick ([`StatCounters::started_at`]).
    pub io_ticks: u64,
    /// The sum of the ticks of reads, writes, discards and flushes.
    pub time_in_queue: u64,
    /// Discards completed.
    pub discard_ios: u64,
    /// Discards that joined another request.
    pub discard_merges: u64,
    /// Sectors discarded.
    pub discard_sectors: u64,
    /// From start to completion, over all discards.
    pub discard_ticks: u64,
    /// Flushes of the device completed: several bios that asked for one may have shared it.
    pub flush_ios: u64,
    /// From start to completion, over all flushes.
    pub flush_ticks: u64,
}

/// The kernel's line, without its newline.
impl fmt::Display for DiskStat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let numbers = [
            self.read_ios,
            self.read_merges,
            self.read_sectors,
            self.read_ticks,
            self.write_ios,
            self.write_merges,
            self.write_sectors,
            self.write_ticks,
            self.in_flight,
            self.io_ticks,
            self.time_in_queue,
            self.discard_ios,
            self.discard_merges,
            self.discard_sectors,
            self.discard_ticks,
            self.flush_ios,
            self.flush_ticks,
        ];
        let mut between = "";
        for number in numbers {
            write!(f, "{between}{number:8}")?;
            between = " ";
        }
        Ok(())
    }
}

/// Which four of the numbers an operation counts in.
#[derive(Clone, Copy)]
enum Group {
    Read = 0,
    Write = 1,
    Discard = 2,
}

impl Group {
    /// As in Linux (`op_stat_group`). Flushes have numbers of their own, and what a driver asks of
    /// its own device is nobody's I/O.
    #[inline]
    const fn of(op: Op) -> Option<Self> {
        match op {
            Op::Flush | Op::DriverIn | Op::DriverOut => None,
            Op::Discard => Some(Self::Discard),
            _ if op.is_write() => Some(Self::Write),
            _ => Some(Self::Read),
        }
    }
}

/// Counts what becomes a [`DiskStat`]; written by the contexts of a device, read by anybody.
///
/// Each context has a cell of its own, which only the thread that runs it may write: counting is then a
/// plain load and store to a line that nobody else writes, one for a start and three for a completion.
/// A context beyond those asked for is counted in one cell that they share, by slower instructions.
///
/// Some things are neither started nor completed here. A bio that joins another's request is
/// [`merged`](StatCounters::merged). [`Op::Flush`] is counted by [`flushed`](StatCounters::flushed)
/// alone and ignored elsewhere, as are `DRV_IN` and `DRV_OUT`.
///
/// ```
/// use pageless_block::{Op, StatCounters};
/// use pageless_pfn::ByteLen;
/// let stat = StatCounters::new(2);
/// stat.started(0, Op::Read);
/// stat.started(1, Op::Write);
/// stat.completed(0, Op::Read, ByteLen::new(4096), 3_000_000);
/// let now = stat.snapshot();
/// assert_eq!((now.read_ios, now.read_sectors, now.read_ticks), (1, 8, 3));
/// assert_eq!(now.in_flight, 1);
/// ```
#[derive(Debug)]
pub struct StatCounters {
    /// One for each context, and a last one for all others.
    cells: Box<[Cell]>,
    flushes: AtomicU64,
    flush_nanos: AtomicU64,
    busy: Busy,
}

/// On cache lines of its own; 128 bytes because they are fetched in pairs.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Cell {
    started: AtomicU64,
    groups: [Counts; 3],
}

// Loom's atomics are larger.
#[cfg(not(loom))]
const _: () = assert!(size_of::<Cell>() == 128);

#[derive(Debug, Default)]
struct Counts {
    ios: AtomicU64,
    merges: AtomicU64,
    sectors: AtomicU64,
    nanos: AtomicU64,
}

/// How long something was in flight, sampled as Linux does it (`update_io_ticks`): whoever first starts
/// or completes an I/O in a new tick says whether something was in flight until then. Shared by all
/// contexts, but written once in a tick only.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Busy {
    /// The end of the tick up to which `ticks` counts, in ns; 0 before anything has happened.
    until: AtomicU64,
    ticks: AtomicU64,
}

/// A cell, and whether this thread is the only one that writes it.
#[derive(Clone, Copy)]
struct Writer<'a> {
    cell: &'a Cell,
    alone: bool,
}

impl Writer<'_> {
    /// Relaxed is enough for all but `ios`: these are numbers, and nothing is read on the strength
    /// of them.
    #[inline]
    fn add(self, to: &AtomicU64, by: u64, store: Ordering) {
        if self.alone {
            to.store(to.load(Ordering::Relaxed).wrapping_add(by), store);
        } else {
            to.fetch_add(by, store);
        }
    }
}

impl StatCounters {
    /// Nothing counted yet, for contexts 0 to `contexts - 1`.
    pub fn new(contexts: u16) -> Self {
        Self {
            cells: (0..=contexts).map(|_| Cell::default()).collect(),
            flushes: AtomicU64::new(0),
            flush_nanos: AtomicU64::new(0),
            busy: Busy::default(),
        }
    }

    /// An I/O begins, in a queue that has no clock: it counts as in flight, but not for
    /// [`DiskStat::io_ticks`].
    #[inline]
    pub fn started(&self, context: u16, op: Op) {
        if Group::of(op).is_some()
            && let Some(writer) = self.writer(context)
        {
            writer.add(&writer.cell.started, 1, Ordering::Relaxed);
        }
    }

    /// An I/O begins at `now`.
    ///
    /// From these moments and those of [`completed_at`](StatCounters::completed_at) comes
    /// [`DiskStat::io_ticks`], sampled as Linux does it: a millisecond counts if something was in
    /// flight when it ended. An I/O shorter than that counts a whole one or none, as chance has it,
    /// and the sum comes out right on average.
    #[inline]
    pub fn started_at(&self, context: u16, op: Op, now: Nanos) {
        self.tick(now, false);
        self.started(context, op);
    }

    /// A bio joined a request of another one.
    #[inline]
    pub fn merged(&self, context: u16, op: Op) {
        if let Some(group) = Group::of(op)
            && let Some(writer) = self.writer(context)
            && let Some(counts) = writer.cell.groups.get(group as usize)
        {
            writer.add(&counts.merges, 1, Ordering::Relaxed);
        }
    }

    /// An I/O ends that took `nanos`, 0 without a clock; `bytes` of it came to pass. That is for
    /// the context of the thread that says so, whichever one started it.
    #[inline]
    pub fn completed(&self, context: u16, op: Op, bytes: ByteLen, nanos: u64) {
        if let Some(group) = Group::of(op)
            && let Some(writer) = self.writer(context)
            && let Some(counts) = writer.cell.groups.get(group as usize)
        {
            let sectors = bytes.get() / SECTOR_SIZE;
            writer.add(&counts.sectors, sectors, Ordering::Relaxed);
            writer.add(&counts.nanos, nanos, Ordering::Relaxed);
            // Release pairs with Acquire in `finished`: who sees this I/O as ended sees that it began.
            writer.add(&counts.ios, 1, Ordering::Release);
        }
    }

    /// An I/O that began at `started` ends at `now`; see [`completed`](StatCounters::completed) and
    /// [`started_at`](StatCounters::started_at).
    #[inline]
    pub fn completed_at(&self, context: u16, op: Op, bytes: ByteLen, started: Nanos, now: Nanos) {
        if Group::of(op).is_some() {
            self.tick(now, true);
        }
        self.completed(context, op, bytes, now.since(started));
    }

    /// A flush of the device ends that took `nanos`, 0 without a clock. Any thread may say so:
    /// there is hardly ever more than one of them.
    #[inline]
    pub fn flushed(&self, nanos: u64) {
        self.flushes.fetch_add(1, Ordering::Relaxed);
        self.flush_nanos.fetch_add(nanos, Ordering::Relaxed);
    }

    /// The numbers as they are. While I/O goes on they need not be of one moment, but each of them
    /// only grows, except `in_flight`, and that is never less than what has surely been in flight
    /// meanwhile.
    pub fn snapshot(&self) -> DiskStat {
        let finished = self.finished();
        let mut sum = [[0_u64; 3]; 3];
        for cell in &self.cells {
            for (sum, counts) in sum.iter_mut().zip(&cell.groups) {
                for (sum, count) in
                    sum.iter_mut()
                        .zip([&counts.merges, &counts.sectors, &counts.nanos])
                {
                    *sum = sum.wrapping_add(count.load(Ordering::Relaxed));
                }
            }
        }
        let flush_nanos = self.flush_nanos.load(Ordering::Relaxed);
        let [reads, writes, discards] = finished;
        let [
            [read_merges, read_sectors, read_nanos],
            [write_merges, write_sectors, write_nanos],
            [discard_merges, discard_sectors, discard_nanos],
        ] = sum;
        let all = [read_nanos, write_nanos, discard_nanos, flush_nanos];
        DiskStat {
            read_ios: reads,
            read_merges,
            read_sectors,
            read_ticks: read_nanos / MILLI,
            write_ios: writes,
            write_merges,
            write_sectors,
            write_ticks: write_nanos / MILLI,
            in_flight: self.unfinished(finished),
            io_ticks: self.busy.ticks.load(Ordering::Relaxed),
            time_in_queue: all.into_iter().fold(0, u64::wrapping_add) / MILLI,
            discard_ios: discards,
            discard_merges,
            discard_sectors,
            discard_ticks: discard_nanos / MILLI,
            flush_ios: self.flushes.load(Ordering::Relaxed),
            flush_ticks: flush_nanos / MILLI,
        }
    }

    /// I/Os that have ended, by group.
    fn finished(&self) -> [u64; 3] {
        let mut finished = [0_u64; 3];
        for cell in &self.cells {
            for (sum, counts) in finished.iter_mut().zip(&cell.groups) {
                // Acquire pairs with Release in `completed`: the start of each of them is seen by
                // loads after this one.
                *sum = sum.wrapping_add(counts.ios.load(Ordering::Acquire));
            }
        }
        finished
    }

    /// I/Os that have begun, without those that had `finished` before.
    fn unfinished(&self, finished: [u64; 3]) -> u64 {
        let started = self.cells.iter().fold(0, |sum: u64, cell| {
            sum.wrapping_add(cell.started.load(Ordering::Relaxed))
        });
        // Less only if somebody completes what was never started.
        started.saturating_sub(finished.into_iter().fold(0, u64::wrapping_add))
    }

    #[inline]
    fn writer(&self, context: u16) -> Option<Writer<'_>> {
        let (shared, own) = self.cells.split_last()?;
        Some(match own.get(usize::from(context)) {
            Some(cell) => Writer { cell, alone: true },
            None => Writer {
                cell: shared,
                alone: false,
            },
        })
    }

    /// Something happens at `now`; `busy` if an I/O was in flight until now for sure.
    #[inline]
    fn tick(&self, now: Nanos, busy: bool) {
        let until = self.busy.until.load(Ordering::Relaxed);
        if now.get() >= until {
            self.next_tick(now, until, busy);
        }
    }

    #[cold]
    fn next_tick(&self, now: Nanos, until: u64, busy: bool) {
        let whole = now.get() / MILLI;
        let next = whole.saturating_add(1).saturating_mul(MILLI);
        // Relaxed: the exchange decides who counts this tick, and hands nothing over.
        let exchange =
            self.busy
                .until
                .compare_exchange(until, next, Ordering::Relaxed, Ordering::Relaxed);
        // The first time nothing is known about the time before.
        if exchange.is_err() || until == 0 {
            return;
        }
        if busy || self.unfinished(self.finished()) > 0 {
            let ticks = (next / MILLI).saturating_sub(until / MILLI);
            self.busy.ticks.fetch_add(ticks, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use alloc::string::{String, ToString};
    use alloc::vec::Vec;

    use super::*;

    const KIB4: ByteLen = ByteLen::new(4096);

    fn at(micros: u64) -> Nanos {
        Nanos::new(micros * 1000)
    }

    #[test]
    fn a_line_is_the_kernels() {
        let stat = of([
            1,
            2,
            3,
            4,
            5,
            6,
            123_456_789,
            8,
            9,
            10,
            11,
            12,
            13,
            14,
            15,
            16,
            17,
        ]);
        assert_eq!(
            stat.to_string(),
            "       1        2        3        4        5        6 123456789        8        9 \
             \x20     10       11       12       13       14       15       16       17"
        );
    }

    /// The running kernel's own lines come out as they went in.
    #[test]
    #[cfg_attr(miri, ignore = "reads /sys")]
    fn lines_of_this_machines_disks_come_out_as_they_went_in() {
        let disks = std::fs::read_dir("/sys/block").into_iter().flatten();
        let lines: Vec<String> = disks
            .filter_map(|disk| std::fs::read_to_string(disk.ok()?.path().join("stat")).ok())
            .collect();
        if lines.is_empty() {
            std::eprintln!("SKIPPED: no /sys/block/*/stat to compare with");
        }
        for line in lines {
            let numbers: Vec<u64> = line
                .split_whitespace()
                .map(|number| number.parse().unwrap())
                .collect();
            assert_eq!(of(numbers.try_into().unwrap()).to_string() + "\n", line);
        }
    }

    fn of(numbers: [u64; 17]) -> DiskStat {
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p, q] = numbers;
        DiskStat {
            read_ios: a,
            read_merges: b,
            read_sectors: c,
            read_ticks: d,
            write_ios: e,
            write_merges: f,
            write_sectors: g,
            write_ticks: h,
            in_flight: i,
            io_ticks: j,
            time_in_queue: k,
            discard_ios: l,
            discard_merges: m,
            discard_sectors: n,
            discard_ticks: o,
            flush_ios: p,
            flush_ticks: q,
        }
    }

    #[test]
    fn each_operation_counts_where_linux_counts_it() {
        for op in Op::ALL {
            let stat = StatCounters::new(1);
            stat.started(0, op);
            let in_flight = stat.snapshot().in_flight;
            stat.completed(0, op, KIB4, 0);
            stat.merged(0, op);
            let now = stat.snapshot();
            let found = (now.read_ios, now.write_ios, now.discard_ios);
            let expected = match op {
                Op::Read => (1, 0, 0),
                Op::Discard => (0, 0, 1),
                Op::Flush | Op::DriverIn | Op::DriverOut => (0, 0, 0),
                _ => (0, 1, 0),
            };
            assert_eq!(found, expected, "{op}");
            let merges = (now.read_merges, now.write_merges, now.discard_merges);
            assert_eq!(merges, expected, "{op}");
            let (reads, writes, discards) = expected;
            assert_eq!(in_flight, reads + writes + discards, "{op}");
            assert_eq!(now.in_flight, 0, "{op}");
        }
    }

    #[test]
    fn flushes_are_counted_apart_but_take_time_in_the_queue() {
        let stat = StatCounters::new(1);
        stat.flushed(2_500_000);
        stat.completed(0, Op::Read, KIB4, 700_000);
        let now = stat.snapshot();
        assert_eq!((now.flush_ios, now.flush_ticks), (1, 2));
        assert_eq!(now.read_ticks, 0);
        assert_eq!(now.time_in_queue, 3);
    }

    #[test]
    fn contexts_beyond_the_last_are_counted_together() {
        let stat = StatCounters::new(2);
        for context in [0, 1, 2, 3, u16::MAX] {
            stat.started(context, Op::Write);
        }
        assert_eq!(stat.snapshot().in_flight, 5);
        for context in [3, 3, 3, 0, 0] {
            stat.completed(context, Op::Write, KIB4, 0);
        }
        assert_eq!(stat.snapshot().in_flight, 0);
        assert_eq!(stat.snapshot().write_sectors, 40);
    }

    #[test]
    fn threads_of_contexts_beyond_the_last_lose_no_counts() {
        let stat = StatCounters::new(0);
        let rounds = if cfg!(miri) { 20 } else { 200_000 };
        // They start together: otherwise the first is done before the second begins.
        let together = std::sync::Barrier::new(2);
        std::thread::scope(|scope| {
            for context in 0..2 {
                let (stat, together) = (&stat, &together);
                scope.spawn(move || {
                    together.wait();
                    for _ in 0..rounds {
                        stat.started(context, Op::Read);
                        stat.completed(context, Op::Read, KIB4, 1);
                    }
                });
            }
        });
        let now = stat.snapshot();
        assert_eq!((now.read_ios, now.in_flight), (2 * rounds, 0));
    }

    #[test]
    fn nothing_is_said_of_the_time_before_the_first_moment() {
        let stat = StatCounters::new(1);
        stat.started(0, Op::Read);
        stat.completed_at(0, Op::Read, KIB4, at(3_600_000_000), at(3_600_007_000));
        assert_eq!(stat.snapshot().io_ticks, 0);
        assert_eq!(stat.snapshot().read_ticks, 7);
    }

    #[test]
    fn without_a_clock_nothing_takes_time() {
        let stat = StatCounters::new(1);
        for _ in 0..10 {
            stat.started(0, Op::Read);
            stat.completed(0, Op::Read, KIB4, 0);
        }
        let now = stat.snapshot();
        assert_eq!((now.io_ticks, now.time_in_queue, now.read_ios), (0, 0, 10));
    }

    #[test]
    fn overlapping_ios_keep_the_disk_busy_once() {
        let stat = StatCounters::new(2);
        stat.started_at(0, Op::Read, at(0));
        stat.started_at(1, Op::Read, at(2000));
        stat.completed_at(0, Op::Read, KIB4, at(0), at(6000));
        stat.completed_at(1, Op::Read, KIB4, at(2000), at(9000));
        // Idle until 20 ms.
        stat.started_at(0, Op::Read, at(20_000));
        stat.completed_at(0, Op::Read, KIB4, at(20_000), at(21_000));
        let now = stat.snapshot();
        assert_eq!(now.io_ticks, 10);
        assert_eq!(now.read_ticks, 14);
    }

    #[test]
    #[cfg_attr(miri, ignore = "long, and nothing in it for Miri")]
    fn short_ios_count_in_proportion() {
        let stat = StatCounters::new(1);
        // 10 us in every 40: busy a quarter of the time, though no I/O lasts a tick.
        let millis = 10_000;
        let mut now = 0;
        while now < millis * 1000 {
            stat.started_at(0, Op::Read, at(now));
            stat.completed_at(0, Op::Read, KIB4, at(now), at(now + 10));
            // Not a divisor of a tick: the ends of ticks fall anywhere.
            now += 40 + u64::from(now % 7 == 0);
        }
        let ticks = stat.snapshot().io_ticks;
        let quarter = millis / 4;
        let near = quarter * 9 / 10..quarter * 11 / 10;
        assert!(near.contains(&ticks), "{ticks} of {millis} ms");
    }

    #[test]
    fn an_observer_never_sees_more_ended_than_begun() {
        let stat = StatCounters::new(2);
        let rounds = if cfg!(miri) { 50 } else { 20_000 };
        std::thread::scope(|scope| {
            for context in 0..2 {
                let stat = &stat;
                scope.spawn(move || {
                    for _ in 0..rounds {
                        stat.started(context, Op::Read);
                        stat.completed(context, Op::Read, KIB4, 1);
                    }
                });
            }
            let mut before = DiskStat::default();
            while before.read_ios < 2 * rounds {
                // In this order, as `snapshot` does it, which would hide a difference by stopping at 0.
                let ended: u64 = stat.finished().iter().sum();
                let begun = stat.unfinished([0; 3]);
                assert!(ended <= begun, "{ended} ended, {begun} begun");
                let now = stat.snapshot();
                assert!(now.read_ios >= before.read_ios && now.read_sectors >= before.read_sectors);
                before = now;
            }
        });
        let end = stat.snapshot();
        assert_eq!((end.read_ios, end.in_flight), (2 * rounds, 0));
        assert_eq!(end.read_sectors, 16 * rounds);
    }
}
