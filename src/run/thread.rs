//! One thread of a section: a closed loop that keeps its queue full.

use alloc::sync::Arc;
use core::ops::ControlFlow;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use core::time::Duration;
use std::time::Instant;

use alloc::collections::BTreeMap;

use pageless_block::{
    BlockDevice, BytePos, Context, FrameAccess, Op, QueueConfig, QueueId, RamFrames, RequestQueue,
};
use pageless_pfn::{ByteLen, FrameCount, PAGE_SHIFT, PfnRange, PhysSegment};

use super::clock::{Moment, RequestClock};
use super::cpu::CpuUse;
use super::pins::{DescriptorPins, PinError};
use super::report::{Failure, FailureKind};
use super::starvation::{Attempt, Starvation};
use super::stats::{DirectionStats, Latencies};
use super::trace::ThreadTrace;
use super::way::Way;
use crate::job::verify::Verifier;
use crate::job::workload::{Generator, Mix, Next, Pace, Request, Seed};
use crate::job::{Area, Direction, PerDirection, Section, ThreadPlan};

/// How many failures of a thread are kept; the rest are counted.
const KEPT_FAILURES: usize = 8;

/// How long a thread may wait for others to give back their pins before that is an error.
const PIN_PATIENCE: Duration = Duration::from_secs(10);

/// How often those who watch get new numbers, if anything completes.
const LIVE_EVERY: Duration = Duration::from_millis(1);

/// What a thread has done so far, for whoever watches. Written by the thread alone, so plain
/// stores suffice; a watcher may see the numbers a little late.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(super) struct Live {
    pub(super) ios: PerDirection<AtomicU64>,
    pub(super) bytes: PerDirection<AtomicU64>,
    /// Set when the numbers began anew because `ramp_time` was over.
    pub(super) restarted: AtomicBool,
}

/// What a thread is given.
pub(super) struct Task<'a, D, P> {
    pub(super) way: Way,
    pub(super) section: &'a Section,
    pub(super) plan: &'a ThreadPlan,
    pub(super) area: &'a Area,
    pub(super) device: &'a D,
    pub(super) device_frames: PfnRange,
    pub(super) ram: &'a RamFrames,
    /// Where in `ram` its buffers begin, in bytes.
    pub(super) buffers: u64,
    pub(super) pins: &'a P,
    pub(super) starvation: &'a Starvation,
    pub(super) stop: &'a AtomicBool,
    pub(super) live: &'a Live,
    /// Who looks on, if anybody does.
    pub(super) trace: Option<ThreadTrace>,
    pub(super) generator: Generator,
}

impl<'a, D, P> Task<'a, D, P> {
    /// The same on another device.
    pub(super) fn on<E>(self, device: &'a E) -> Task<'a, E, P> {
        Task {
            way: self.way,
            section: self.section,
            plan: self.plan,
            area: self.area,
            device,
            device_frames: self.device_frames,
            ram: self.ram,
            buffers: self.buffers,
            pins: self.pins,
            starvation: self.starvation,
            stop: self.stop,
            live: self.live,
            trace: self.trace,
            generator: self.generator,
        }
    }
}

/// What a thread brings back.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) directions: PerDirection<DirectionStats>,
    pub(super) sync: Latencies,
    pub(super) elapsed: Duration,
    pub(super) cpu: CpuUse,
    pub(super) depths: [u64; 7],
    pub(super) pinned_peak: u64,
    pub(super) failures: Vec<Failure>,
    pub(super) mismatches: u64,
}

/// One place in the queue: its buffer, and what is pinned while it is in flight.
struct Slot<H> {
    buffer: PhysSegment,
    held: H,
    frames: u64,
    began: Moment,
    request: Request,
    /// Which write this is or reads back, for the seed in its header.
    write: u64,
}

/// Why a phase ended early.
enum Halt {
    Deadline,
    Stopped,
    /// A failure that ends the thread; it is in the list.
    Failed,
}

struct Worker<'a, 'q, D: BlockDevice, P: DescriptorPins> {
    task: Task<'a, D, P>,
    context: P::Context,
    io: Context<'q, &'a D>,
    slots: Vec<Slot<P::Held>>,
    free: Vec<usize>,
    verifier: Option<Verifier>,
    /// Whether reads of the workload itself are checked.
    verify_reads: bool,
    scratch: Vec<u8>,
    seed: Seed,
    /// Requests issued so far: the number of the next write.
    issued: u64,
    pace: Option<Pace>,
    clock: RequestClock,
    epoch: Instant,
    /// What the thread had used at the epoch.
    cpu: CpuUse,
    /// Up to where the time is accounted to directions.
    mark: Instant,
    /// [`Moment::NEVER`] where there is none, as for the deadline.
    ramp_end: Moment,
    deadline: Moment,
    /// The deadline by the system's clock, for those who sleep.
    runtime_end: Option<Instant>,
    /// When the live numbers are brought up to date.
    live_due: Moment,
    /// Reading back what was written: every read is checked.
    reading_back: bool,
    pinned: u64,
    out: Outcome,
}

/// Runs the task to its end.
pub(super) fn run<D: BlockDevice, P: DescriptorPins>(
    task: Task<'_, D, P>,
    ready: impl FnOnce(),
) -> Outcome {
    let _running = task.starvation.running();
    let depth = u16::try_from(task.section.iodepth).unwrap_or(u16::MAX);
    let trace = task.trace.clone();
    let config = QueueConfig {
        depth,
        clock: trace.as_ref().map(|trace| Arc::clone(&trace.clock)),
        probe: trace.map(|trace| trace.probe),
        ..QueueConfig::default()
    };
    let queue = RequestQueue::try_new(task.device, config)
        .unwrap_or_else(|error| unreachable!("the job's depth is in range: {error}"));
    let io = queue
        .context(QueueId::new(0))
        .unwrap_or_else(|error| unreachable!("there is one: {error}"));
    let mut worker = Worker::new(task, io);
    ready();
    worker.run();
    worker.out
}

impl<'a, 'q, D: BlockDevice, P: DescriptorPins> Worker<'a, 'q, D, P> {
    fn new(task: Task<'a, D, P>, io: Context<'q, &'a D>) -> Self {
        let section = task.section;
        let depth = io.queue().depth();
        let longest = section.longest_request();
        let stride = u64::from(longest).next_multiple_of(1 << PAGE_SHIFT);
        let clock = RequestClock::of_this_machine();
        let (now, began) = (Instant::now(), clock.now());
        let slots: Vec<_> = (0..u64::from(depth))
            .map(|n| {
                let at = task.buffers + n * stride;
                let buffer = task
                    .ram
                    .segment(at, ByteLen::new(u64::from(longest)))
                    .unwrap_or_else(|| unreachable!("the stage made room for every buffer"));
                let request = Request {
                    direction: Direction::Read,
                    offset: 0,
                    len: 0,
                };
                Slot {
                    buffer,
                    held: P::Held::default(),
                    frames: 0,
                    began,
                    request,
                    write: 0,
                }
            })
            .collect();
        let verify = section.verify.as_ref();
        let verifier = verify.map(|v| Verifier::new(v.method, v.pattern.clone(), v.interval));
        // What is written in between would have to be known to check what a mix reads.
        let verify_reads = verifier.is_some() && section.access.mix == Mix::Only(Direction::Read);
        let scratch_len = usize::try_from(longest).unwrap_or(0);
        let mut scratch = vec![0; scratch_len];
        let seed = task.plan.seed.derive(0x77 + task.way as u64);
        Verifier::new(crate::job::verify::Method::Crc32c, None, None).fill(&mut scratch, 0, seed);
        for slot in &slots {
            // Buffers hold something other than zeroes, and are in memory before the clock runs.
            // Buffers are RAM frames of the stage: reaching them cannot fail.
            let _ = task.ram.write_bytes(slot.buffer, &scratch);
        }
        let pace = (!section.rates.is_unlimited()).then(|| Pace::new(section.rates));
        Self {
            context: task.pins.enter(),
            io,
            free: (0..slots.len()).rev().collect(),
            slots,
            verifier,
            verify_reads,
            scratch,
            seed,
            issued: 0,
            pace,
            clock,
            epoch: now,
            cpu: CpuUse::default(),
            mark: now,
            ramp_end: Moment::NEVER,
            deadline: Moment::NEVER,
            runtime_end: None,
            live_due: began,
            reading_back: false,
            pinned: 0,
            out: Outcome {
                directions: PerDirection::from_fn(|_| DirectionStats::default()),
                sync: Latencies::new(),
                elapsed: Duration::ZERO,
                cpu: CpuUse::default(),
                depths: [0; 7],
                pinned_peak: 0,
                failures: Vec::new(),
                mismatches: 0,
            },
            task,
        }
    }

    fn run(&mut self) {
        let section = self.task.section;
        self.sleep_until(Instant::now() + self.start_delay());
        self.cpu = CpuUse::of_this_thread();
        self.epoch = Instant::now();
        self.mark = self.epoch;
        let began = self.clock.now();
        let end = |time| self.clock.after(began, time);
        let ramp = Some(section.ramp_time).filter(|t| !t.is_zero());
        self.ramp_end = ramp.map_or(Moment::NEVER, end);
        let runtime = section.runtime.map(|t| t.saturating_add(section.ramp_time));
        self.deadline = runtime.map_or(Moment::NEVER, end);
        self.runtime_end = runtime.and_then(|t| self.epoch.checked_add(t));
        let mut pass = 0;
        while self.pass().is_continue() {
            pass += 1;
            if pass >= section.loops && !section.time_based {
                break;
            }
            self.task.generator.restart();
        }
        if section.flush_at_end && self.out.failures.is_empty() {
            let _ = self.flush();
        }
        self.out.elapsed = self.epoch.elapsed();
        self.out.cpu = CpuUse::of_this_thread().since(self.cpu);
        for direction in Direction::ALL {
            self.out.directions[direction].settle_samples();
        }
    }

    fn start_delay(&self) -> Duration {
        let delay = self.task.section.start_delay;
        let spread = delay.high.saturating_sub(delay.low);
        let ticket = self.task.plan.seed.derive(0x64).get() % 1001;
        delay.low + spread.mul_f64(ticket as f64 / 1000.0)
    }

    /// One pass of the workload and, where asked for, reading back what it wrote.
    fn pass(&mut self) -> ControlFlow<Halt> {
        let section = self.task.section;
        let read_back = section.verify.as_ref().is_some_and(|v| v.read_back)
            && section.access.has(Direction::Write);
        let mut begun = read_back.then(|| (self.task.generator.clone(), self.issued));
        let end = self.issue_pass(&mut begun);
        let drained = self.drain();
        let (from, to) = self.lap();
        self.show(self.clock.now());
        for direction in Direction::ALL {
            if section.access.has(direction) {
                self.out.directions[direction].ran(from, to);
            }
        }
        drained?;
        if let Some((generator, first)) = begun
            && !matches!(end, ControlFlow::Break(Halt::Stopped | Halt::Failed))
        {
            let checked = self.read_back(generator, first);
            let (from, to) = self.lap();
            self.out.directions[Direction::Read].ran(from, to);
            checked?;
        }
        end
    }

    /// The time since the last lap: its beginning and end.
    fn lap(&mut self) -> (Instant, Instant) {
        let now = Instant::now();
        (core::mem::replace(&mut self.mark, now), now)
    }

    fn issue_pass(&mut self, begun: &mut Option<(Generator, u64)>) -> ControlFlow<Halt> {
        let section = self.task.section;
        let (mut writes, mut thought) = (0u64, 0u64);
        let mut now = self.clock.now();
        loop {
            if self.task.stop.load(Ordering::Relaxed) {
                return ControlFlow::Break(Halt::Stopped);
            }
            if now >= self.ramp_end {
                self.end_ramp()?;
                if let Some(begun) = begun {
                    *begun = (self.task.generator.clone(), self.issued);
                }
                now = self.clock.now();
            }
            if now >= self.deadline {
                return ControlFlow::Break(Halt::Deadline);
            }
            let Next::Request(request) = self.task.generator.next_request() else {
                return ControlFlow::Continue(());
            };
            if let Some(due) = self
                .pace
                .as_mut()
                .and_then(|p| p.admit(request.direction, request.len))
            {
                self.wait_until(self.epoch + due)?;
            }
            let number = self.issued;
            self.issued += 1;
            now = self.issue(request, number)?;
            if self.free.is_empty() {
                now = self.reap_one()?;
            }
            if request.direction == Direction::Write
                && let Some(every) = section.flush_every
            {
                writes += 1;
                if writes.is_multiple_of(every) {
                    self.flush()?;
                }
            }
            if let Some(think) = section.think {
                thought += 1;
                if thought.is_multiple_of(think.every) {
                    self.drain()?;
                    let spin_end = Instant::now() + think.spin;
                    while Instant::now() < spin_end {
                        core::hint::spin_loop();
                    }
                    self.sleep_until(spin_end + think.pause.saturating_sub(think.spin));
                }
            }
        }
    }

    /// `ramp_time` is over: what was measured so far is forgotten, and the workload begins anew.
    fn end_ramp(&mut self) -> ControlFlow<Halt> {
        self.drain()?;
        self.ramp_end = Moment::NEVER;
        for direction in Direction::ALL {
            let stats = &mut self.out.directions[direction];
            (stats.ios, stats.bytes, stats.runtime) = (0, 0, Duration::ZERO);
            stats.interval = None;
            stats.latencies.reset();
            self.task.live.ios[direction].store(0, Ordering::Relaxed);
            self.task.live.bytes[direction].store(0, Ordering::Relaxed);
        }
        self.task.live.restarted.store(true, Ordering::Relaxed);
        self.out.sync.reset();
        self.out.depths = [0; 7];
        self.task.generator.restart();
        if let Some(pace) = &mut self.pace {
            *pace = Pace::new(self.task.section.rates);
        }
        self.cpu = CpuUse::of_this_thread();
        self.epoch = Instant::now();
        self.mark = self.epoch;
        ControlFlow::Continue(())
    }

    /// Reads back every write of the pass that began with `generator`, by issuing the same
    /// requests again: nothing had to be written down while the clock ran.
    fn read_back(&mut self, mut generator: Generator, first: u64) -> ControlFlow<Halt> {
        self.reading_back = true;
        let count = self.issued - first;
        let end = if generator.may_overlap() {
            let last = last_writes(&mut generator, first, count);
            last.into_iter().try_for_each(|(offset, (len, write))| {
                let request = Request {
                    direction: Direction::Read,
                    offset,
                    len,
                };
                self.read_one(request, write)
            })
        } else {
            (first..first + count).try_for_each(|number| match generator.next_request() {
                Next::Request(request) if request.direction == Direction::Write => self.read_one(
                    Request {
                        direction: Direction::Read,
                        ..request
                    },
                    number,
                ),
                _ => ControlFlow::Continue(()),
            })
        };
        let drained = self.drain();
        self.reading_back = false;
        drained?;
        end
    }

    #[inline(never)]
    fn read_one(&mut self, request: Request, write: u64) -> ControlFlow<Halt> {
        if self.task.stop.load(Ordering::Relaxed) {
            return ControlFlow::Break(Halt::Stopped);
        }
        self.issue(request, write)?;
        if self.free.is_empty() {
            self.reap_one()?;
        }
        ControlFlow::Continue(())
    }

    /// Gives one request to the queue; there must be a free slot. Returns when it began.
    #[inline(always)]
    fn issue(&mut self, request: Request, write: u64) -> ControlFlow<Halt, Moment> {
        let Some(index) = self.free.pop() else {
            unreachable!("a full queue is reaped before the next request");
        };
        let len = ByteLen::new(u64::from(request.len));
        let file_offset = self.task.plan.offset.get() + request.offset;
        let position = self.task.area.start.get() + file_offset;
        let slot = &mut self.slots[index];
        let Some(buffer) = slot.buffer.slice(ByteLen::ZERO, len) else {
            unreachable!("no request is longer than the longest");
        };
        if request.direction == Direction::Write
            && let Some(verifier) = &self.verifier
        {
            let block = &mut self.scratch[..request.len as usize];
            verifier.fill(block, file_offset, self.seed.derive(write));
            // Buffers are RAM frames of the stage: reaching them cannot fail.
            let _ = self.task.ram.write_bytes(buffer, block);
        }
        (slot.request, slot.write) = (request, write);
        let Some(sector) = BytePos::new(position).sector() else {
            unreachable!("positions are whole sectors");
        };
        let bio = match request.direction {
            Direction::Read => self.io.pool().read(sector, buffer).erase(),
            Direction::Write => self.io.pool().write(sector, buffer).erase(),
            Direction::Trim => self.io.pool().with_range(Op::Discard, sector, len),
        };
        let began = self.clock.now();
        slot.began = began;
        if P::PINS {
            self.pin(index, position)?;
        }
        let in_flight = self.slots.len() - self.free.len();
        self.out.depths[(in_flight.ilog2() as usize).min(6)] += 1;
        if let Err(rejected) = self.io.submit(bio.with_token(index as u64)) {
            unreachable!("a free slot means a free place in the queue: {rejected}");
        }
        ControlFlow::Continue(began)
    }

    #[inline]
    fn pin(&mut self, index: usize, position: u64) -> ControlFlow<Halt> {
        let request = self.slots[index].request;
        let first = position >> PAGE_SHIFT;
        let last = (position + u64::from(request.len) - 1) >> PAGE_SHIFT;
        let count = last - first + 1;
        let Some(frames) = self.task.device_frames.slice(first, FrameCount::new(count)) else {
            unreachable!("requests stay within the device");
        };
        let slot = &mut self.slots[index];
        if let Err(error) = self.task.pins.pin(&self.context, frames, &mut slot.held) {
            self.pin_later(index, frames, error)?;
        }
        self.slots[index].frames = count;
        self.pinned += count;
        self.out.pinned_peak = self.out.pinned_peak.max(self.pinned);
        ControlFlow::Continue(())
    }

    /// The budget is pinned: let requests come back, first our own, and try again.
    #[cold]
    fn pin_later(
        &mut self,
        index: usize,
        frames: PfnRange,
        mut error: PinError,
    ) -> ControlFlow<Halt> {
        while matches!(error, PinError::Full(_)) && self.io.in_flight() > 0 {
            self.reap_one()?;
            let slot = &mut self.slots[index];
            match self.task.pins.pin(&self.context, frames, &mut slot.held) {
                Ok(()) => return ControlFlow::Continue(()),
                Err(again) => error = again,
            }
        }
        if matches!(error, PinError::Full(_)) {
            match self.wait_for_others(index, frames)? {
                Ok(()) => return ControlFlow::Continue(()),
                Err(last) => error = last,
            }
        }
        let request = self.slots[index].request;
        self.free.push(index);
        let advice = match error {
            PinError::Full(_) => {
                "; a larger --budget, or smaller or fewer requests at a time, would fit"
            }
            PinError::Broken(_) => "",
        };
        self.fail(FailureKind::Pin {
            file: self.task.area.name.clone(),
            offset: self.task.plan.offset.get() + request.offset,
            len: request.len,
            error: format!("{error}{advice}"),
        });
        ControlFlow::Break(Halt::Failed)
    }

    /// With nothing of ours in flight: tries again until there is room, nobody is left who could
    /// make some, or patience ends.
    fn wait_for_others(
        &mut self,
        index: usize,
        frames: PfnRange,
    ) -> ControlFlow<Halt, Result<(), PinError>> {
        let patience = Instant::now() + PIN_PATIENCE;
        let mut waiter = self.task.starvation.wait();
        loop {
            if self.task.stop.load(Ordering::Relaxed) {
                self.free.push(index);
                return ControlFlow::Break(Halt::Stopped);
            }
            let mut refused = None;
            let slot = &mut self.slots[index];
            let (pins, context) = (self.task.pins, &self.context);
            let attempt = waiter.attempt(|| {
                refused = pins.pin(context, frames, &mut slot.held).err();
                refused.is_none()
            });
            match (refused, attempt) {
                (None, _) => return ControlFlow::Continue(Ok(())),
                (Some(PinError::Full(_)), Attempt::Later) if Instant::now() < patience => {}
                (Some(error), _) => return ControlFlow::Continue(Err(error)),
            }
            std::thread::yield_now();
        }
    }

    /// Takes the next completion and accounts for it. Returns when it had come back.
    #[inline(always)]
    fn reap_one(&mut self) -> ControlFlow<Halt, Moment> {
        let completion = loop {
            match self.io.reap() {
                Some(completion) => break completion,
                None => core::hint::spin_loop(),
            }
        };
        let index = completion.token() as usize;
        let slot = &mut self.slots[index];
        if P::PINS {
            self.task.pins.unpin(&mut slot.held);
            self.pinned -= slot.frames;
        }
        let now = self.clock.now();
        self.free.push(index);
        let request = slot.request;
        let result = completion.result();
        self.io.pool().put(completion.into_bio());
        if let Err(error) = result {
            self.fail(FailureKind::Device {
                direction: Some(request.direction),
                file: self.task.area.name.clone(),
                offset: self.task.plan.offset.get() + request.offset,
                len: request.len,
                error: error.to_string(),
                errno: error.errno(),
            });
            return ControlFlow::Break(Halt::Failed);
        }
        let stats = &mut self.out.directions[request.direction];
        stats.ios += 1;
        stats.bytes += u64::from(request.len);
        stats
            .latencies
            .record_nanos(self.clock.nanos(slot.began, now));
        if now >= self.live_due {
            self.show(now);
        }
        if self.reading_back || self.verify_reads {
            self.check(index)?;
        }
        ControlFlow::Continue(now)
    }

    /// Brings the live numbers up to date.
    #[cold]
    fn show(&mut self, now: Moment) {
        self.live_due = self.clock.after(now, LIVE_EVERY);
        let live = self.task.live;
        for direction in Direction::ALL {
            let stats = &self.out.directions[direction];
            live.ios[direction].store(stats.ios, Ordering::Relaxed);
            live.bytes[direction].store(stats.bytes, Ordering::Relaxed);
        }
    }

    fn check(&mut self, index: usize) -> ControlFlow<Halt> {
        let Some(verifier) = &self.verifier else {
            return ControlFlow::Continue(());
        };
        let slot = &self.slots[index];
        let block = &mut self.scratch[..slot.request.len as usize];
        // Buffers are RAM frames of the stage: reaching them cannot fail.
        let _ = self.task.ram.read_bytes(slot.buffer, block);
        let offset = self.task.plan.offset.get() + slot.request.offset;
        let known = self.reading_back && !self.task.plan.disturbed;
        let seed = known.then(|| self.seed.derive(slot.write));
        let Err(mismatch) = verifier.check(block, offset, seed) else {
            return ControlFlow::Continue(());
        };
        self.out.mismatches += 1;
        self.fail(FailureKind::Mismatch {
            file: self.task.area.name.clone(),
            mismatch,
        });
        if self.task.section.verify.as_ref().is_some_and(|v| v.fatal) {
            return ControlFlow::Break(Halt::Failed);
        }
        ControlFlow::Continue(())
    }

    #[cold]
    fn fail(&mut self, kind: FailureKind) {
        if self.out.failures.len() < KEPT_FAILURES {
            let section = self.task.section.name.clone();
            self.out.failures.push(Failure {
                section,
                way: self.task.way,
                kind,
            });
        }
    }

    #[inline(never)]
    fn drain(&mut self) -> ControlFlow<Halt> {
        let mut end = ControlFlow::Continue(());
        while self.io.in_flight() > 0 {
            if let ControlFlow::Break(halt) = self.reap_one() {
                // The rest must still come back, or their pins would stay.
                end = ControlFlow::Break(halt);
            }
        }
        end
    }

    fn flush(&mut self) -> ControlFlow<Halt> {
        self.drain()?;
        let began = self.clock.now();
        let flush = self.io.pool().flush();
        if let Err(rejected) = self.io.submit(flush) {
            unreachable!("the queue is empty: {rejected}");
        }
        let completion = loop {
            match self.io.reap() {
                Some(completion) => break completion,
                None => core::hint::spin_loop(),
            }
        };
        let took = self.clock.nanos(began, self.clock.now());
        let result = completion.result();
        self.io.pool().put(completion.into_bio());
        self.out.sync.record_nanos(took);
        if let Err(error) = result {
            self.fail(FailureKind::Device {
                direction: None,
                file: self.task.area.name.clone(),
                offset: 0,
                len: 0,
                error: error.to_string(),
                errno: error.errno(),
            });
            return ControlFlow::Break(Halt::Failed);
        }
        ControlFlow::Continue(())
    }

    /// Waits for the moment a request is due, with nothing of ours left in the queue.
    fn wait_until(&mut self, due: Instant) -> ControlFlow<Halt> {
        if Instant::now() >= due {
            return ControlFlow::Continue(());
        }
        self.drain()?;
        let due = self.runtime_end.map_or(due, |end| due.min(end));
        self.sleep_until(due);
        ControlFlow::Continue(())
    }

    fn sleep_until(&self, due: Instant) {
        // The kernel wakes us late by about this much; the rest is spun away.
        const SLACK: Duration = Duration::from_micros(80);
        const NAP: Duration = Duration::from_millis(50);
        while !self.task.stop.load(Ordering::Relaxed) {
            let left = due.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            if left > SLACK {
                std::thread::sleep((left - SLACK).min(NAP));
            } else {
                core::hint::spin_loop();
            }
        }
    }
}

/// The last write to each place, by offset: its length and number. A write that an overlapping
/// later one has partly replaced is left out, for nobody can say what it should hold.
fn last_writes(generator: &mut Generator, first: u64, count: u64) -> BTreeMap<u64, (u32, u64)> {
    let mut last: BTreeMap<u64, (u32, u64)> = BTreeMap::new();
    for number in first..first + count {
        let Next::Request(request) = generator.next_request() else {
            break;
        };
        if request.direction == Direction::Read {
            continue;
        }
        let end = request.offset + u64::from(request.len);
        while let Some((&offset, &(len, _))) = last.range(..end).next_back()
            && offset + u64::from(len) > request.offset
        {
            last.remove(&offset);
        }
        if request.direction == Direction::Write {
            last.insert(request.offset, (request.len, number));
        }
    }
    last
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::cell::RefCell;
    use std::sync::Mutex;

    use alloc::sync::Arc;

    use pageless_block::{BlkError, Request as BlockRequest};
    use pageless_block::{Done, Limits, Pmem, PmemFrames, Submitted};
    use pageless_pfn::Pfn;

    use super::super::pins::MemmapCounters;
    use crate::job::{IniFile, Job, Plan, PlanOptions};

    fn plan(text: &str) -> Plan {
        let ini = IniFile::parse("j.fio", text, |_| None).expect("parses");
        let job = Job::from_ini(&ini).expect("understood");
        job.plan(&PlanOptions::default()).expect("fits")
    }

    /// How often each frame is pinned, and how many pins there were.
    #[derive(Debug, Default)]
    struct VecPins {
        pinned: Mutex<BTreeMap<u64, u32>>,
        /// Once so many frames are pinned there is no room.
        room: Option<usize>,
        pins: AtomicU64,
        /// How often there was no room.
        refused: AtomicU64,
        /// Set once there was no room: what Ctrl-C does.
        stop: AtomicBool,
        stops_when_full: bool,
    }

    impl VecPins {
        fn is_pinned(&self, frame: u64) -> bool {
            self.pinned.lock().expect("whole").contains_key(&frame)
        }
    }

    impl DescriptorPins for VecPins {
        type Held = Vec<u64>;
        type Context = ();
        const PINS: bool = true;

        fn enter(&self) {}

        fn pin(&self, (): &(), frames: PfnRange, held: &mut Vec<u64>) -> Result<(), PinError> {
            assert!(
                held.is_empty(),
                "a slot is used again before it was unpinned"
            );
            let mut pinned = self.pinned.lock().expect("whole");
            if self.room.is_some_and(|room| pinned.len() >= room) {
                self.refused.fetch_add(1, Ordering::Relaxed);
                self.stop.fetch_or(self.stops_when_full, Ordering::Relaxed);
                return Err(PinError::Full("no room".to_owned()));
            }
            for pfn in frames.iter() {
                *pinned.entry(pfn.get()).or_default() += 1;
                held.push(pfn.get());
                self.pins.fetch_add(1, Ordering::Relaxed);
            }
            Ok(())
        }

        fn unpin(&self, held: &mut Vec<u64>) {
            let mut pinned = self.pinned.lock().expect("whole");
            for frame in held.drain(..) {
                let count = pinned.get_mut(&frame).expect("unpinned twice");
                *count -= 1;
                if *count == 0 {
                    pinned.remove(&frame);
                }
            }
        }

        fn counters(&self) -> MemmapCounters {
            MemmapCounters::default()
        }

        fn begin_section(&self) {}
    }

    type Disk = Pmem<Arc<RamFrames>>;

    /// Keeps requests until it is asked, and then answers with the newest first.
    struct LastInFirstOut<'a> {
        disk: &'a Disk,
        pins: &'a VecPins,
        held: RefCell<Vec<BlockRequest>>,
        deepest: core::cell::Cell<usize>,
        fails_at: Option<u64>,
    }

    impl LastInFirstOut<'_> {
        fn assert_pinned(&self, request: &BlockRequest) {
            let first = request.position().get() >> PAGE_SHIFT;
            let last = (request.position().get() + request.len().get() - 1) >> PAGE_SHIFT;
            for frame in first..=last {
                let pfn = self.disk.range().start().get() + frame;
                assert!(
                    self.pins.is_pinned(pfn),
                    "frame {frame} of {request:?} is not pinned"
                );
            }
        }
    }

    impl BlockDevice for LastInFirstOut<'_> {
        fn limits(&self) -> Limits {
            self.disk.limits()
        }

        fn submit(&self, request: BlockRequest) -> Submitted {
            let mut held = self.held.borrow_mut();
            held.push(request);
            self.deepest.set(self.deepest.get().max(held.len()));
            Submitted::Kept
        }

        fn poll(&self, _queue: QueueId, done: &mut dyn FnMut(Done)) {
            let Some(request) = self.held.borrow_mut().pop() else {
                return;
            };
            if request.op() != Op::Flush {
                self.assert_pinned(&request);
                if self.fails_at == Some(request.position().get()) {
                    return done(request.complete(Err(BlkError::Medium.into())));
                }
            }
            match self.disk.submit(request) {
                Submitted::Done(answer) => done(answer),
                other => panic!("pmem answers at once: {other:?}"),
            }
        }
    }

    fn run_on(text: &str, pins: &VecPins, fails_at: Option<u64>) -> (Outcome, usize) {
        run_among(1, text, pins, fails_at)
    }

    /// As one of so many threads, the others of which never end.
    fn run_among(
        threads: usize,
        text: &str,
        pins: &VecPins,
        fails_at: Option<u64>,
    ) -> (Outcome, usize) {
        let plan = plan(text);
        let thread = plan.threads_of(0).next().expect("one thread").clone();
        let section = &plan.sections()[0];
        let stride = u64::from(section.longest_request()).next_multiple_of(4096);
        let frames = FrameCount::new((stride >> PAGE_SHIFT) * u64::from(section.iodepth));
        let ram = RamFrames::new(Pfn::try_new(0x100).expect("small"), frames).expect("room");
        let ram = Arc::new(ram);
        let size = ByteLen::new(plan.device_size().get());
        let base = Pfn::try_new(1 << 30).expect("small");
        let frames = PmemFrames::memfd(base, size).expect("room");
        let disk = Pmem::new(Arc::new(frames), Arc::clone(&ram));
        let device = LastInFirstOut {
            disk: &disk,
            pins,
            held: RefCell::default(),
            deepest: core::cell::Cell::default(),
            fails_at,
        };
        let task = Task {
            way: Way::Lazy,
            section,
            plan: &thread,
            area: &plan.areas()[0],
            device: &device,
            device_frames: disk.range(),
            ram: &ram,
            buffers: 0,
            pins,
            starvation: &Starvation::new(threads),
            stop: &pins.stop,
            live: &Live::default(),
            trace: None,
            generator: plan.generator(&thread).expect("small"),
        };
        let outcome = run(task, || {});
        assert!(
            pins.pinned.lock().expect("whole").is_empty(),
            "pins are left"
        );
        (outcome, device.deepest.get())
    }

    const JOB: &str = "[a]\nrw=randwrite\nbsrange=512-16k\nsize=1m\niodepth=8\nverify=crc32c\n";

    #[test]
    fn frames_are_pinned_from_submission_to_completion_whatever_the_order() {
        let pins = VecPins::default();
        let (outcome, deepest) = run_on(JOB, &pins, None);
        assert_eq!(deepest, 8, "the queue was not kept full");
        assert!(outcome.failures.is_empty(), "{:?}", outcome.failures);
        assert_eq!(outcome.directions[Direction::Write].bytes, 1 << 20);
        assert_eq!(outcome.directions[Direction::Read].bytes, 1 << 20);
        // Every frame once for writing and once for reading back, partial ones more often.
        assert!(pins.pins.load(Ordering::Relaxed) >= 2 * 256);
        assert!(outcome.pinned_peak >= 8);
    }

    #[test]
    fn a_full_memmap_is_waited_for_by_reaping() {
        let pins = VecPins {
            room: Some(3),
            ..VecPins::default()
        };
        let (outcome, deepest) = run_on(JOB, &pins, None);
        assert!(outcome.failures.is_empty(), "{:?}", outcome.failures);
        assert!(deepest <= 3, "{deepest}");
        assert_eq!(outcome.directions[Direction::Read].bytes, 1 << 20);
    }

    #[test]
    fn a_request_that_can_never_be_pinned_fails_at_once_and_names_the_budget() {
        let pins = VecPins {
            room: Some(0),
            ..VecPins::default()
        };
        let (outcome, _) = run_on(JOB, &pins, None);
        let failure = outcome.failures.first().expect("one failed").to_string();
        assert!(failure.contains("no room; a larger --budget"), "{failure}");
        assert_eq!(pins.refused.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn a_thread_that_waits_for_pins_of_others_can_be_stopped() {
        let pins = VecPins {
            room: Some(0),
            stops_when_full: true,
            ..VecPins::default()
        };
        let (outcome, _) = run_among(2, JOB, &pins, None);
        assert!(outcome.failures.is_empty(), "{:?}", outcome.failures);
        assert_eq!(pins.refused.load(Ordering::Relaxed), 1);
        assert_eq!(outcome.directions[Direction::Write].ios, 0);
    }

    #[test]
    fn a_failed_request_is_named_and_its_neighbours_still_come_back() {
        let job = "[a]\nrw=write\nbs=4k\nsize=1m\niodepth=8\n";
        let (outcome, _) = run_on(job, &VecPins::default(), Some(40 * 4096));
        let failure = outcome.failures.first().expect("one failed").to_string();
        assert_eq!(
            failure,
            "section [a], lazy way: write of 4096 bytes at offset 163840 of `a.0.0`: medium error"
        );
        assert_eq!(outcome.failures.len(), 1);
        let written = outcome.directions[Direction::Write].ios;
        assert!((40..=48).contains(&written), "{written}");
    }

    #[test]
    fn of_overlapping_writes_only_the_last_whole_one_is_read_back() {
        let text = "[a]\nrw=randwrite\nbsrange=512-4k\nnorandommap\nsize=32k\nio_size=256k\n";
        let plan = plan(text);
        let thread = plan.threads_of(0).next().expect("one").clone();
        let generator = plan.generator(&thread).expect("small");
        let mut owner = vec![u64::MAX; 32 * 1024];
        let mut requests = Vec::new();
        let mut replay = generator.clone();
        while let Next::Request(r) = replay.next_request() {
            let from = usize::try_from(r.offset).expect("small");
            owner[from..from + r.len as usize].fill(requests.len() as u64);
            requests.push(r);
        }
        let last = last_writes(&mut generator.clone(), 0, requests.len() as u64);
        let whole = |n: usize| {
            let from = usize::try_from(requests[n].offset).expect("small");
            owner[from..from + requests[n].len as usize]
                .iter()
                .all(|o| *o == n as u64)
        };
        let expected: Vec<u64> = (0..requests.len())
            .filter(|n| whole(*n))
            .map(|n| n as u64)
            .collect();
        let mut found: Vec<u64> = last.values().map(|(_, n)| *n).collect();
        found.sort_unstable();
        assert_eq!(found, expected);
        assert!(found.len() > 4);
    }
}
