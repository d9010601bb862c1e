//! The queue of a device: what all threads that submit to it share.
//!
//! ```text
//!  thread 0: Context --+                      +-- HwQueue 0: tags, parked requests, flushes --+
//!  thread 1: Context --+-- RequestQueue ------+                                               +--> device
//!  thread 2: Context --+    gate, elevator    +-- HwQueue 1: ...                            --+
//! ```

pub(crate) mod admission;
pub(crate) mod barrier;
pub(crate) mod context;
pub(crate) mod flush;
pub(crate) mod gate;
pub(crate) mod mailbox;
pub(crate) mod stop;
pub(crate) mod tags;

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;

use thiserror::Error;

use crate::clock::{Clock, Nanos};
use crate::device::BlockDevice;
use crate::limits::split::Cutter;
use crate::limits::{LimitError, Limits};
use crate::observe::event::{Event, Probe};
use crate::observe::stat::{DiskStat, StatCounters};
use crate::queue::admission::Usual;
use crate::queue::barrier::Barrier;
use crate::queue::context::{Context, Presence};
use crate::queue::flush::FlushQueue;
use crate::queue::gate::Gate;
use crate::queue::tags::Tags;
use crate::request::{QueueId, Request, Tag};
use crate::sched::Elevator;
use crate::sched::shared::SharedElevator;
use crate::sync::Lock;
use crate::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};

/// The most requests a hardware queue can have.
pub const MAX_DEPTH: u16 = 10_240;

/// What a queue is made of, beside its device.
///
/// ```
/// use pageless_block::{BioPool, Limits, NullDevice, QueueConfig, QueueId, RequestQueue};
/// use pageless_pfn::ByteLen;
/// let device = NullDevice::new(Limits::new(ByteLen::new(1 << 30)));
/// let config = QueueConfig { hw_queues: 2, depth: 64, ..QueueConfig::default() };
/// let queue = RequestQueue::try_new(device, config)?;
/// std::thread::scope(|threads| {
///     for id in 0..2 {
///         let mut context = queue.context(QueueId::new(id)).unwrap();
///         threads.spawn(move || {
///             let flush = context.pool().flush();
///             context.submit(flush).unwrap();
///             assert!(context.reap().unwrap().result().is_ok());
///         });
///     }
/// });
/// # Ok::<(), pageless_block::QueueError>(())
/// ```
pub struct QueueConfig {
    /// Hardware queues.
    pub hw_queues: u16,
    /// How many requests a hardware queue gives to the device at a time (Linux's default is 128), and
    /// how many bios a context may have in flight.
    pub depth: u16,
    /// How many requests an elevator may have to choose from, for each hardware queue, and then how many
    /// bios a context may have in flight; ignored without one. 0 stands for twice the depth, as in Linux.
    pub elevator_depth: u16,
    /// Who decides which request goes first; `None` sends them in the order in which they come.
    pub elevator: Option<Box<dyn Elevator>>,
    /// The time, for whoever wants to know: deadlines, timeouts, latencies.
    pub clock: Option<Arc<dyn Clock>>,
    /// How long the device may have a request before it is asked to give it back. Needs a clock.
    pub timeout: Option<Duration>,
    /// Whether to count what [`RequestQueue::stat`] says. Costs each request a few nanoseconds, and with a
    /// clock its two readings.
    pub io_stat: bool,
    /// Whether each context keeps [latencies](Context::latencies). Needs a clock.
    pub latencies: bool,
    /// Who looks on.
    pub probe: Option<Arc<dyn Probe>>,
}

impl Default for QueueConfig {
    fn default() -> Self {
        Self {
            hw_queues: 1,
            depth: 128,
            elevator_depth: 0,
            elevator: None,
            clock: None,
            timeout: None,
            io_stat: false,
            latencies: false,
            probe: None,
        }
    }
}

impl fmt::Debug for QueueConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QueueConfig")
            .field("hw_queues", &self.hw_queues)
            .field("depth", &self.depth)
            .field("elevator_depth", &self.elevator_depth)
            .field("elevator", &self.elevator.as_ref().map(|e| e.name()))
            .field("clock", &self.clock.is_some())
            .field("timeout", &self.timeout)
            .field("io_stat", &self.io_stat)
            .field("latencies", &self.latencies)
            .field("probe", &self.probe.is_some())
            .finish()
    }
}

/// The queue of a device. Threads submit through a [`Context`] each.
///
/// # Panics
/// Dropping it while requests wait in it panics, through their own alarm. Contexts borrow it, so
/// it outlives them.
pub struct RequestQueue<D> {
    pub(crate) device: D,
    pub(crate) usual: Usual,
    pub(crate) cutter: Cutter,
    pub(crate) hw: Box<[HwQueue]>,
    pub(crate) elevator: Option<SharedElevator>,
    pub(crate) gate: Gate,
    pub(crate) barrier: Barrier,
    pub(crate) clock: Option<Arc<dyn Clock>>,
    pub(crate) timeout: Option<Duration>,
    pub(crate) stat: Option<StatCounters>,
    pub(crate) latencies: bool,
    pub(crate) probe: Option<Arc<dyn Probe>>,
    pub(crate) depth: u16,
    /// How many requests a hardware queue can have, and a context bios in flight: more than `depth` with
    /// an elevator, which would have nothing to choose from otherwise.
    pub(crate) places: u16,
    /// Contexts made so far.
    contexts: AtomicU32,
    /// What each context that exists shows to those who quiesce.
    pub(crate) present: Lock<Vec<Arc<Presence>>>,
}

/// A hardware queue: what the contexts that submit to it share.
pub(crate) struct HwQueue {
    pub(crate) id: QueueId,
    /// Which contexts it has: 0 none, [`SOLE`] one that has it for itself, else how many share it.
    users: AtomicU32,
    /// Of those who share it; who has it for itself keeps the same tags in a list.
    pub(crate) tags: Tags,
    /// Requests on their way to the device that could not go: it was busy, or the queue is quiesced.
    pub(crate) parked: Lock<VecDeque<Request>>,
    /// How many there are: 0 is what is nearly always seen, without taking the lock.
    pub(crate) parked_count: AtomicUsize,
    pub(crate) flush: Lock<FlushQueue>,
    /// How many requests it has, and so tags.
    pub(crate) requests: u16,
    /// Requests at the device. Kept only with an elevator, which has more to choose from.
    pub(crate) at_device: AtomicU32,
    /// By tag: when the device is to be asked to give the request back; 0: never. Empty without a timeout.
    pub(crate) deadlines: Box<[AtomicU64]>,
}

/// One context, and no other may join.
const SOLE: u32 = u32::MAX;

impl HwQueue {
    fn new(id: QueueId, tags: u16, timed: bool) -> Self {
        let deadlines = if timed { usize::from(tags) + 1 } else { 0 };
        Self {
            id,
            users: AtomicU32::new(0),
            tags: Tags::new(tags),
            requests: tags,
            parked: Lock::default(),
            parked_count: AtomicUsize::new(0),
            flush: Lock::new(FlushQueue::new(id, Tag::new(tags))),
            at_device: AtomicU32::new(0),
            deadlines: (0..deadlines).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    /// Keeps a request that cannot go now, behind or before those that wait already.
    pub(crate) fn park(&self, request: Request, first: bool) {
        let mut parked = self.parked.lock();
        match first {
            true => parked.push_front(request),
            false => parked.push_back(request),
        }
        self.parked_count.store(parked.len(), Ordering::Release);
    }

    /// The next of the requests that wait.
    #[inline]
    pub(crate) fn unpark(&self) -> Option<Request> {
        // Acquire: pairs with the Release stores here and in `park`. Who misses one sees it the next time.
        if self.parked_count.load(Ordering::Acquire) == 0 {
            return None;
        }
        let mut parked = self.parked.lock();
        let request = parked.pop_front();
        self.parked_count.store(parked.len(), Ordering::Release);
        request
    }
}

impl<D: BlockDevice> RequestQueue<D> {
    /// A queue for `device`.
    ///
    /// # Errors
    /// [`QueueError`] for numbers that make no queue, or limits of the device that make no sense.
    pub fn try_new(device: D, config: QueueConfig) -> Result<Self, QueueError> {
        let QueueConfig {
            hw_queues, depth, ..
        } = config;
        if depth == 0 || depth > MAX_DEPTH {
            return Err(QueueError::Depth { depth });
        }
        if hw_queues == 0 || hw_queues == QueueId::NESTED.get() {
            return Err(QueueError::HwQueues { hw_queues });
        }
        if config.timeout.is_some() && config.clock.is_none() {
            return Err(QueueError::TimeoutWithoutClock);
        }
        if config.latencies && config.clock.is_none() {
            return Err(QueueError::LatenciesWithoutClock);
        }
        let tags = match (&config.elevator, config.elevator_depth) {
            (None, _) => depth,
            (Some(_), 0) => depth.saturating_mul(2).min(MAX_DEPTH),
            (Some(_), tags) if tags < depth || tags > MAX_DEPTH => {
                return Err(QueueError::Depth { depth: tags });
            }
            (Some(_), tags) => tags,
        };
        let limits = device.limits();
        limits.validate()?;
        let timed = config.timeout.is_some();
        Ok(Self {
            device,
            usual: Usual::new(&limits),
            cutter: Cutter::new(&limits),
            hw: (0..hw_queues)
                .map(|id| HwQueue::new(QueueId::new(id), tags, timed))
                .collect(),
            elevator: config.elevator.map(SharedElevator::new),
            gate: Gate::new(),
            barrier: Barrier::new(),
            clock: config.clock,
            timeout: config.timeout,
            stat: config.io_stat.then(|| StatCounters::new(hw_queues)),
            latencies: config.latencies,
            probe: config.probe,
            depth,
            places: tags,
            contexts: AtomicU32::new(0),
            present: Lock::default(),
        })
    }

    /// A queue with one hardware queue of this depth and nothing else.
    ///
    /// # Errors
    /// As [`RequestQueue::try_new`].
    pub fn with_depth(device: D, depth: u16) -> Result<Self, QueueError> {
        Self::try_new(
            device,
            QueueConfig {
                depth,
                ..QueueConfig::default()
            },
        )
    }

    /// The one context of hardware queue `id`: for a thread that has it for itself. Nobody else takes its tags, so
    /// that it can submit and complete without a locked instruction.
    ///
    /// # Errors
    /// [`QueueError::NoSuchQueue`]; [`QueueError::Taken`] while it has another context.
    pub fn context(&self, id: QueueId) -> Result<Context<'_, D>, QueueError> {
        let hw = self.hw(id)?;
        // Acquire: pairs with the Release in `leave`. The tags that the context before gave back are free.
        hw.users
            .compare_exchange(0, SOLE, Ordering::Acquire, Ordering::Relaxed)
            .map_err(|_| QueueError::Taken { id })?;
        Ok(Context::new(self, hw, self.next_id(), true))
    }

    /// A context that shares hardware queue `id` with others of its kind.
    ///
    /// # Errors
    /// [`QueueError::NoSuchQueue`]; [`QueueError::Taken`] while a [context](RequestQueue::context) has it for
    /// itself.
    pub fn shared_context(&self, id: QueueId) -> Result<Context<'_, D>, QueueError> {
        let hw = self.hw(id)?;
        let one_more = |users| {
            if users < SOLE - 1 {
                Some(users + 1)
            } else {
                None
            }
        };
        hw.users
            .fetch_update(Ordering::Acquire, Ordering::Relaxed, one_more)
            .map_err(|_| QueueError::Taken { id })?;
        Ok(Context::new(self, hw, self.next_id(), false))
    }

    /// A context of `hw` is gone.
    pub(crate) fn leave(&self, hw: &HwQueue, sole: bool) {
        match sole {
            true => hw.users.store(0, Ordering::Release),
            false => drop(hw.users.fetch_sub(1, Ordering::Release)),
        }
    }

    fn hw(&self, id: QueueId) -> Result<&HwQueue, QueueError> {
        let hw_queues = self.hw.len() as u16;
        let hw = self.hw.get(usize::from(id.get()));
        hw.ok_or(QueueError::NoSuchQueue { id, hw_queues })
    }

    fn next_id(&self) -> u32 {
        // Relaxed: a number, and nothing hangs on what was done before it was given.
        self.contexts.fetch_add(1, Ordering::Relaxed)
    }

    /// The device.
    pub const fn device(&self) -> &D {
        &self.device
    }

    /// The device's limits.
    pub const fn limits(&self) -> &Limits {
        self.cutter.limits()
    }

    /// How many requests a hardware queue gives to the device at a time.
    pub const fn depth(&self) -> u16 {
        self.depth
    }

    /// How many hardware queues there are.
    pub fn hw_queues(&self) -> u16 {
        self.hw.len() as u16
    }

    /// Requests in flight: plugged, waiting, scheduled or at the device; and one for each context that has pieces
    /// of a bio for which there was no tag.
    pub fn in_flight(&self) -> u32 {
        let present = self.present.lock();
        // Acquire: pairs with the Release in `Context::settle`. Who sees nothing out sees what was done.
        let out = present.iter().map(|one| one.out.load(Ordering::Acquire));
        out.sum()
    }

    /// The 17 numbers of `/sys/block/*/stat`, or `None` if they are not counted
    /// ([`QueueConfig::io_stat`]). Without a clock the times are 0.
    pub fn stat(&self) -> Option<DiskStat> {
        self.stat.as_ref().map(StatCounters::snapshot)
    }

    /// Now, or the start of time if nobody gave the queue a clock.
    #[inline]
    pub(crate) fn now(&self) -> Nanos {
        match &self.clock {
            Some(clock) => clock.now(),
            None => Nanos::ZERO,
        }
    }

    /// Tells whoever looks on. What is told is made only if somebody does.
    #[inline]
    pub(crate) fn tell(&self, event: impl FnOnce(Nanos) -> Event) {
        if let Some(probe) = &self.probe {
            probe.event(&event(self.now()));
        }
    }
}

impl<D> fmt::Debug for RequestQueue<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestQueue")
            .field("hw_queues", &self.hw.len())
            .field("depth", &self.depth)
            .finish_non_exhaustive()
    }
}

/// Why a queue, or a context of it, cannot be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum QueueError {
    /// No room at all, or more than there can be; for an elevator also less than the device takes.
    #[error(
        "a queue of depth {depth}: must be from 1 to {MAX_DEPTH}, an elevator's at least its queue's"
    )]
    Depth {
        /// The depth asked for.
        depth: u16,
    },
    /// No hardware queues, or too many.
    #[error("{hw_queues} hardware queues: must be from 1 to 65534")]
    HwQueues {
        /// How many were asked for.
        hw_queues: u16,
    },
    /// There is no such hardware queue.
    #[error("no hardware queue {}: there are {hw_queues}, from 0 on", id.get())]
    NoSuchQueue {
        /// The queue asked for.
        id: QueueId,
        /// How many there are.
        hw_queues: u16,
    },
    /// Another context has the hardware queue, or a context that wants it for itself finds one there.
    #[error("hardware queue {} has a context that does not share it", id.get())]
    Taken {
        /// The queue asked for.
        id: QueueId,
    },
    /// Whoever wants timeouts must say what time it is.
    #[error("a timeout needs a clock")]
    TimeoutWithoutClock,
    /// Whoever wants latencies must say what time it is.
    #[error("latencies need a clock")]
    LatenciesWithoutClock,
    /// The device's limits make no sense.
    #[error("the device's limits: {0}")]
    Limits(#[from] LimitError),
}

#[cfg(all(test, loom))]
mod loom;
