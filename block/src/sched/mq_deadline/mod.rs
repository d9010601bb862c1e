//! mq-deadline: by position in batches, with deadlines, and by class of priority.

mod store;

use core::time::Duration;

use crate::clock::Nanos;
use crate::limits::Limits;
use crate::limits::merge::is_mergeable;
use crate::op::Op;
use crate::priority::{Priority, PriorityClass};
use crate::request::Request;
use crate::request::merge::{Incoming, Merge};
use crate::sched::Elevator;
use store::{Found, Handle, Place, Store};

/// What can be set about [`MqDeadline`]: Linux's knobs with Linux's defaults.
///
/// ```
/// use core::time::Duration;
/// use pageless_block::DeadlineSettings;
/// let settings = DeadlineSettings {
///     read_expire: Duration::from_millis(50),
///     ..DeadlineSettings::default()
/// };
/// assert_eq!(settings.fifo_batch, 16);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeadlineSettings {
    /// When a read is overdue. 500 ms.
    pub read_expire: Duration,
    /// When a write, or whatever else changes the device, is overdue. 5 s.
    pub write_expire: Duration,
    /// How many batches of reads may go before one of waiting writes. 2.
    pub writes_starved: u32,
    /// How many requests go in order of position before deadlines are looked at again. 16.
    pub fifo_batch: u32,
    /// Whether bios are joined to requests that begin where they end. Yes.
    pub front_merges: bool,
    /// How long the lower classes may be passed over. 10 s.
    pub prio_aging_expire: Duration,
}

impl Default for DeadlineSettings {
    fn default() -> Self {
        Self {
            read_expire: Duration::from_millis(500),
            write_expire: Duration::from_secs(5),
            writes_starved: 2,
            fifo_batch: 16,
            front_merges: true,
            prio_aging_expire: Duration::from_secs(10),
        }
    }
}

/// Linux's `mq-deadline` with its rules for priorities (block/mq-deadline.c).
///
/// Requests of a class and direction go in the order of their positions, up to
/// [`fifo_batch`](DeadlineSettings::fifo_batch) of them in a row. Then the next batch is chosen: reads before
/// writes, unless writes were passed over [`writes_starved`](DeadlineSettings::writes_starved) times; from the
/// request that waits for longest, if that is overdue or nothing lies further on, and else from
/// where the last batch in that direction ended. A class of priority goes only while no higher one
/// waits, or for those of its requests that have waited for
/// [`prio_aging_expire`](DeadlineSettings::prio_aging_expire).
///
/// Bios are joined to requests that end where they begin, or else begin where they end.
///
/// In two ways it is not Linux's. A class goes as soon as none of a higher class *waits*; there, not before those
/// at the device have finished as well. And two requests that a bio brings together are not made one.
///
/// Inserting and dispatching allocates nothing once there is room for all requests there are at a
/// time; a queue never has more than its [`elevator_depth`](crate::QueueConfig::elevator_depth).
///
/// ```
/// use pageless_block::{DeadlineSettings, Elevator, MqDeadline};
/// let deadline = MqDeadline::new(&DeadlineSettings::default(), 256);
/// assert_eq!((deadline.name(), deadline.len()), ("mq-deadline", 0));
/// ```
#[derive(Debug)]
pub struct MqDeadline(Deadline<Request>);

impl MqDeadline {
    /// With room for `capacity` requests. More may come; that takes an allocation.
    pub fn new(settings: &DeadlineSettings, capacity: u16) -> Self {
        Self(Deadline::new(settings, usize::from(capacity)))
    }
}

impl Default for MqDeadline {
    /// With Linux's settings, and room for as many requests as its queues have by default, twice 128.
    fn default() -> Self {
        Self::new(&DeadlineSettings::default(), 256)
    }
}

impl Elevator for MqDeadline {
    fn name(&self) -> &'static str {
        "mq-deadline"
    }

    #[inline]
    fn insert(&mut self, request: Request, now: Nanos) -> Result<(), Request> {
        let place = Place {
            lane: lane_of(request.op(), request.priority()),
            position: request.position().get(),
            end: request.end().get(),
            mergeable: is_mergeable(request.op(), request.flags()),
        };
        self.0.insert(request, place, now)
    }

    #[inline]
    fn dispatch(&mut self, now: Nanos) -> Option<Request> {
        self.0.dispatch(now)
    }

    #[inline]
    fn len(&self) -> usize {
        self.0.requests.len()
    }

    #[inline]
    fn merge(&mut self, incoming: Incoming, limits: &Limits) -> Result<Merge, Incoming> {
        if self.is_empty() || !is_mergeable(incoming.op(), incoming.flags()) {
            return Err(incoming);
        }
        let lane = lane_of(incoming.op(), incoming.priority());
        let (position, end) = (incoming.position().get(), incoming.end().get());
        let mut incoming = incoming;
        for neighbour in [
            self.0.ending_at(lane, position),
            self.0.starting_at(lane, end),
        ] {
            let requests = &mut self.0.requests;
            let Some((handle, request)) =
                neighbour.and_then(|handle| Some((handle, requests.item_mut(handle)?)))
            else {
                continue;
            };
            match request.try_merge(incoming, limits) {
                Ok(merge) => {
                    let (position, end) = (request.position().get(), request.end().get());
                    requests.moved(handle, position, end);
                    return Ok(merge);
                }
                Err(apart) => incoming = apart,
            }
        }
        Err(incoming)
    }
}

/// Nanoseconds; 584 years for anything longer.
fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// The directions of a class: reads, and everything that changes the device.
const READ: u8 = 0;
const WRITE: u8 = 1;

/// The classes in the order in which they go: real time, best effort, idle.
const CLASSES: u8 = 3;

/// A lane for each class and direction.
const LANES: usize = CLASSES as usize * 2;

const fn lane(class: u8, direction: u8) -> u8 {
    class * 2 + direction
}

/// The lane of a request. A priority that was never set is best effort.
const fn lane_of(op: Op, priority: Priority) -> u8 {
    let class = match priority.class() {
        PriorityClass::RealTime => 0,
        PriorityClass::None | PriorityClass::BestEffort => 1,
        PriorityClass::Idle => 2,
    };
    lane(class, if op.is_write() { WRITE } else { READ })
}

/// The class of a lane, whose number came out of a set of bits.
const fn lane_class(lane: u32) -> u8 {
    lane as u8 / 2
}

/// Who goes next, and what follows from it.
#[derive(Clone, Copy, Debug)]
struct Choice {
    found: Found,
    /// The direction of the batch that it begins; none if it goes on with the present one.
    begins: Option<u8>,
    /// How many batches of reads went before waiting writes, with this one.
    starved: u32,
}

/// The rules, for requests of any kind.
#[derive(Debug)]
struct Deadline<R> {
    requests: Store<R, LANES>,
    expire: [u64; 2],
    aging: u64,
    writes_starved: u32,
    fifo_batch: u32,
    front_merges: bool,
    /// Where the last request of each lane began.
    latest: [u64; LANES],
    /// The direction of the present batch, shared by all classes.
    direction: u8,
    /// How many requests went in the present batch. More than there can be before the first one.
    batching: u32,
    /// How many batches of reads went while writes waited.
    starved: u32,
}

impl<R> Deadline<R> {
    fn new(settings: &DeadlineSettings, capacity: usize) -> Self {
        Self {
            requests: Store::with_capacity(capacity),
            expire: [nanos(settings.read_expire), nanos(settings.write_expire)],
            aging: nanos(settings.prio_aging_expire),
            writes_starved: settings.writes_starved,
            fifo_batch: settings.fifo_batch,
            front_merges: settings.front_merges,
            latest: [0; LANES],
            direction: READ,
            batching: u32::MAX,
            starved: 0,
        }
    }

    #[inline]
    fn insert(&mut self, request: R, place: Place, now: Nanos) -> Result<(), R> {
        self.requests.insert(request, place, now).map(|_| ())
    }

    #[inline]
    fn dispatch(&mut self, now: Nanos) -> Option<R> {
        let choice = self.choose(now)?;
        let place = self.requests.place(choice.found.handle);
        if let Some(direction) = choice.begins {
            self.direction = direction;
            self.batching = 0;
            self.starved = choice.starved;
        }
        self.batching = self.batching.saturating_add(1);
        self.latest[usize::from(place.lane)] = place.position;
        self.requests.remove(choice.found)
    }

    #[inline]
    fn choose(&self, now: Nanos) -> Option<Choice> {
        let occupied = self.requests.occupied();
        if occupied == 0 {
            return None;
        }
        let first = lane_class(occupied.trailing_zeros());
        let last = lane_class(occupied.ilog2());
        // Those that were passed over for too long go before those of higher classes.
        if first != last
            && let Some(overdue) = now.get().checked_sub(self.aging)
        {
            for class in first + 1..=last {
                if let Some(choice) = self.choose_in(class, Nanos::new(overdue), now) {
                    return Some(choice);
                }
            }
        }
        // The end of time: whenever they came.
        self.choose_in(first, Nanos::new(u64::MAX), now)
    }

    /// The next one of a class among those that came no later than `latest`.
    #[inline]
    fn choose_in(&self, class: u8, latest: Nanos, now: Nanos) -> Option<Choice> {
        let may_go = |found: &Found| self.requests.since(found.handle) <= latest;
        let next = |direction| {
            let lane = lane(class, direction);
            self.requests
                .first_from(lane, self.latest[usize::from(lane)])
                .filter(may_go)
        };
        if self.batching < self.fifo_batch
            && let Some(found) = next(self.direction)
        {
            return Some(Choice {
                found,
                begins: None,
                starved: self.starved,
            });
        }
        let oldest = |direction| self.requests.oldest(lane(class, direction)).filter(may_go);
        let (oldest, direction, starved) = match (oldest(READ), oldest(WRITE)) {
            (None, None) => return None,
            (Some(read), None) => (read, READ, self.starved),
            (Some(read), Some(_)) if self.starved < self.writes_starved => {
                (read, READ, self.starved + 1)
            }
            (_, Some(write)) => (write, WRITE, 0),
        };
        let waited = now.since(self.requests.since(oldest.handle));
        let found = if waited >= self.expire[usize::from(direction)] {
            oldest
        } else {
            next(direction).unwrap_or(oldest)
        };
        Some(Choice {
            found,
            begins: Some(direction),
            starved,
        })
    }

    /// A request that could go on with what begins at `position`.
    fn ending_at(&self, lane: u8, position: u64) -> Option<Handle> {
        self.requests.ending_at(lane, position)
    }

    /// A request before which what ends at `end` could go.
    fn starting_at(&self, lane: u8, end: u64) -> Option<Handle> {
        if !self.front_merges {
            return None;
        }
        self.requests.starting_at(lane, end)
    }
}

#[cfg(test)]
mod tests;
