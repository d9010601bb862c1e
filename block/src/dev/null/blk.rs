//! A null device with null_blk's knobs.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::hint;

use pageless_pfn::{ByteLen, PhysSegment};

use super::config::{CompletionMode, NullConfig, NullConfigError};
use super::inject::Injector;
use crate::access::FrameAccess;
use crate::badblocks::{BadBlocks, BadBlocksEdit, BadBlocksError, SectorRange};
use crate::clock::{Clock, Nanos};
use crate::dev::{each_part, transfer};
use crate::device::{Abort, BlockDevice, Submitted};
use crate::frames::sparse::SparseFrames;
use crate::limits::Limits;
use crate::op::Op;
use crate::position::{SECTOR_SIZE, Sector};
use crate::request::data::Data;
use crate::request::{Done, QueueId, Request, Tag};
use crate::status::{BlkError, Failure};
use crate::sync::Lock;
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::throttle::Throttle;
use crate::zoned::{Zone, ZoneCond, ZoneFault, ZoneFaultError, Zones};

/// A device that can be told to misbehave, and does so in the same way each time: [`NullConfig`]
/// says how. For one that is nothing but fast there is [`NullDevice`](crate::NullDevice).
///
/// What becomes of a request, in this order:
///
/// | step | outcome |
/// |---|---|
/// | as many as `hw_queue_depth` are kept | busy |
/// | a fault of `timeouts` strikes | kept until it is aborted |
/// | a fault of `requeues` strikes | busy (`DEV_RESOURCE` in null_blk) |
/// | `mbps` are used up | busy, or waits if `blocking` |
/// | a zone's condition or limits forbid it | their status, see [`Zones`] |
/// | the first sector is bad, or any without `badblocks_partial_io` | `IOERR`, nothing done |
/// | a later sector is bad | `IOERR`, the blocks before it done |
/// | no memory for what is written | `NOSPC`, the segments before it done |
/// | otherwise | OK: at once, with the next poll or after a time |
///
/// Bytes that were never written read as zeroes, and as ones beyond a zone's write pointer; without
/// `memory_backed` a read leaves memory as it is.
///
/// ```
/// use std::sync::Arc;
///
/// use pageless_block::{Bio, BlkError, HeapFrames, ManualClock, NullBlk, NullConfig, Sector};
/// use pageless_block::submit_sync;
/// use pageless_pfn::{ByteLen, FrameCount, Pfn};
///
/// let memory = Arc::new(HeapFrames::new(Pfn::try_new(0x100)?, FrameCount::new(1))?);
/// let buffer = memory.segment(0, ByteLen::new(4096)).unwrap();
/// let mut config = NullConfig::new(ByteLen::new(1 << 30));
/// config.badblocks.apply("+12-12".parse()?)?;
/// config.badblocks_partial_io = true;
/// config.badblocks_once = true;
/// let device = NullBlk::try_new(config, memory, Arc::new(ManualClock::new()))?;
///
/// let first = submit_sync(&device, Bio::write(Sector::new(8), buffer))?;
/// assert_eq!(first.result(), Err(BlkError::Io));
/// assert_eq!(first.done(), ByteLen::new(4 * 512));
/// assert!(submit_sync(&device, Bio::write(Sector::new(8), buffer))?.result().is_ok());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct NullBlk<M> {
    limits: Limits,
    memory: M,
    clock: Arc<dyn Clock>,
    completion: CompletionMode,
    depth: usize,
    blocking: bool,
    badblocks_once: bool,
    badblocks_partial_io: bool,
    store: Option<SparseFrames>,
    zones: Option<Lock<Zones>>,
    badblocks: Lock<BadBlocks>,
    throttle: Option<Lock<Limit>>,
    /// One for each hardware queue, and one for all other requests.
    queues: Box<[Lock<HwQueue>]>,
    counters: Counters,
}

/// What is kept for one hardware queue.
struct HwQueue {
    timeouts: Injector,
    requeues: Injector,
    /// Carried out, and completed from then on; in the order of those times, since all wait as
    /// long.
    finished: VecDeque<(Nanos, Done)>,
    /// Never completed.
    stuck: Vec<Request>,
}

struct Limit {
    throttle: Throttle,
    /// When to try again, if something was turned away.
    again: Option<Nanos>,
}

/// How often what happened, as [`NullBlk::counters`] has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct NullCounters {
    /// Requests that were never completed.
    pub timeouts: u64,
    /// Requests that were turned away by a fault.
    pub requeues: u64,
    /// Requests that found the MiB of this period used up.
    pub throttled: u64,
    /// Requests that met a bad sector.
    pub bad: u64,
}

/// Numbers and nothing else: all accesses are relaxed.
#[derive(Default)]
struct Counters {
    timeouts: AtomicU64,
    requeues: AtomicU64,
    throttled: AtomicU64,
    bad: AtomicU64,
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

impl<M: FrameAccess> NullBlk<M> {
    /// A device as `config` says, for bios whose memory is `memory`'s. The clock matters with a
    /// timer and with `mbps` alone.
    ///
    /// # Errors
    /// [`NullConfigError`] if the knobs do not go together, or if there is no memory for the states
    /// of the zones.
    pub fn try_new(
        config: NullConfig,
        memory: M,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, NullConfigError> {
        let limits = config.limits()?;
        let zones = config.zones().map(Zones::new).transpose()?;
        let queues = (0..=config.submit_queues)
            .map(|id| Lock::new(HwQueue::new(&config, id)))
            .collect();
        Ok(Self {
            limits,
            memory,
            clock,
            completion: config.completion,
            depth: usize::from(config.hw_queue_depth),
            blocking: config.blocking,
            badblocks_once: config.badblocks_once,
            badblocks_partial_io: config.badblocks_partial_io,
            store: config
                .memory_backed
                .then(|| SparseFrames::new(config.capacity)),
            zones: zones.map(Lock::new),
            badblocks: Lock::new(config.badblocks),
            throttle: (config.mbps != 0).then(|| {
                Lock::new(Limit {
                    throttle: Throttle::from_mbps(config.mbps),
                    again: None,
                })
            }),
            queues,
            counters: Counters::default(),
        })
    }

    /// What is on it, if it is memory-backed.
    pub const fn store(&self) -> Option<&SparseFrames> {
        self.store.as_ref()
    }

    /// Makes sectors bad or good from now on.
    ///
    /// # Errors
    /// [`BadBlocksError`]; nothing has changed then.
    pub fn edit_badblocks(&self, edit: BadBlocksEdit) -> Result<(), BadBlocksError> {
        self.badblocks.lock().apply(edit)
    }

    /// The sectors that are bad.
    pub fn badblocks(&self) -> BadBlocks {
        self.badblocks.lock().clone()
    }

    /// At most `most` zones from the one around `from` on; none without zones.
    pub fn report_zones(&self, from: Sector, most: usize) -> Vec<Zone> {
        match &self.zones {
            Some(zones) => zones.lock().report(from, most).collect(),
            None => Vec::new(),
        }
    }

    /// Makes the zone around `at` read-only or takes it offline, or mends it: see
    /// [`Zones::set_condition`].
    ///
    /// # Errors
    /// [`ZoneFaultError`] if there is no such zone or if it is conventional.
    pub fn set_zone_condition(
        &self,
        at: Sector,
        fault: ZoneFault,
    ) -> Result<ZoneCond, ZoneFaultError> {
        let Some(zones) = &self.zones else {
            let capacity = self.limits.capacity;
            return Err(ZoneFaultError::PastEnd { at, capacity });
        };
        let mut zones = zones.lock();
        let cond = zones.set_condition(at, fault)?;
        if cond == ZoneCond::Empty
            && let Some(zone) = zones.report(at, 1).next()
        {
            self.forget(zone.start, ByteLen::new(zone.len * SECTOR_SIZE));
        }
        Ok(cond)
    }

    /// What has happened so far.
    pub fn counters(&self) -> NullCounters {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        NullCounters {
            timeouts: read(&self.counters.timeouts),
            requeues: read(&self.counters.requeues),
            throttled: read(&self.counters.throttled),
            bad: read(&self.counters.bad),
        }
    }

    /// Requests it keeps: finished and not yet handed over, or never to be finished.
    pub fn kept(&self) -> usize {
        self.queues.iter().map(|queue| queue.lock().kept()).sum()
    }

    fn hw(&self, id: QueueId) -> &Lock<HwQueue> {
        let others = self.queues.len() - 1;
        &self.queues[usize::from(id.get()).min(others)]
    }

    /// Whether `len` bytes may pass now.
    fn passes(&self, len: ByteLen) -> bool {
        let Some(limit) = &self.throttle else {
            return true;
        };
        let mut counted = false;
        loop {
            let again = {
                let mut limit = limit.lock();
                match limit.throttle.take(self.clock.now(), len) {
                    Ok(()) => {
                        limit.again = None;
                        return true;
                    }
                    Err(again) => {
                        limit.again = Some(again);
                        again
                    }
                }
            };
            if !counted {
                count(&self.counters.throttled);
                counted = true;
            }
            if !self.blocking {
                return false;
            }
            self.clock.idle_until(again);
            hint::spin_loop();
        }
    }

    fn carry_out(&self, request: &mut Request) -> Result<(), Failure> {
        match (&self.zones, request.op()) {
            (_, Op::Flush) => Ok(()),
            (Some(zones), op) if op.manages_zones() => {
                zones
                    .lock()
                    .manage_with(op, request.sector(), |start, len| self.forget(start, len))?;
                Ok(())
            }
            (Some(zones), Op::Write) => self.write_zone(&mut zones.lock(), request),
            (Some(zones), Op::ZoneAppend) => self.append_zone(&mut zones.lock(), request),
            (Some(zones), Op::Read) => {
                // Held, so that no reset comes between.
                let zones = zones.lock();
                let written = zones.read(request.sector(), request.len())?;
                let good = self.good(request.sector(), request.len())?;
                self.read(request, good.len, written)?;
                good.result()
            }
            (None, Op::Read | Op::Write | Op::Discard) => {
                let good = self.good(request.sector(), request.len())?;
                match (&self.store, request.op()) {
                    (None, _) => {}
                    (Some(store), Op::Discard) => store.zero(request.position(), good.len)?,
                    (Some(store), _) => {
                        transfer(store, &self.memory, request, request.position(), good.len)?;
                    }
                }
                good.result()
            }
            _ => Err(BlkError::NotSupported.into()),
        }
    }

    fn write_zone(&self, zones: &mut Zones, request: &Request) -> Result<(), Failure> {
        let (at, len) = (request.sector(), request.len());
        // All of it must have a place, before a part of it is written.
        zones.check_write(at, len)?;
        let good = self.good(at, len)?;
        let mut outcome = Ok(());
        let written =
            zones.write_with(at, good.len, || self.write(request, at, good, &mut outcome));
        written.map_err(|error| outcome.err().unwrap_or(error.into()))?;
        good.result()
    }

    fn append_zone(&self, zones: &mut Zones, request: &mut Request) -> Result<(), Failure> {
        let (zone, len) = (request.sector(), request.len());
        let at = zones.check_append(zone, len)?;
        let good = self.good(at, len)?;
        let mut outcome = Ok(());
        let written = zones.append_with(zone, good.len, |at| {
            self.write(request, at, good, &mut outcome)
        });
        let at = written.map_err(|error| outcome.err().unwrap_or(error.into()))?;
        request.set_written(at);
        good.result()
    }

    /// Writes the good part of a request to a zone. How much of it was written in the end goes to
    /// `outcome`, since zones know the status alone.
    fn write(
        &self,
        request: &Request,
        at: Sector,
        good: Good,
        outcome: &mut Result<(), Failure>,
    ) -> Result<(), BlkError> {
        if let Some(store) = &self.store {
            let at = at.position().ok_or(BlkError::Io)?;
            *outcome = transfer(store, &self.memory, request, at, good.len);
        }
        // The write pointer stays: of what was written nothing can be read.
        if let Err(failure) = outcome {
            failure.done = ByteLen::ZERO;
        }
        outcome.map_err(|failure| failure.error)
    }

    /// Reads the first `len` bytes of a request, of which `written` were ever written.
    fn read(&self, request: &Request, len: ByteLen, written: ByteLen) -> Result<(), Failure> {
        let (Some(store), Data::ToMemory(parts)) = (&self.store, request.data()) else {
            return Ok(());
        };
        let from = request.position();
        let parts = parts.map(|part| part.segment());
        each_part(parts, from, len, |at, part| {
            let before = at.get() - from.get();
            let there = written.get().saturating_sub(before).min(part.len().get());
            let rest = ByteLen::new(part.len().get() - there);
            if let Some(part) = part.slice(ByteLen::ZERO, ByteLen::new(there)) {
                store.read(at, &self.memory, part)?;
            }
            if let Some(part) = part.slice(ByteLen::new(there), rest) {
                self.fill_with_ones(part)?;
            }
            Ok(())
        })
    }

    fn fill_with_ones(&self, part: PhysSegment) -> Result<(), crate::AccessError> {
        let ones = [0xff; SECTOR_SIZE as usize];
        let mut at = 0;
        while at < part.len().get() {
            let len = SECTOR_SIZE.min(part.len().get() - at);
            if let Some(sector) = part.slice(ByteLen::new(at), ByteLen::new(len)) {
                self.memory.write_bytes(sector, &ones)?;
            }
            at += len;
        }
        Ok(())
    }

    /// How much of a range is carried out before the first bad sector.
    ///
    /// # Errors
    /// [`BlkError::Io`] if that is nothing.
    fn good(&self, at: Sector, len: ByteLen) -> Result<Good, BlkError> {
        let mut badblocks = self.badblocks.lock();
        let range = SectorRange::try_new(at, len.get() / SECTOR_SIZE);
        let bad = range.and_then(|range| badblocks.first_bad(range));
        let Some(bad) = bad else {
            return Ok(Good { len, all: true });
        };
        count(&self.counters.bad);
        if self.badblocks_once {
            // A whole run goes, so that the table takes no more entries than before.
            let _ = badblocks.clear(bad.range);
        }
        let before = bad.range.start().get().saturating_sub(at.get()) * SECTOR_SIZE;
        let before = before - before % self.limits.logical_block.get();
        match before {
            before if before > 0 && self.badblocks_partial_io => Ok(Good {
                len: ByteLen::new(before),
                all: false,
            }),
            _ => Err(BlkError::Io),
        }
    }

    /// The contents of a zone are gone.
    fn forget(&self, start: Sector, len: ByteLen) {
        if let (Some(store), Some(at)) = (&self.store, start.position()) {
            // A zone lies within the device, so that this cannot fail.
            let zeroed = store.zero(at, len);
            debug_assert!(zeroed.is_ok(), "{zeroed:?}");
        }
    }

    /// Nobody has anything to do before this moment.
    fn next_moment(&self, queue: &HwQueue) -> Option<Nanos> {
        let due = queue.finished.front().map(|(due, _)| *due);
        let again = self.throttle.as_ref().and_then(|limit| limit.lock().again);
        due.into_iter().chain(again).min()
    }
}

/// The part of a request that touches no bad sector.
#[derive(Clone, Copy)]
struct Good {
    len: ByteLen,
    all: bool,
}

impl Good {
    fn result(self) -> Result<(), Failure> {
        match self.all {
            true => Ok(()),
            false => Err(Failure {
                error: BlkError::Io,
                done: self.len,
            }),
        }
    }
}

impl HwQueue {
    fn new(config: &NullConfig, id: u16) -> Self {
        // Streams that begin far apart: the generator is stepped, not seeded with neighbours.
        let mut seeds = fastrand::Rng::with_seed(config.seed);
        let mut seed = 0;
        for _ in 0..=id {
            seed = seeds.u64(..);
        }
        Self {
            timeouts: Injector::new(config.timeouts, seed),
            requeues: Injector::new(config.requeues, !seed),
            finished: VecDeque::new(),
            stuck: Vec::new(),
        }
    }

    fn kept(&self) -> usize {
        self.finished.len() + self.stuck.len()
    }

    /// The first request of `id` that is due. Hardware queues beyond those configured share this
    /// one.
    fn take_due(&mut self, id: QueueId, now: Nanos) -> Option<Done> {
        let at = self
            .finished
            .iter()
            .take_while(|(due, _)| *due <= now)
            .position(|(_, done)| done.queue() == id)?;
        self.finished.remove(at).map(|(_, done)| done)
    }
}

impl<M: FrameAccess> BlockDevice for NullBlk<M> {
    fn limits(&self) -> Limits {
        self.limits
    }

    fn submit(&self, mut request: Request) -> Submitted {
        let hw = self.hw(request.queue());
        {
            let mut hw = hw.lock();
            if hw.kept() >= self.depth {
                return Submitted::Busy(request);
            }
            // Nobody takes a nested request back: whoever made it waits until it is done.
            let stuck = hw.timeouts.strikes() && request.queue() != QueueId::NESTED;
            if hw.requeues.strikes() {
                count(&self.counters.requeues);
                return Submitted::Busy(request);
            }
            if stuck {
                count(&self.counters.timeouts);
                hw.stuck.push(request);
                return Submitted::Kept;
            }
        }
        if !self.passes(request.len()) {
            return Submitted::Busy(request);
        }
        let result = self.carry_out(&mut request);
        let done = request.complete(result);
        let wait = match self.completion {
            CompletionMode::None => return Submitted::Done(done),
            CompletionMode::Softirq => None,
            CompletionMode::Timer(wait) => Some(wait),
        };
        // The time is asked for with the lock held, so that the list is in order.
        let mut hw = hw.lock();
        let due = wait.map_or(Nanos::ZERO, |wait| self.clock.now().saturating_add(wait));
        hw.finished.push_back((due, done));
        Submitted::Kept
    }

    /// Completes what is due. If nothing is, the clock is told until when nothing will be, and
    /// asked again.
    fn poll(&self, queue: QueueId, done: &mut dyn FnMut(Done)) {
        let mut found = false;
        for waited in [false, true] {
            let mut hw = self.hw(queue).lock();
            let now = match self.completion {
                CompletionMode::Timer(_) => self.clock.now(),
                _ => Nanos::ZERO,
            };
            while let Some(due) = hw.take_due(queue, now) {
                done(due);
                found = true;
            }
            if found || waited {
                return;
            }
            let next = self.next_moment(&hw);
            drop(hw);
            match next {
                Some(next) => self.clock.idle_until(next),
                None => return,
            }
        }
    }

    fn abort(&self, queue: QueueId, tag: Tag) -> Abort {
        let mut hw = self.hw(queue).lock();
        let found = hw
            .stuck
            .iter()
            .position(|request| request.tag() == tag && request.queue() == queue);
        match found {
            Some(at) => Abort::Aborted(hw.stuck.remove(at)),
            None => Abort::Running,
        }
    }
}

impl<M> fmt::Debug for NullBlk<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NullBlk")
            .field("limits", &self.limits)
            .field("completion", &self.completion)
            .field("memory_backed", &self.store.is_some())
            .field("zoned", &self.zones.is_some())
            .finish_non_exhaustive()
    }
}
