//! A device that fails as it is told to (dm-flakey).

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;

use pageless_pfn::{ByteLen, Pfn, PhysSegment};

use super::members::{nested_part, part_of};
use crate::access::{AccessError, FrameAccess};
use crate::clock::{Clock, Nanos};
use crate::copy::Span;
use crate::device::{Abort, BlockDevice, Submitted};
use crate::limits::{Features, Limits};
use crate::op::Op;
use crate::position::BytePos;
use crate::request::nested::carry_out;
use crate::request::{Done, QueueId, Request, Tag};
use crate::status::{BlkError, Failure};
use crate::sync::Lock;

/// What happens to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// It fails, and the device does not see it.
    Fail(BlkError),
    /// Its first bytes are carried out, as many whole logical blocks as this has, and then it
    /// fails. Of a shorter request all blocks but the last are.
    FailAfter {
        /// How many bytes.
        done: ByteLen,
        /// How it fails.
        error: BlkError,
    },
    /// Some of its blocks are carried out, from none to all but the last, and then it fails.
    FailSomewhere(BlkError),
    /// It is said to be done, and nothing was done.
    Drop,
    /// One byte of its data is changed on the way, and nothing said. Needs
    /// [memory](Flakey::with_memory); what carries no data passes.
    Corrupt,
}

/// What is to go wrong, and when. Each condition narrows it down.
///
/// ```
/// use pageless_block::{BlkError, BytePos, Effect, Fault, Op};
/// use pageless_pfn::ByteLen;
/// // The third and the fourth read of the first MiB.
/// let bad = Fault::new(Effect::Fail(BlkError::Medium))
///     .on(Op::Read)
///     .within(BytePos::new(0), ByteLen::new(1 << 20))
///     .after(2)
///     .times(2);
/// # let _ = bad;
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "give it to a device"]
pub struct Fault {
    effect: Effect,
    /// By number of the operation; 0 for all.
    ops: u64,
    range: Option<(BytePos, ByteLen)>,
    one_in: u32,
    skip: u64,
    times: u64,
    intervals: Option<(Duration, Duration)>,
}

impl Fault {
    /// Every request, always.
    pub const fn new(effect: Effect) -> Self {
        Self {
            effect,
            ops: 0,
            range: None,
            one_in: 1,
            skip: 0,
            times: u64::MAX,
            intervals: None,
        }
    }

    /// Only this operation; said again, that one as well.
    pub const fn on(mut self, op: Op) -> Self {
        self.ops |= 1 << op.code();
        self
    }

    /// Only requests about some of these bytes.
    pub const fn within(mut self, start: BytePos, len: ByteLen) -> Self {
        self.range = Some((start, len));
        self
    }

    /// Not the first `skip` of them.
    pub const fn after(mut self, skip: u64) -> Self {
        self.skip = skip;
        self
    }

    /// Then so many of them, and no more.
    pub const fn times(mut self, times: u64) -> Self {
        self.times = times;
        self
    }

    /// Of those, one in so many by chance; 0 is as 1.
    pub const fn one_in(mut self, requests: u32) -> Self {
        self.one_in = requests;
        self
    }

    /// Only while the device is down: it is up for a time, then down for a time, and so on, from
    /// the start of its [clock](Flakey::with_clock) on. Without a clock it is up.
    pub const fn while_down(mut self, up: Duration, down: Duration) -> Self {
        self.intervals = Some((up, down));
        self
    }

    fn is_about(&self, request: &Request, now: Nanos) -> bool {
        let op = self.ops == 0 || self.ops & 1 << request.op().code() != 0;
        let place = self.range.is_none_or(|(start, len)| {
            let (from, to) = (request.position().get(), request.end().get());
            from < start.get().saturating_add(len.get()) && start.get() < to
        });
        let down = self.intervals.is_none_or(|(up, down)| {
            let whole = up.as_nanos() + down.as_nanos();
            whole != 0 && u128::from(now.get()) % whole >= up.as_nanos()
        });
        op && place && down
    }
}

/// What a [`Flakey`] has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlakeyCounters {
    /// Requests that were passed on.
    pub passed: u64,
    /// Requests that failed, as a whole or after some bytes.
    pub failed: u64,
    /// Requests that were said to be done and were not.
    pub dropped: u64,
    /// Requests with a byte changed.
    pub corrupted: u64,
}

/// Frames of nobody: what a [`Flakey`] that changes no bytes has for memory.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoFrames;

impl FrameAccess for NoFrames {
    fn covers(&self, _pfn: Pfn) -> bool {
        false
    }

    fn with<R>(
        &self,
        segment: PhysSegment,
        _f: impl FnOnce(Span<'_>) -> R,
    ) -> Result<R, AccessError> {
        let pfn = segment.frame().pfn();
        Err(AccessError::NotBacked { pfn })
    }
}

/// A device with faults, the same ones in every run with the same seed and the same requests.
///
/// The first [`Fault`] that is about a request happens to it. Where a part of a request goes
/// through, the call waits for the device behind.
///
/// ```
/// use pageless_block::{Bio, BlkError, Effect, Fault, Flakey, Limits, NullDevice, Sector};
/// use pageless_block::submit_sync;
/// use pageless_pfn::{ByteLen, FrameOffset, Pfn, PhysSegment};
/// let disk = NullDevice::new(Limits::new(ByteLen::new(1 << 30)));
/// let flakey = Flakey::new(disk, 7);
/// let done = ByteLen::new(1024);
/// flakey.inject(Fault::new(Effect::FailAfter { done, error: BlkError::Medium }).times(1));
/// let frame = Pfn::try_new(1)?.into();
/// let segment = PhysSegment::try_new(frame, FrameOffset::ZERO, ByteLen::new(4096))?;
/// let read = submit_sync(&flakey, Bio::read(Sector::new(0), segment))?;
/// assert_eq!(read.done(), done);
/// assert!(submit_sync(&flakey, Bio::read(Sector::new(0), segment))?.result().is_ok());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Flakey<D, M = NoFrames> {
    device: D,
    memory: M,
    staging: Option<PhysSegment>,
    clock: Option<Arc<dyn Clock>>,
    limits: Limits,
    state: Lock<State>,
}

struct State {
    faults: Vec<Planned>,
    rng: fastrand::Rng,
    counters: FlakeyCounters,
}

struct Planned {
    fault: Fault,
    /// Requests it was about.
    seen: u64,
    /// Requests it happened to.
    happened: u64,
}

/// What is to happen to a request, all chances taken.
#[derive(Clone, Copy)]
enum Fate {
    Pass,
    Fail { done: u64, error: BlkError },
    Drop,
    Corrupt { byte: u64, by: u8 },
}

impl<D: BlockDevice> Flakey<D> {
    /// `device`, without any faults yet.
    pub fn new(device: D, seed: u64) -> Self {
        let mut limits = device.limits();
        limits.features -= Features::DAX;
        Self {
            device,
            memory: NoFrames,
            staging: None,
            clock: None,
            limits,
            state: Lock::new(State {
                faults: Vec::new(),
                rng: fastrand::Rng::with_seed(seed),
                counters: FlakeyCounters::default(),
            }),
        }
    }

    /// The same, able to change bytes: `memory` reaches the frames of bios. `staging` are frames
    /// that nobody else uses, which `memory` and the device reach as well, at least a logical block
    /// of them: what is written is changed there, and never in the caller's own memory.
    pub fn with_memory<M: FrameAccess>(self, memory: M, staging: PhysSegment) -> Flakey<D, M> {
        Flakey {
            device: self.device,
            memory,
            staging: Some(staging),
            clock: self.clock,
            limits: self.limits,
            state: self.state,
        }
    }
}

impl<D: BlockDevice, M: FrameAccess> Flakey<D, M> {
    /// The same with a clock, for those faults that come and go with the time.
    #[must_use]
    pub fn with_clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = Some(clock);
        self
    }

    /// From now on this goes wrong too, after what was injected before.
    pub fn inject(&self, fault: Fault) {
        self.state.lock().faults.push(Planned {
            fault,
            seen: 0,
            happened: 0,
        });
    }

    /// From now on nothing goes wrong.
    pub fn mend(&self) {
        self.state.lock().faults.clear();
    }

    /// The device behind it.
    pub const fn device(&self) -> &D {
        &self.device
    }

    /// What it has done.
    pub fn counters(&self) -> FlakeyCounters {
        self.state.lock().counters
    }

    /// Decides what happens to a request.
    fn fate_of(&self, request: &Request) -> Fate {
        let now = self.clock.as_ref().map_or(Nanos::ZERO, |clock| clock.now());
        let state = &mut *self.state.lock();
        let effect = state.faults.iter_mut().find_map(|planned| {
            let fault = planned.fault;
            if !fault.is_about(request, now) {
                return None;
            }
            planned.seen += 1;
            let due = planned.seen > fault.skip && planned.happened < fault.times;
            if !due || state.rng.u32(..fault.one_in.max(1)) != 0 {
                return None;
            }
            planned.happened += 1;
            Some(fault.effect)
        });
        let fate = self.chances(effect, request, &mut state.rng);
        match fate {
            Fate::Pass => state.counters.passed += 1,
            Fate::Fail { .. } => state.counters.failed += 1,
            Fate::Drop => state.counters.dropped += 1,
            Fate::Corrupt { .. } => state.counters.corrupted += 1,
        }
        fate
    }

    fn chances(&self, effect: Option<Effect>, request: &Request, rng: &mut fastrand::Rng) -> Fate {
        let block = self.limits.logical_block.get();
        let blocks = request.len().get() / block;
        match effect {
            None => Fate::Pass,
            Some(Effect::Fail(error)) => Fate::Fail { done: 0, error },
            Some(Effect::FailAfter { done, error }) => {
                let done = (done.get() / block).min(blocks.saturating_sub(1)) * block;
                Fate::Fail { done, error }
            }
            Some(Effect::FailSomewhere(error)) => {
                let done = rng.u64(..blocks.max(1)) * block;
                Fate::Fail { done, error }
            }
            Some(Effect::Drop) => Fate::Drop,
            Some(Effect::Corrupt) if request.op().carries_data() && !request.is_empty() => {
                Fate::Corrupt {
                    byte: rng.u64(..request.len().get()),
                    by: rng.u8(1..),
                }
            }
            Some(Effect::Corrupt) => Fate::Pass,
        }
    }

    /// Lets the device carry out the bytes from `from` to `to`.
    fn some_of(&self, request: &Request, from: u64, to: u64) -> Result<(), Failure> {
        if from == to {
            return Ok(());
        }
        carry_out(&self.device, nested_part(request, from, to - from)).map_err(|failure| Failure {
            error: failure.error,
            done: ByteLen::new(from + failure.done.get()),
        })
    }

    fn corrupt(&self, request: &Request, byte: u64, by: u8) -> Result<(), Failure> {
        if request.op() == Op::Read {
            self.some_of(request, 0, request.len().get())?;
            for memory in part_of(request.segments(), byte, 1) {
                self.change(memory, by)?;
            }
            return Ok(());
        }
        let block = self.limits.logical_block.get();
        let from = byte - byte % block;
        let staged = self
            .staging
            .and_then(|staging| staging.slice(ByteLen::ZERO, ByteLen::new(block)))
            .ok_or(BlkError::Io)?;
        let mut skip = 0;
        for memory in part_of(request.segments(), from, block) {
            let to = staged.slice(ByteLen::new(skip), memory.len());
            let to = to.ok_or(BlkError::Io)?;
            crate::access::copy_frames(&self.memory, memory, &self.memory, to)?;
            skip += memory.len().get();
        }
        for memory in part_of(core::iter::once(staged), byte % block, 1) {
            self.change(memory, by)?;
        }
        self.some_of(request, 0, from)?;
        let changed = Request::nested(
            request.op(),
            request.flags(),
            BytePos::new(request.position().get() + from),
            ByteLen::new(block),
            Some(staged),
        );
        carry_out(&self.device, changed).map_err(|failure| Failure {
            error: failure.error,
            done: ByteLen::new(from),
        })?;
        self.some_of(request, from + block, request.len().get())
    }

    fn change(&self, memory: PhysSegment, by: u8) -> Result<(), AccessError> {
        let mut byte = [0];
        self.memory.read_bytes(memory, &mut byte)?;
        self.memory.write_bytes(memory, &[byte[0] ^ by])
    }
}

impl<D: BlockDevice, M: FrameAccess> BlockDevice for Flakey<D, M> {
    fn limits(&self) -> Limits {
        self.limits
    }

    fn submit(&self, request: Request) -> Submitted {
        match self.fate_of(&request) {
            Fate::Pass => self.device.submit(request),
            Fate::Fail { done, error } => request.run(|request| {
                self.some_of(request, 0, done)?;
                let done = ByteLen::new(done);
                Err(Failure { error, done })
            }),
            Fate::Drop => request.run(|_| Ok(())),
            Fate::Corrupt { byte, by } => request.run(|request| self.corrupt(request, byte, by)),
        }
    }

    fn poll(&self, queue: QueueId, done: &mut dyn FnMut(Done)) {
        self.device.poll(queue, done);
    }

    fn abort(&self, queue: QueueId, tag: Tag) -> Abort {
        self.device.abort(queue, tag)
    }

    fn expect(&self, op: Op, position: BytePos) {
        self.device.expect(op, position);
    }
}

impl<D: fmt::Debug, M> fmt::Debug for Flakey<D, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Flakey")
            .field("device", &self.device)
            .finish_non_exhaustive()
    }
}
