//! A device that takes its time (dm-delay).

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use core::fmt;
use core::time::Duration;

use crate::clock::{Clock, Nanos};
use crate::device::{Abort, BlockDevice, Submitted};
use crate::limits::{Features, Limits};
use crate::op::Op;
use crate::position::BytePos;
use crate::request::{Done, QueueId, Request, Tag};
use crate::sync::Lock;

/// How long something takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Latency {
    /// No time at all.
    #[default]
    None,
    /// Always the same.
    Fixed(Duration),
    /// Anything from the first to the second, each as likely.
    Uniform(Duration, Duration),
    /// This on the average; mostly less, at times much more.
    Exponential(Duration),
}

impl Latency {
    /// One of them.
    fn draw(self, rng: &mut fastrand::Rng) -> Duration {
        match self {
            Self::None => Duration::ZERO,
            Self::Fixed(time) => time,
            Self::Uniform(from, to) => {
                let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
                let (from, to) = (nanos(from), nanos(to));
                Duration::from_nanos(rng.u64(from.min(to)..=from.max(to)))
            }
            Self::Exponential(mean) => {
                // `f64` gives [0, 1), and the logarithm of 0 would be for ever.
                let times = -libm::log(1.0 - rng.f64());
                Duration::try_from_secs_f64(mean.as_secs_f64() * times).unwrap_or(Duration::MAX)
            }
        }
    }
}

/// How long each kind of request takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Latencies {
    /// Reads.
    pub read: Latency,
    /// Writes and appends.
    pub write: Latency,
    /// Flushes.
    pub flush: Latency,
    /// Discards, write-zeroes, what manages zones.
    pub other: Latency,
}

impl Latencies {
    /// The same for all.
    pub const fn all(latency: Latency) -> Self {
        Self {
            read: latency,
            write: latency,
            flush: latency,
            other: latency,
        }
    }

    fn of(&self, op: Op) -> Latency {
        match op {
            Op::Read | Op::DriverIn => self.read,
            Op::Write | Op::ZoneAppend | Op::DriverOut => self.write,
            Op::Flush => self.flush,
            _ => self.other,
        }
    }
}

/// Keeps each request for a while before the device behind it gets it.
///
/// Requests go on in the order in which they are due, which need not be that in which they came.
/// They do so when the queue is polled: nothing happens behind its back. Whoever polls while
/// nothing is due tells the clock that it waits ([`Clock::idle_until`]), so that a
/// [`ManualClock`](crate::ManualClock) moves on.
///
/// ```
/// use core::time::Duration;
/// use pageless_block::{Bio, Clock, Delay, Latencies, Latency, Limits, ManualClock, NullDevice};
/// use pageless_block::{Sector, submit_sync};
/// use pageless_pfn::ByteLen;
/// use std::sync::Arc;
/// let clock = Arc::new(ManualClock::new());
/// let disk = NullDevice::new(Limits::new(ByteLen::new(1 << 30)));
/// let latencies = Latencies::all(Latency::Fixed(Duration::from_micros(80)));
/// let slow = Delay::new(disk, clock.clone(), latencies, 1);
/// # use pageless_pfn::{FrameOffset, Pfn, PhysSegment};
/// # let frame = Pfn::try_new(1)?.into();
/// # let segment = PhysSegment::try_new(frame, FrameOffset::ZERO, ByteLen::new(512))?;
/// submit_sync(&slow, Bio::read(Sector::new(0), segment))?.result()?;
/// assert_eq!(clock.now().get(), 80_000);
/// # Ok::<(), Box<dyn core::error::Error>>(())
/// ```
pub struct Delay<D> {
    device: D,
    clock: Arc<dyn Clock>,
    latencies: Latencies,
    limits: Limits,
    held: Lock<Held>,
}

struct Held {
    /// By queue, by the time they are due, and by number.
    requests: BTreeMap<(QueueId, Nanos, u64), Request>,
    /// The number of the next.
    next: u64,
    rng: fastrand::Rng,
}

impl<D: BlockDevice> Delay<D> {
    /// `device`, slower. The same seed and the same requests at the same times are the same delays.
    pub fn new(device: D, clock: Arc<dyn Clock>, latencies: Latencies, seed: u64) -> Self {
        let mut limits = device.limits();
        limits.features -= Features::SYNCHRONOUS | Features::DAX | Features::NOWAIT;
        Self {
            device,
            clock,
            latencies,
            limits,
            held: Lock::new(Held {
                requests: BTreeMap::new(),
                next: 0,
                rng: fastrand::Rng::with_seed(seed),
            }),
        }
    }

    /// The device behind it.
    pub const fn device(&self) -> &D {
        &self.device
    }

    /// How many requests it keeps.
    pub fn held(&self) -> usize {
        self.held.lock().requests.len()
    }

    /// Gives the device what is due, and says what it did with each.
    fn release(&self, queue: QueueId, done: &mut dyn FnMut(Done)) {
        let now = self.clock.now();
        loop {
            let first = {
                let mut held = self.held.lock();
                let next = first_of(&held, queue).filter(|&(_, due, _)| due <= now);
                next.and_then(|key| held.requests.remove_entry(&key))
            };
            let Some((key, request)) = first else {
                return;
            };
            match self.device.submit(request) {
                Submitted::Done(finished) => done(finished),
                Submitted::Kept => {}
                Submitted::Busy(request) => {
                    self.held.lock().requests.insert(key, request);
                    return;
                }
            }
        }
    }
}

fn first_of(held: &Held, queue: QueueId) -> Option<(QueueId, Nanos, u64)> {
    let ours = (queue, Nanos::ZERO, 0)..=(queue, Nanos::new(u64::MAX), u64::MAX);
    held.requests.range(ours).next().map(|(&key, _)| key)
}

impl<D: BlockDevice> BlockDevice for Delay<D> {
    fn limits(&self) -> Limits {
        self.limits
    }

    fn submit(&self, request: Request) -> Submitted {
        let latency = self.latencies.of(request.op());
        if latency == Latency::None {
            return self.device.submit(request);
        }
        let now = self.clock.now();
        let held = &mut *self.held.lock();
        let due = now.saturating_add(latency.draw(&mut held.rng));
        let key = (request.queue(), due, held.next);
        held.next += 1;
        held.requests.insert(key, request);
        Submitted::Kept
    }

    fn poll(&self, queue: QueueId, done: &mut dyn FnMut(Done)) {
        let mut any = false;
        let mut count = |finished| {
            any = true;
            done(finished);
        };
        self.release(queue, &mut count);
        self.device.poll(queue, &mut count);
        if any {
            return;
        }
        let next = first_of(&self.held.lock(), queue);
        if let Some((_, due, _)) = next {
            self.clock.idle_until(due);
            self.release(queue, done);
        }
    }

    fn abort(&self, queue: QueueId, tag: Tag) -> Abort {
        let mut held = self.held.lock();
        let mut all = held.requests.iter();
        let found = all.find(|(key, request)| key.0 == queue && request.tag() == tag);
        let found = found.map(|(&key, _)| key);
        match found.and_then(|key| held.requests.remove(&key)) {
            Some(request) => Abort::Aborted(request),
            None => {
                drop(held);
                self.device.abort(queue, tag)
            }
        }
    }

    fn expect(&self, op: Op, position: BytePos) {
        self.device.expect(op, position);
    }
}

impl<D: fmt::Debug> fmt::Debug for Delay<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Delay")
            .field("device", &self.device)
            .field("latencies", &self.latencies)
            .finish_non_exhaustive()
    }
}
