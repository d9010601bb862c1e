//! Who goes first, against rules spelled out over one list that is searched from end to end.

use alloc::boxed::Box;
use alloc::vec::Vec;

use pageless_pfn::{ByteLen, FrameOffset, Pfn, PhysSegment};
use proptest::prelude::*;

use super::*;
use crate::bio;
use crate::flags::BioFlags;
use crate::position::Sector;
use crate::request;

const RT: u8 = 0;
const BE: u8 = 1;
const IDLE: u8 = 2;

fn ms(millis: u64) -> Nanos {
    Nanos::new(millis * 1_000_000)
}

/// A scheduler of numbers, and what time it is.
struct Bench {
    deadline: Deadline<u32>,
    now: Nanos,
}

impl Bench {
    fn new() -> Self {
        Self::with(&DeadlineSettings::default())
    }

    fn with(settings: &DeadlineSettings) -> Self {
        Self {
            deadline: Deadline::new(settings, 4),
            now: Nanos::ZERO,
        }
    }

    fn add(&mut self, number: u32, class: u8, direction: u8, position: u64) {
        let place = Place {
            lane: lane(class, direction),
            position,
            end: position + 512,
            mergeable: true,
        };
        self.deadline.insert(number, place, self.now).unwrap();
        self.deadline.requests.self_check();
    }

    fn next(&mut self) -> Option<u32> {
        let next = self.deadline.dispatch(self.now);
        self.deadline.requests.self_check();
        next
    }

    fn order(&mut self) -> Vec<u32> {
        core::iter::from_fn(|| self.next()).collect()
    }
}

#[test]
fn requests_go_by_position_whatever_their_order_was() {
    let mut bench = Bench::new();
    for (number, position) in [(3, 300), (1, 100), (4, 400), (2, 200)] {
        bench.add(number, BE, READ, position);
    }
    assert_eq!(bench.order(), [1, 2, 3, 4]);
}

#[test]
fn of_several_at_one_position_the_first_that_came_goes_first() {
    let mut bench = Bench::new();
    for number in 0..5 {
        bench.add(number, BE, WRITE, 512);
    }
    assert_eq!(bench.order(), [0, 1, 2, 3, 4]);
}

#[test]
fn the_head_goes_on_from_where_it_was_and_starts_again_with_the_oldest() {
    let mut bench = Bench::new();
    bench.add(5, BE, READ, 5000);
    assert_eq!(bench.next(), Some(5));
    // Behind the head; what lies before it goes first, then what has waited for longest.
    bench.add(3, BE, READ, 3000);
    bench.add(1, BE, READ, 1000);
    bench.add(7, BE, READ, 7000);
    assert_eq!(bench.order(), [7, 3, 1]);
}

#[test]
fn reads_go_before_writes_but_not_for_ever() {
    let mut bench = Bench::new();
    let batch = 16;
    for number in 0..100 {
        bench.add(number, BE, READ, u64::from(number) * 512);
    }
    for number in 100..120 {
        bench.add(number, BE, WRITE, u64::from(number) * 512);
    }
    let order = bench.order();
    let first_write = order.iter().position(|&number| number >= 100).unwrap();
    // Two batches of reads, then one of writes, and again.
    assert_eq!(first_write, 2 * batch);
    assert!(order[32..48].iter().all(|&number| number >= 100));
    assert!(order[48..80].iter().all(|&number| number < 100));
    assert_eq!(order[80..84], [116, 117, 118, 119]);
}

#[test]
fn no_write_waits_longer_than_the_batches_before_it() {
    // Whatever reads come: at most `writes_starved` batches and the one that was under way.
    let settings = DeadlineSettings::default();
    let mut bench = Bench::with(&settings);
    bench.add(9999, BE, WRITE, 0);
    let bound = (settings.writes_starved + 1) * settings.fifo_batch;
    for number in 0.. {
        assert!(number <= bound, "a write starves");
        // Always one more further on: the batch never runs dry.
        bench.add(number, BE, READ, u64::from(number) * 512);
        bench.add(number, BE, READ, u64::from(number) * 512);
        if bench.next() == Some(9999) {
            break;
        }
    }
}

#[test]
fn an_overdue_request_begins_the_next_batch() {
    let settings = DeadlineSettings {
        fifo_batch: 2,
        ..DeadlineSettings::default()
    };
    let mut bench = Bench::with(&settings);
    bench.add(50, BE, READ, 5000);
    assert_eq!(bench.next(), Some(50));
    bench.add(10, BE, READ, 1000);
    bench.now = ms(499);
    for number in 60..65 {
        bench.add(number, BE, READ, u64::from(number) * 100);
    }
    // Batches of two. Nobody is overdue: the head goes on.
    assert_eq!(bench.next(), Some(60));
    assert_eq!(bench.next(), Some(61));
    bench.now = ms(500);
    // In the middle of a batch nobody looks.
    assert_eq!(bench.next(), Some(62));
    assert_eq!(bench.next(), Some(10));
    // And it goes on from there.
    assert_eq!(bench.next(), Some(63));
}

#[test]
fn writes_are_overdue_later_than_reads() {
    let settings = DeadlineSettings {
        fifo_batch: 1,
        ..DeadlineSettings::default()
    };
    let mut bench = Bench::with(&settings);
    bench.add(50, BE, WRITE, 5000);
    assert_eq!(bench.next(), Some(50));
    bench.add(10, BE, WRITE, 1000);
    bench.now = ms(4999);
    bench.add(60, BE, WRITE, 6000);
    bench.add(61, BE, WRITE, 6100);
    assert_eq!(bench.next(), Some(60));
    bench.now = ms(5000);
    assert_eq!(bench.next(), Some(10));
}

#[test]
fn higher_classes_go_first() {
    let mut bench = Bench::new();
    bench.add(3, IDLE, READ, 0);
    bench.add(2, BE, READ, 0);
    bench.add(1, RT, WRITE, 9000);
    assert_eq!(bench.order(), [1, 2, 3]);
}

#[test]
fn a_class_that_was_passed_over_for_too_long_goes_before_higher_ones() {
    let mut bench = Bench::new();
    bench.add(7, IDLE, WRITE, 0);
    bench.add(1, RT, READ, 0);
    bench.now = ms(9_999);
    assert_eq!(bench.next(), Some(1));
    bench.add(2, RT, READ, 512);
    bench.now = ms(10_000);
    bench.add(8, IDLE, WRITE, 512);
    assert_eq!(bench.next(), Some(7));
    // The other one of its class is young.
    assert_eq!(bench.next(), Some(2));
    assert_eq!(bench.next(), Some(8));
}

#[test]
fn a_young_request_further_on_does_not_hide_an_old_one() {
    let mut bench = Bench::new();
    bench.add(1, IDLE, READ, 5000);
    assert_eq!(bench.next(), Some(1));
    bench.add(2, IDLE, READ, 1000);
    bench.now = ms(10_000);
    bench.add(3, IDLE, READ, 6000);
    bench.add(4, RT, READ, 0);
    assert_eq!(bench.order(), [2, 4, 3]);
}

#[test]
fn never_set_is_best_effort_and_what_changes_the_device_is_a_write() {
    let of = |op, class| {
        let priority = Priority::new(class, 0).unwrap();
        lane_of(op, priority)
    };
    assert_eq!(of(Op::Read, PriorityClass::None), lane(BE, READ));
    assert_eq!(of(Op::Discard, PriorityClass::BestEffort), lane(BE, WRITE));
    assert_eq!(of(Op::ZoneReset, PriorityClass::RealTime), lane(RT, WRITE));
    assert_eq!(of(Op::Read, PriorityClass::Idle), lane(IDLE, READ));
}

#[test]
fn a_clock_that_stands_still_or_goes_back_loses_nothing() {
    let mut bench = Bench::new();
    bench.now = ms(1000);
    bench.add(1, BE, READ, 0);
    bench.now = Nanos::ZERO;
    bench.add(2, IDLE, READ, 0);
    assert_eq!(bench.order(), [1, 2]);
}

// Bios and requests.

fn incoming(op: Op, sector: u64, sectors: u64, flags: BioFlags) -> Incoming {
    let mut bio = Box::new(bio::Inner::empty());
    bio.op = op;
    bio.sector = Sector::new(sector);
    bio.len = sectors * 512;
    bio.flags = flags;
    if op.carries_data() {
        let frame = Pfn::try_new(0x1000 + sector).unwrap().into();
        let segment = PhysSegment::try_new(frame, FrameOffset::ZERO, ByteLen::new(bio.len));
        bio.segments.push(segment.unwrap());
    }
    Incoming {
        bio,
        flags,
        context: 0,
    }
}

/// A request of one bio, which nobody waits for.
fn request(op: Op, sector: u64, sectors: u64) -> Request {
    let incoming = incoming(op, sector, sectors, BioFlags::empty());
    let mut inner = Box::new(request::Inner::empty(None));
    inner.op = op;
    inner.position = sector * 512;
    inner.len = sectors * 512;
    inner.bios.push_back(incoming.bio);
    Request(inner)
}

fn extent(request: &Request) -> (u64, u64) {
    (request.sector().get(), request.len().get() / 512)
}

struct Merging {
    deadline: MqDeadline,
    limits: Limits,
}

impl Merging {
    fn new(settings: &DeadlineSettings) -> Self {
        Self {
            deadline: MqDeadline::new(settings, 8),
            limits: Limits::new(ByteLen::new(1 << 30)),
        }
    }

    fn add(&mut self, op: Op, sector: u64, sectors: u64) {
        let request = request(op, sector, sectors);
        self.deadline.insert(request, Nanos::ZERO).unwrap();
    }

    fn merge(&mut self, op: Op, sector: u64, sectors: u64) -> Option<Merge> {
        let incoming = incoming(op, sector, sectors, BioFlags::empty());
        let end = self.deadline.merge(incoming, &self.limits).ok();
        self.deadline.0.requests.self_check();
        end
    }

    fn all(&mut self) -> Vec<(u64, u64)> {
        core::iter::from_fn(|| self.deadline.dispatch(Nanos::ZERO))
            .map(|request| extent(&request))
            .collect()
    }
}

#[test]
fn a_bio_grows_a_request_at_either_end_and_it_is_found_by_its_new_ends() {
    let mut bench = Merging::new(&DeadlineSettings::default());
    bench.add(Op::Write, 100, 8);
    bench.add(Op::Write, 200, 8);
    assert_eq!(bench.merge(Op::Write, 108, 8), Some(Merge::Back));
    assert_eq!(bench.merge(Op::Write, 116, 8), Some(Merge::Back));
    assert_eq!(bench.merge(Op::Write, 192, 8), Some(Merge::Front));
    assert_eq!(bench.merge(Op::Write, 184, 8), Some(Merge::Front));
    assert_eq!(bench.merge(Op::Write, 108, 8), None);
    assert_eq!(bench.merge(Op::Write, 176, 4), None);
    assert_eq!(bench.all(), [(100, 24), (184, 24)]);
}

#[test]
fn growing_past_a_neighbour_at_the_front_keeps_the_order() {
    let mut bench = Merging::new(&DeadlineSettings::default());
    bench.add(Op::Read, 100, 8);
    bench.add(Op::Read, 90, 1);
    assert_eq!(bench.merge(Op::Read, 80, 20), Some(Merge::Front));
    assert_eq!(bench.all(), [(80, 28), (90, 1)]);
}

#[test]
fn front_merges_can_be_switched_off() {
    let mut bench = Merging::new(&DeadlineSettings {
        front_merges: false,
        ..DeadlineSettings::default()
    });
    bench.add(Op::Read, 100, 8);
    assert_eq!(bench.merge(Op::Read, 92, 8), None);
    assert_eq!(bench.merge(Op::Read, 108, 8), Some(Merge::Back));
    assert_eq!(bench.all(), [(100, 16)]);
}

#[test]
fn what_does_not_belong_together_stays_apart() {
    let mut bench = Merging::new(&DeadlineSettings::default());
    bench.add(Op::Write, 100, 8);
    assert_eq!(bench.merge(Op::Read, 108, 8), None);
    assert_eq!(bench.merge(Op::Discard, 108, 8), None);
    let flagged = incoming(Op::Write, 108, 8, BioFlags::FUA);
    assert!(bench.deadline.merge(flagged, &bench.limits).is_err());
    let mut urgent = incoming(Op::Write, 108, 8, BioFlags::empty());
    urgent.bio.priority = Priority::new(PriorityClass::RealTime, 0).unwrap();
    assert!(bench.deadline.merge(urgent, &bench.limits).is_err());
    assert_eq!(bench.all(), [(100, 8)]);
}

#[test]
fn nothing_grows_once_it_has_gone() {
    let mut bench = Merging::new(&DeadlineSettings::default());
    bench.add(Op::Write, 100, 8);
    bench.add(Op::Write, 300, 8);
    let gone = bench.deadline.dispatch(Nanos::ZERO).unwrap();
    assert_eq!(extent(&gone), (100, 8));
    assert_eq!(bench.merge(Op::Write, 108, 8), None);
    assert_eq!(bench.merge(Op::Write, 92, 8), None);
    assert_eq!(bench.all(), [(300, 8)]);
}

// The oracle.

#[derive(Clone, Copy, Debug)]
struct Waiting {
    number: u32,
    class: u8,
    direction: u8,
    position: u64,
    end: u64,
    mergeable: bool,
    since: u64,
    /// Who came first.
    came: u64,
    /// When its end was last set, in changes.
    ended: u64,
}

struct Oracle {
    settings: DeadlineSettings,
    waiting: Vec<Waiting>,
    changes: u64,
    latest: [[u64; 2]; CLASSES as usize],
    direction: u8,
    batching: u32,
    starved: u32,
}

impl Oracle {
    fn lane(&self, class: u8, direction: u8) -> impl Iterator<Item = &Waiting> {
        let of_lane = move |one: &&Waiting| one.class == class && one.direction == direction;
        self.waiting.iter().filter(of_lane)
    }

    fn further_on(&self, class: u8, direction: u8) -> Option<Waiting> {
        self.lane(class, direction)
            .filter(|one| one.position >= self.latest[usize::from(class)][usize::from(direction)])
            .min_by_key(|one| (one.position, one.came))
            .copied()
    }

    fn oldest(&self, class: u8, direction: u8) -> Option<Waiting> {
        self.lane(class, direction)
            .min_by_key(|one| one.came)
            .copied()
    }

    fn take(&mut self, one: Waiting) -> u32 {
        self.waiting.retain(|other| other.came != one.came);
        self.latest[usize::from(one.class)][usize::from(one.direction)] = one.position;
        self.batching += 1;
        one.number
    }

    /// The next of a class among those that came by `by`, if it is to be there.
    fn of_class(&mut self, class: u8, now: u64, by: u64) -> Option<u32> {
        if self.batching < self.settings.fifo_batch
            && let Some(one) = self.further_on(class, self.direction)
            && one.since <= by
        {
            return Some(self.take(one));
        }
        let reads = self.oldest(class, READ).filter(|one| one.since <= by);
        let writes = self.oldest(class, WRITE).filter(|one| one.since <= by);
        if reads.is_none() && writes.is_none() {
            return None;
        }
        let enough = self.starved >= self.settings.writes_starved;
        let direction = if writes.is_some() && (reads.is_none() || enough) {
            self.starved = 0;
            WRITE
        } else {
            self.starved += u32::from(writes.is_some());
            READ
        };
        let oldest = [reads, writes][usize::from(direction)]?;
        let expire =
            [self.settings.read_expire, self.settings.write_expire][usize::from(direction)];
        let overdue = u128::from(now - oldest.since) >= expire.as_nanos();
        let one = match self.further_on(class, direction) {
            Some(one) if !overdue && one.since <= by => one,
            _ => oldest,
        };
        self.direction = direction;
        self.batching = 0;
        Some(self.take(one))
    }

    fn dispatch(&mut self, now: u64) -> Option<u32> {
        let waits: Vec<u8> = (0..CLASSES)
            .filter(|class| self.waiting.iter().any(|one| one.class == *class))
            .collect();
        let (&first, lower) = waits.split_first()?;
        let aging = self.settings.prio_aging_expire.as_nanos() as u64;
        for &class in lower {
            if now >= aging
                && let Some(number) = self.of_class(class, now, now - aging)
            {
                return Some(number);
            }
        }
        self.of_class(first, now, u64::MAX)
    }

    fn ending_at(&mut self, lane: u8, end: u64) -> Option<&mut Waiting> {
        self.waiting
            .iter_mut()
            .filter(|one| one.class * 2 + one.direction == lane && one.mergeable && one.end == end)
            .max_by_key(|one| one.ended)
    }

    fn starting_at(&mut self, lane: u8, position: u64) -> Option<&mut Waiting> {
        self.waiting
            .iter_mut()
            .filter(|one| one.class * 2 + one.direction == lane && one.position == position)
            .min_by_key(|one| one.came)
    }
}

#[derive(Clone, Debug)]
enum Step {
    Insert(u8, u8, u64, u64, bool),
    Dispatch,
    Wait(u64),
    Grow(u8, u64, u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0..CLASSES, 0..2_u8, 0..24_u64, 1..4_u64, any::<bool>())
            .prop_map(|(class, direction, at, len, mergeable)| {
                Step::Insert(class, direction, at * 512, len * 512, mergeable)
            }),
        8 => Just(Step::Dispatch),
        3 => (0..600_u64).prop_map(Step::Wait),
        1 => (0..12_000_u64).prop_map(Step::Wait),
        4 => (0..LANES as u8, 0..24_u64, 1..4_u64)
            .prop_map(|(lane, at, len)| Step::Grow(lane, at * 512, len * 512)),
    ]
}

fn settings() -> impl Strategy<Value = DeadlineSettings> {
    (0..4_u32, 0..6_u32, 0..800_u64, 0..3_000_u64, 0..8_000_u64).prop_map(
        |(writes_starved, fifo_batch, read, write, aging)| DeadlineSettings {
            read_expire: Duration::from_millis(read),
            write_expire: Duration::from_millis(write),
            writes_starved,
            fifo_batch,
            front_merges: true,
            prio_aging_expire: Duration::from_millis(aging),
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn goes_by_the_rules(
        settings in settings(),
        steps in proptest::collection::vec(step(), 1..120),
    ) {
        let mut bench = Bench::with(&settings);
        let mut oracle = Oracle {
            settings,
            waiting: Vec::new(),
            changes: 0,
            latest: [[0; 2]; CLASSES as usize],
            direction: READ,
            batching: u32::MAX,
            starved: 0,
        };
        let mut number = 0;
        let mut given = Vec::new();
        for step in steps {
            let now = bench.now.get();
            oracle.changes += 1;
            let changes = oracle.changes;
            match step {
                Step::Insert(class, direction, position, len, mergeable) => {
                    number += 1;
                    let (lane, end) = (lane(class, direction), position + len);
                    let place = Place { lane, position, end, mergeable };
                    bench.deadline.insert(number, place, bench.now).unwrap();
                    oracle.waiting.push(Waiting {
                        number, class, direction, position, end, mergeable,
                        since: now, came: changes, ended: changes,
                    });
                }
                Step::Dispatch => {
                    let next = bench.deadline.dispatch(bench.now);
                    prop_assert_eq!(next, oracle.dispatch(now));
                    given.extend(next);
                }
                Step::Wait(millis) => bench.now = Nanos::new(now + millis * 1_000_000),
                Step::Grow(lane, position, len) => {
                    let (back, front) = (
                        bench.deadline.ending_at(lane, position),
                        bench.deadline.starting_at(lane, position + len),
                    );
                    let requests = &mut bench.deadline.requests;
                    let found = back.map(|found| *requests.item_mut(found).unwrap());
                    let expected = oracle.ending_at(lane, position);
                    prop_assert_eq!(found, expected.as_ref().map(|one| one.number));
                    if let (Some(handle), Some(one)) = (back, expected) {
                        one.end += len;
                        one.ended = changes;
                        requests.moved(handle, one.position, one.end);
                        requests.self_check();
                        continue;
                    }
                    let found = front.map(|found| *requests.item_mut(found).unwrap());
                    let expected = oracle.starting_at(lane, position + len);
                    prop_assert_eq!(found, expected.as_ref().map(|one| one.number));
                    if let (Some(handle), Some(one)) = (front, expected) {
                        one.position -= len;
                        requests.moved(handle, one.position, one.end);
                    }
                }
            }
            bench.deadline.requests.self_check();
            prop_assert_eq!(bench.deadline.requests.len(), oracle.waiting.len());
        }
        // Whatever still waits comes, each once.
        given.extend(bench.order());
        given.sort_unstable();
        prop_assert!(given.iter().copied().eq(1..=number));
    }
}
