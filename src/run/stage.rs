//! Device and buffers of a job, and running it on them.

use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;
use std::path::PathBuf;
use std::sync::mpsc;
use std::time::Instant;

use alloc::sync::Arc;

use pageless_block::{
    BlkTraceCreateError, BlkTraceWriteError, BlockDevice, BytePos, FrameAccess, LayoutError,
    NullDevice, Pmem, PmemFrames, PmemOpenError, RamError, RamFrames,
};
use pageless_pfn::{
    ByteLen, FrameCount, PAGE_SHIFT, PAGE_SIZE, Pfn, PfnFlags, PfnOutOfRange, PfnRange,
};
use thiserror::Error;

use super::attach::available_memory;
use super::gate::{Arrival, Gate};
use super::pins::DescriptorPins;
use super::progress::{Observe, Tick};
use super::report::{MemmapReport, SectionReport, WayReport};
use super::starvation::Starvation;
use super::stats::Latencies;
use super::thread::{Live, Outcome, Task, run};
use super::trace::WayTrace;
use super::way::Way;
use crate::job::workload::{Next, TooManyBlocks};
use crate::job::{Bytes, Direction, PerDirection, Plan, ThreadPlan};

/// How a device is made.
#[derive(Debug, Clone, Default)]
pub struct StageOptions {
    /// An image file; none is a sparse memfd.
    pub image: Option<PathBuf>,
    /// Leaves the frames that the job touches to be allocated while it runs.
    pub cold: bool,
    /// A directory for a block trace of each way.
    pub blktrace: Option<PathBuf>,
}

/// Lets others end a run early.
#[derive(Debug, Default)]
pub struct Control {
    stop: AtomicBool,
}

impl Control {
    /// Asks every thread to finish what is in flight and to end.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Whether that has been asked for.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

/// Why device or buffers could not be made.
#[derive(Debug, Error)]
pub enum StageError {
    /// The device.
    #[error(transparent)]
    Device(#[from] PmemOpenError),
    /// The image's blocks.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// The buffers.
    #[error("the jobs' I/O buffers, {} in all: {source}", Bytes::new(*.bytes))]
    Buffers {
        /// How large they are together.
        bytes: u64,
        /// What the system says.
        source: RamError,
    },
    /// The buffers would take more memory than there is.
    #[error("the jobs' I/O buffers (iodepth x bs x numjobs) take {}, and {} of memory are available", Bytes::new(*.needed), Bytes::new(*.available))]
    BuffersTooLarge {
        /// How large they are together.
        needed: u64,
        /// How much there is.
        available: u64,
    },
    /// A frame number does not exist.
    #[error(transparent)]
    Pfn(#[from] PfnOutOfRange),
}

/// Why a run did not come to its end.
#[derive(Debug, Error)]
pub enum RunError {
    /// A generator could not be made.
    #[error(transparent)]
    Generator(#[from] TooManyBlocks),
    /// The system has no thread to give.
    #[error("cannot start a thread: {0}")]
    Thread(#[source] std::io::Error),
    /// The trace cannot be begun.
    #[error(transparent)]
    TraceCreate(#[from] BlkTraceCreateError),
    /// The trace was not written as a whole.
    #[error(transparent)]
    TraceWrite(#[from] BlkTraceWriteError),
}

/// The first frame of the buffers.
const RAM_BASE: u64 = 0x100;
/// The first frame of the device: 4 TiB into the physical address space, far behind any buffer.
const DEVICE_BASE: u64 = 1 << 30;
/// How often a run is looked at.
const TICK: Duration = Duration::from_millis(100);
/// After how many ticks fio takes a sample: 500 ms.
const TICKS_IN_SAMPLE: u32 = 5;

/// A device and the buffers of all jobs, made once and used by every way.
#[derive(Debug)]
pub struct Stage<'p> {
    plan: &'p Plan,
    device: Pmem<Arc<RamFrames>>,
    /// As large as the device, for sections that ask for it.
    null: NullDevice,
    ram: Arc<RamFrames>,
    trace_directory: Option<PathBuf>,
    notes: Vec<String>,
}

impl<'p> Stage<'p> {
    /// Makes the device and the buffers, and lays out the frames that the job will touch, so that
    /// no way meets a colder device than another.
    ///
    /// # Errors
    /// [`StageError`].
    pub fn prepare(plan: &'p Plan, options: &StageOptions) -> Result<Self, StageError> {
        let needed = largest_group(plan, buffer_bytes).max(PAGE_SIZE);
        if let Some(available) = available_memory()
            && needed > available / 2
        {
            return Err(StageError::BuffersTooLarge { needed, available });
        }
        let frames = FrameCount::new(needed >> PAGE_SHIFT);
        let ram = RamFrames::new(Pfn::try_new(RAM_BASE)?, frames).map_err(|source| {
            StageError::Buffers {
                bytes: needed,
                source,
            }
        })?;
        let ram = Arc::new(ram);
        let base = Pfn::try_new(DEVICE_BASE)?;
        let size = plan.device_size().get();
        let frames = match &options.image {
            Some(path) => PmemFrames::open_sized(base, path, ByteLen::new(size))?,
            None => PmemFrames::memfd(base, ByteLen::new(size.next_multiple_of(PAGE_SIZE)))?,
        };
        let mut device = Pmem::new(Arc::new(frames), Arc::clone(&ram));
        let touched = plan.touched().iter().map(|(_, len)| len.get()).sum::<u64>();
        // Measured to be where writes past the caches begin to pay.
        if touched > last_level_cache() / 2 {
            device = device.with_streamed_writes();
        }
        let mut stage = Self {
            plan,
            null: NullDevice::new(device.limits()),
            device,
            ram,
            notes: Vec::new(),
            trace_directory: options.blktrace.clone(),
        };
        if !options.cold {
            match &options.image {
                Some(_) => stage.lay_out_image()?,
                None => stage.lay_out(),
            }
        }
        Ok(stage)
    }

    /// The touched pieces in whole frames.
    fn touched_frames(&self) -> Vec<(BytePos, ByteLen)> {
        let whole = self.device.frames().len().get();
        let pieces = self.plan.touched().into_iter().map(|(start, len)| {
            let first = start.get() - start.get() % PAGE_SIZE;
            let end = (start.get() + len.get()).next_multiple_of(PAGE_SIZE);
            (
                BytePos::new(first),
                ByteLen::new(end.min(whole).saturating_sub(first)),
            )
        });
        pieces.collect()
    }

    /// Gives an image its blocks: a hole that the file system has no room for would end the
    /// process with a signal when it is first touched. Pages are made present as memory allows.
    fn lay_out_image(&mut self) -> Result<(), LayoutError> {
        let touched = self.touched_frames();
        for (at, len) in &touched {
            match self.device.layout(*at, *len) {
                Err(LayoutError::NoSpace {
                    available: Some(available),
                    ..
                }) if self
                    .first_pass_bytes()
                    .is_some_and(|bytes| bytes <= available.get()) =>
                {
                    return self.each_visit(|device, at, len| device.layout(at, len));
                }
                done => done?,
            }
        }
        let total: u64 = touched.iter().map(|(_, len)| len.get()).sum();
        let available = available_memory().unwrap_or(u64::MAX);
        if total > available / 2 {
            self.notes.push(format!(
                "the jobs range over {} of the image, more than half of the {} of memory \
                 available: its blocks are allocated, but its pages are not read beforehand, so \
                 the first visit of each includes that",
                Bytes::new(total),
                Bytes::new(available)
            ));
            return Ok(());
        }
        for (at, len) in touched {
            self.device.frames().populate(at, len)?;
        }
        Ok(())
    }

    fn lay_out(&mut self) {
        let touched = self.plan.touched();
        let total: u64 = touched.iter().map(|(_, len)| len.get()).sum();
        let available = available_memory().unwrap_or(u64::MAX);
        if total > available / 2 {
            if self
                .first_pass_bytes()
                .is_some_and(|bytes| bytes <= available / 2)
            {
                self.lay_out_visits();
                return;
            }
            self.notes.push(format!(
                "the jobs range over {}, more than half of the {} of memory available: frames \
                 are not laid out beforehand, so the first visit of each includes its allocation",
                Bytes::new(total),
                Bytes::new(available)
            ));
            return;
        }
        for (at, len) in self.touched_frames() {
            if let Err(error) = self.device.layout(at, len) {
                self.notes
                    .push(format!("the device is not laid out beforehand: {error}"));
                return;
            }
        }
    }

    /// The most that one pass of every thread visits; `None` if the clock alone limits it.
    fn first_pass_bytes(&self) -> Option<u64> {
        let sections = self.plan.sections();
        let touching = (0..sections.len()).filter(|s| !sections[*s].null_device);
        let threads = touching.flat_map(|s| self.plan.threads_of(s));
        threads
            .map(|thread| {
                let section = &self.plan.sections()[thread.section];
                let longest = u64::from(section.longest_request());
                let by_ios = section.number_ios.map(|n| n.saturating_mul(longest));
                let once = section.loops == 1 && !section.time_based;
                once.then(|| thread.pass.get().min(by_ios.unwrap_or(u64::MAX)))
            })
            .try_fold(0u64, |sum, bytes| Some(sum.saturating_add(bytes?)))
    }

    /// Makes present what the jobs will visit, request by request. The device is fresh, so writing
    /// zeroes changes nothing.
    fn lay_out_visits(&mut self) {
        let done = self.each_visit(|device, at, len| {
            let frames = device.frames();
            frames
                .segment(at, len, PfnFlags::empty())
                .map_or(Ok(()), |segment| frames.zero_bytes(segment))
        });
        if let Err(error) = done {
            self.notes
                .push(format!("the device is not laid out beforehand: {error}"));
        }
    }

    /// Does something with each request's place on the device, for one pass of every thread.
    fn each_visit<E>(
        &self,
        mut visit: impl FnMut(&Pmem<Arc<RamFrames>>, BytePos, ByteLen) -> Result<(), E>,
    ) -> Result<(), E> {
        let sections = self.plan.sections();
        let touching = (0..sections.len()).filter(|s| !sections[*s].null_device);
        for thread in touching.flat_map(|s| self.plan.threads_of(s)) {
            let Ok(mut generator) = self.plan.generator(thread) else {
                continue;
            };
            let start = self.plan.areas()[thread.area].start.get() + thread.offset.get();
            while let Next::Request(request) = generator.next_request() {
                let at = BytePos::new(start + request.offset);
                visit(&self.device, at, ByteLen::new(u64::from(request.len)))?;
            }
        }
        Ok(())
    }

    /// The plan it was made for.
    #[must_use]
    pub const fn plan(&self) -> &'p Plan {
        self.plan
    }

    /// The device.
    #[must_use]
    pub const fn device(&self) -> &Pmem<Arc<RamFrames>> {
        &self.device
    }

    /// The device's frames: what a memmap of it covers.
    #[must_use]
    pub fn device_frames(&self) -> PfnRange {
        self.device.range()
    }

    /// What the user should know about device and buffers.
    #[must_use]
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Runs all groups, one after the other, with descriptors pinned through `pins`.
    ///
    /// What failed is in the report; the run goes on with the next group.
    ///
    /// # Errors
    /// [`RunError`] if there is no thread to be had.
    pub fn run<P: DescriptorPins>(
        &self,
        way: Way,
        pins: &P,
        control: &Control,
        observer: &mut impl Observe,
    ) -> Result<WayReport, RunError> {
        let mut sections = Vec::new();
        let mut group_number = 0;
        let trace = match &self.trace_directory {
            Some(directory) => Some(WayTrace::create(directory, way, self.most_threads())?),
            None => None,
        };
        for group in self.plan.groups() {
            if control.is_stopped() {
                break;
            }
            let names: Vec<&str> = group
                .sections
                .iter()
                .map(|s| self.plan.sections()[*s].name.as_str())
                .collect();
            observer.begin(way, &names);
            let reports = self.run_group(
                way,
                pins,
                control,
                observer,
                &group.sections,
                &mut group_number,
                trace.as_ref(),
            )?;
            observer.end();
            sections.extend(reports);
            group_number += 1;
        }
        if let Some(trace) = trace {
            trace.finish()?;
        }
        Ok(WayReport {
            way,
            attach: Duration::ZERO,
            detach: Duration::ZERO,
            sections,
        })
    }

    /// As many threads as ever run at a time.
    fn most_threads(&self) -> usize {
        let of_group = |sections: &[usize]| -> usize {
            let threads = sections.iter().map(|s| self.plan.threads_of(*s).count());
            threads.sum()
        };
        let groups = self.plan.groups().iter();
        groups
            .map(|group| of_group(&group.sections))
            .max()
            .unwrap_or(1)
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "what a group runs with, in one place"
    )]
    fn run_group<P: DescriptorPins>(
        &self,
        way: Way,
        pins: &P,
        control: &Control,
        observer: &mut impl Observe,
        members: &[usize],
        group_number: &mut usize,
        trace: Option<&WayTrace>,
    ) -> Result<Vec<SectionReport>, RunError> {
        let threads: Vec<&ThreadPlan> = members
            .iter()
            .flat_map(|s| self.plan.threads_of(*s))
            .collect();
        let lives: Vec<Live> = threads.iter().map(|_| Live::default()).collect();
        let starvation = Starvation::new(threads.len());
        let mut tasks = Vec::with_capacity(threads.len());
        let mut buffers = 0;
        for (number, (thread, live)) in threads.iter().zip(&lives).enumerate() {
            tasks.push(Task {
                way,
                section: &self.plan.sections()[thread.section],
                plan: thread,
                area: &self.plan.areas()[thread.area],
                device: &self.device,
                device_frames: self.device.range(),
                ram: &self.ram,
                buffers,
                pins,
                starvation: &starvation,
                stop: &control.stop,
                live,
                trace: trace.map(|trace| trace.of_thread(number)),
                generator: self.plan.generator(thread)?,
            });
            buffers += buffer_bytes(self.plan, thread);
        }
        pins.begin_section();
        let before = pins.counters();
        let outcomes = self.join(tasks, &lives, &threads, observer)?;
        let after = pins.counters();
        let memmap = MemmapReport {
            faults: after.faults - before.faults,
            descriptor_bytes_peak: after.descriptor_bytes_peak,
            page_table_bytes_peak: after.page_table_bytes_peak,
            page_table_bytes_end: after.page_table_bytes,
            budget_bytes: after.budget_bytes,
            populated: after.populated - before.populated,
            reclaimed: after.reclaimed - before.reclaimed,
            shootdowns: after.shootdowns - before.shootdowns,
            pinned_peak: outcomes.iter().map(|o| o.pinned_peak).sum(),
        };
        let mut reports: Vec<SectionReport> = Vec::new();
        for (thread, outcome) in threads.iter().zip(outcomes) {
            let section = &self.plan.sections()[thread.section];
            if section.new_group && thread.clone == 0 && !reports.is_empty() {
                *group_number += 1;
            }
            let clone = (!section.group_reporting && section.numjobs > 1).then_some(thread.clone);
            let report = report(thread.section, clone, *group_number, outcome, memmap);
            match reports.last_mut() {
                Some(last) if last.section == thread.section && clone.is_none() => {
                    merge(last, &report);
                }
                _ => reports.push(report),
            }
        }
        Ok(reports)
    }

    fn join<P: DescriptorPins>(
        &self,
        tasks: Vec<Task<'_, Pmem<Arc<RamFrames>>, P>>,
        lives: &[Live],
        threads: &[&ThreadPlan],
        observer: &mut impl Observe,
    ) -> Result<Vec<Outcome>, RunError> {
        let gate = Gate::default();
        let (done, watch) = mpsc::channel::<()>();
        std::thread::scope(|scope| {
            let mut handles = Vec::with_capacity(tasks.len());
            let mut refused = None;
            for task in tasks {
                let (arrival, done) = (Arrival::new(&gate), done.clone());
                let stop = task.stop;
                let spawned = std::thread::Builder::new().spawn_scoped(scope, move || {
                    let outcome = if task.section.null_device {
                        run(task.on(&self.null), || arrival.wait())
                    } else {
                        run(task, || arrival.wait())
                    };
                    drop(done);
                    outcome
                });
                match spawned {
                    Ok(handle) => handles.push(handle),
                    Err(error) => {
                        // Those that stand already find nothing to do.
                        stop.store(true, Ordering::Relaxed);
                        refused = Some(error);
                        break;
                    }
                }
            }
            drop(done);
            gate.open_after(handles.len());
            if let Some(error) = refused {
                return Err(RunError::Thread(error));
            }
            let mut watcher = Watcher::new(self.plan, lives, threads);
            // Nobody sends: the channel closes when the last thread has dropped its end.
            while watch.recv_timeout(TICK) == Err(mpsc::RecvTimeoutError::Timeout) {
                observer.tick(&watcher.look());
            }
            let mut outcomes = Vec::with_capacity(handles.len());
            for (handle, samples) in handles.into_iter().zip(watcher.samples) {
                match handle.join() {
                    Ok(mut outcome) => {
                        for (direction, sample) in Direction::ALL.into_iter().zip(&samples) {
                            if sample.0.count() > 0 {
                                outcome.directions[direction].bandwidth = sample.0;
                                outcome.directions[direction].iops = sample.1;
                            }
                        }
                        outcomes.push(outcome);
                    }
                    Err(panic) => std::panic::resume_unwind(panic),
                }
            }
            Ok(outcomes)
        })
    }
}

/// Bandwidth and requests each second.
type Sample = (super::stats::Samples, super::stats::Samples);

struct Watcher<'a> {
    lives: &'a [Live],
    began: Instant,
    work: Work,
    last: (Instant, u64, u64),
    ticks: u32,
    sampled: Vec<PerDirection<(u64, u64)>>,
    sampled_at: Instant,
    samples: Vec<[Sample; 3]>,
}

/// What is known beforehand about how long a group takes.
enum Work {
    Bytes(u64),
    Time(Duration),
    Requests(u64),
}

impl<'a> Watcher<'a> {
    fn new(plan: &Plan, lives: &'a [Live], threads: &[&ThreadPlan]) -> Self {
        let now = Instant::now();
        let sections = || threads.iter().map(|t| &plan.sections()[t.section]);
        let timed = sections()
            .filter(|s| s.time_based)
            .filter_map(|s| s.runtime)
            .max();
        let counted = sections().all(|s| s.number_ios.is_some());
        let requests: u64 = sections()
            .map(|s| s.number_ios.unwrap_or(0).saturating_mul(u64::from(s.loops)))
            .sum();
        let bytes: u64 = threads
            .iter()
            .map(|t| {
                let section = &plan.sections()[t.section];
                let again = match &section.verify {
                    Some(v) if v.read_back && section.access.has(Direction::Write) => 2,
                    _ => 1,
                };
                t.pass
                    .get()
                    .saturating_mul(u64::from(section.loops) * again)
            })
            .sum();
        let work = match timed {
            Some(time) => Work::Time(time),
            None if counted => Work::Requests(requests),
            None => Work::Bytes(bytes),
        };
        Self {
            lives,
            began: now,
            work,
            last: (now, 0, 0),
            ticks: 0,
            sampled: lives.iter().map(|_| PerDirection::default()).collect(),
            sampled_at: now,
            samples: lives.iter().map(|_| Default::default()).collect(),
        }
    }

    fn look(&mut self) -> Tick {
        let now = Instant::now();
        let sum = |of: fn(&Live) -> &PerDirection<core::sync::atomic::AtomicU64>| -> u64 {
            let all = self.lives.iter().flat_map(|l| of(l).iter());
            all.map(|n| n.load(Ordering::Relaxed)).sum()
        };
        let (ios, bytes) = (sum(|l| &l.ios), sum(|l| &l.bytes));
        self.ticks += 1;
        if self.ticks.is_multiple_of(TICKS_IN_SAMPLE) {
            self.sample(now);
        }
        let passed = now.duration_since(self.last.0).as_secs_f64().max(1e-9);
        let elapsed = now.duration_since(self.began);
        let share = |done: f64, all: f64| if all > 0.0 { done / all } else { 0.0 };
        let tick = Tick {
            done: match self.work {
                Work::Time(time) => share(elapsed.as_secs_f64(), time.as_secs_f64()),
                Work::Requests(all) => share(ios as f64, all as f64),
                Work::Bytes(all) => share(bytes as f64, all as f64),
            },
            iops: ios.saturating_sub(self.last.1) as f64 / passed,
            bytes_per_second: bytes.saturating_sub(self.last.2) as f64 / passed,
            elapsed,
        };
        self.last = (now, ios, bytes);
        tick
    }

    fn sample(&mut self, now: Instant) {
        let passed = now.duration_since(self.sampled_at).as_secs_f64().max(1e-9);
        self.sampled_at = now;
        for ((live, last), samples) in self
            .lives
            .iter()
            .zip(&mut self.sampled)
            .zip(&mut self.samples)
        {
            let restarted = live.restarted.swap(false, Ordering::Relaxed);
            for (direction, sample) in Direction::ALL.into_iter().zip(samples) {
                let ios = live.ios[direction].load(Ordering::Relaxed);
                let bytes = live.bytes[direction].load(Ordering::Relaxed);
                let (ios_before, bytes_before) = last[direction];
                last[direction] = (ios, bytes);
                if restarted {
                    *sample = Default::default();
                } else if ios > ios_before {
                    sample
                        .0
                        .push(bytes.saturating_sub(bytes_before) as f64 / passed);
                    sample.1.push((ios - ios_before) as f64 / passed);
                }
            }
        }
    }
}

fn report(
    section: usize,
    clone: Option<u32>,
    group: usize,
    outcome: Outcome,
    memmap: MemmapReport,
) -> SectionReport {
    SectionReport {
        section,
        clone,
        group,
        directions: outcome.directions,
        sync: outcome.sync,
        elapsed: outcome.elapsed,
        cpu: outcome.cpu,
        depths: outcome.depths,
        memmap,
        failures: outcome.failures,
        mismatches: outcome.mismatches,
    }
}

fn merge(into: &mut SectionReport, other: &SectionReport) {
    for direction in Direction::ALL {
        into.directions[direction].merge(&other.directions[direction]);
    }
    let sync: &Latencies = &other.sync;
    into.sync.merge(sync);
    into.elapsed = into.elapsed.max(other.elapsed);
    into.cpu.merge(other.cpu);
    for (all, more) in into.depths.iter_mut().zip(other.depths) {
        *all += more;
    }
    into.failures.extend(other.failures.iter().cloned());
    into.mismatches += other.mismatches;
}

/// The size of the largest cache in bytes, as the kernel has it.
fn last_level_cache() -> u64 {
    const UNKNOWN: u64 = 32 << 20;
    let sizes = (0..8).filter_map(|level| {
        let path = format!("/sys/devices/system/cpu/cpu0/cache/index{level}/size");
        let text = std::fs::read_to_string(path).ok()?;
        let kib: u64 = text.trim().strip_suffix('K')?.parse().ok()?;
        kib.checked_mul(1024)
    });
    sizes.max().unwrap_or(UNKNOWN)
}

fn buffer_bytes(plan: &Plan, thread: &ThreadPlan) -> u64 {
    let section = &plan.sections()[thread.section];
    let one = u64::from(section.longest_request()).next_multiple_of(PAGE_SIZE);
    one * u64::from(section.iodepth)
}

fn largest_group(plan: &Plan, of: impl Fn(&Plan, &ThreadPlan) -> u64) -> u64 {
    let groups = plan.groups().iter().map(|group| {
        let threads = group.sections.iter().flat_map(|s| plan.threads_of(*s));
        threads.map(|t| of(plan, t)).sum::<u64>()
    });
    groups.max().unwrap_or(0)
}
