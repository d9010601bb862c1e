//! A thread's part: submits what the plan says, and holds what comes back against a plain vector.

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use core::ops::Range;
use std::sync::Mutex;

use pageless_block::{
    Bio, BioFlags, BlkError, Completion, Context, FrameAccess, Op, QueueId, RamFrames,
    RejectReason, RequestQueue, Sector, Ticket,
};
use pageless_pfn::{ByteLen, PhysSegment};

use crate::plan::{Io, Place, Shape, Step, Via};
use crate::strict::{SECTOR, Strict, sectors_of};

/// A bio that is on its way.
struct InFlight {
    /// As it was submitted.
    bio: Bio,
    range: Range<u64>,
    /// Where the device can take no more of it.
    impossible: Option<u64>,
    ticket: Option<Ticket>,
}

/// What has been seen, to be held against the counters.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    accepted: u64,
    rejected: u64,
    completed: u64,
    failed: u64,
    /// Accepted, and about some bytes.
    with_range: u64,
    /// Those of them that ended where a device could take no more.
    refused: u64,
    read: u64,
    written: u64,
    discarded: u64,
    zeroed: u64,
    flushes: u64,
}

pub(crate) struct Driver<'q> {
    queue: &'q RequestQueue<Strict>,
    contexts: Vec<Context<'q, Strict>>,
    ram: Arc<RamFrames>,
    /// Which part of the device, and of the memory, is this one's.
    place: Range<u64>,
    memory: Range<u64>,
    /// Where the next bio's memory begins.
    arena: u64,
    /// What the device must hold from `place.start` on; `None` where a write failed.
    bytes: Vec<Option<u8>>,
    /// The bio before.
    last: Range<u64>,
    in_flight: BTreeMap<u64, InFlight>,
    called_back: Arc<Mutex<Vec<Completion>>>,
    token: u64,
    tally: Tally,
    /// After how many rounds without a completion a bio is taken to be lost.
    patience: u64,
}

/// Whether it is worth while to try again.
fn assert_passing(reason: RejectReason) {
    let passing = matches!(
        reason,
        RejectReason::QueueFull { .. } | RejectReason::Frozen
    );
    assert!(passing, "{reason}");
}

impl<'q> Driver<'q> {
    /// With the `part`-th of `parts` parts of the device, and contexts on these hardware queues.
    pub(crate) fn new(
        queue: &'q RequestQueue<Strict>,
        shape: &Shape,
        contexts: Range<u16>,
        part: u64,
        parts: u64,
        patience: u64,
    ) -> Self {
        let ram = queue.device().ram();
        let of = |whole: u64| whole / parts * part..whole / parts * (part + 1);
        let place = of(queue.limits().capacity.get());
        let memory = of(ram.range().count().get() * 4096);
        let contexts = contexts
            .map(|n| {
                let id = QueueId::new(n % shape.hw_queues);
                match shape.contexts > shape.hw_queues {
                    true => queue.shared_context(id).unwrap(),
                    false => queue.context(id).unwrap(),
                }
            })
            .collect();
        Self {
            queue,
            contexts,
            ram,
            bytes: vec![Some(0); (place.end - place.start) as usize],
            last: place.start..place.start,
            arena: memory.start,
            place,
            memory,
            in_flight: BTreeMap::new(),
            called_back: Arc::default(),
            token: part << 32,
            tally: Tally::default(),
            patience,
        }
    }

    pub(crate) fn run(&mut self, steps: &[Step]) {
        for step in steps {
            match step {
                Step::Submit(io) => self.submit(io),
                Step::Plugged(ios) => self.submit_plugged(ios),
                Step::Quiesced(ios) => self.submit_quiesced(ios),
                Step::Reap(context) => {
                    let context = context % self.contexts.len();
                    self.reap(context);
                    self.collect();
                }
                Step::Drain => self.wait(|driver| driver.in_flight.is_empty()),
            }
        }
        self.wait(|driver| driver.in_flight.is_empty());
        self.read_all();
    }

    /// What the whole of the device's part holds.
    fn read_all(&mut self) {
        let unit = self.unit();
        let (mut at, per_bio) = (self.place.start, 32 * unit);
        while at < self.place.end {
            let len = per_bio.min(self.place.end - at);
            let io = Io {
                context: 0,
                op: Op::Read,
                place: Place::At(((at - self.place.start) / unit) as u16),
                units: (len / unit) as u16,
                flags: BioFlags::empty(),
                priority: pageless_block::Priority::NONE,
                memory: vec![((len / unit) as u16, 0)],
                via: Via::Reap,
            };
            self.submit(&io);
            at += len;
        }
        self.wait(|driver| driver.in_flight.is_empty());
    }

    /// What positions, lengths and pieces of memory are whole numbers of.
    fn unit(&self) -> u64 {
        let limits = self.queue.limits();
        limits.logical_block.max(limits.dma_alignment).get()
    }

    /// Gives up the CPU until something is so.
    fn wait(&mut self, is_so: impl Fn(&Self) -> bool) {
        let mut rounds = 0_u64;
        while !is_so(self) {
            let before = self.tally.completed;
            for context in 0..self.contexts.len() {
                self.reap(context);
            }
            self.collect();
            rounds = match self.tally.completed == before {
                true => rounds + 1,
                false => 0,
            };
            if rounds > self.patience {
                panic!("{}", self.queue.device().missing());
            }
            std::thread::yield_now();
        }
    }

    fn reap(&mut self, context: usize) {
        while let Some(completion) = self.contexts[context].reap() {
            self.completed(completion);
        }
    }

    /// Completions that go elsewhere.
    fn collect(&mut self) {
        let called: Vec<Completion> = self.called_back.lock().unwrap().drain(..).collect();
        let tickets = self.in_flight.values_mut();
        let taken: Vec<Completion> = tickets
            .filter_map(|one| one.ticket.as_mut()?.try_take())
            .collect();
        for completion in called.into_iter().chain(taken) {
            self.completed(completion);
        }
    }

    /// Where on the device, how long.
    fn range_of(&self, io: &Io) -> Range<u64> {
        let unit = self.unit();
        let len = u64::from(io.units) * unit;
        let start = match io.place {
            Place::After => self.last.end,
            Place::Before => self.last.start.saturating_sub(len).max(self.place.start),
            Place::At(n) => {
                let units = (self.place.end - self.place.start) / unit;
                self.place.start + u64::from(n) % units * unit
            }
        };
        match start + len <= self.place.end {
            true => start..start + len,
            false => self.place.start..self.place.start + len,
        }
    }

    /// Pieces of memory that no bio in flight has.
    fn memory_for(&mut self, io: &Io, len: u64) -> Vec<PhysSegment> {
        let grain = self.queue.limits().dma_alignment.get().max(SECTOR);
        let most = len + 5 * 8 * grain;
        let taken: Vec<u64> = self
            .in_flight
            .values()
            .flat_map(|one| sectors_of(one.bio.segments()))
            .collect();
        let base = self.ram.range().start().phys().get();
        loop {
            let mut at = self.arena.next_multiple_of(grain);
            if at + most > self.memory.end {
                at = self.memory.start;
            }
            self.arena = at;
            let (mut left, mut list) = (len, Vec::new());
            for &(units, gap) in io.memory.iter().cycle() {
                if left == 0 {
                    break;
                }
                // Gaps come first, and not without end.
                at += if list.len() < 5 {
                    u64::from(gap) * grain
                } else {
                    0
                };
                let here = (u64::from(units) * grain).min(left);
                list.push(self.ram.segment(at, ByteLen::new(here)).unwrap());
                at += here;
                left -= here;
            }
            self.arena = at;
            let free = |sector: &u64| !taken.contains(sector);
            if sectors_of(&list).iter().all(free) {
                debug_assert!(at <= self.memory.end && list[0].phys().get() >= base);
                return list;
            }
        }
    }

    fn pattern(token: u64, len: u64) -> Vec<u8> {
        let mut rng = fastrand::Rng::with_seed(token);
        (0..len).map(|_| rng.u8(..)).collect()
    }

    fn bio_for(&mut self, io: &Io, range: &Range<u64>) -> (Bio, Option<Ticket>) {
        let len = range.end - range.start;
        self.token += 1;
        let sector = Sector::new(range.start / SECTOR);
        let mut bio = if len == 0 {
            Bio::flush().erase()
        } else if io.op.carries_data() {
            let mut bio = Bio::new(io.op, sector);
            let segments = self.memory_for(io, len);
            let bytes = match io.op {
                Op::Write => Self::pattern(self.token, len),
                _ => vec![0xA5; len as usize],
            };
            let mut at = 0;
            for segment in &segments {
                let here = segment.len().get() as usize;
                self.ram
                    .write_bytes(*segment, &bytes[at..at + here])
                    .unwrap();
                at += here;
            }
            bio.extend(segments);
            bio
        } else {
            Bio::with_range(io.op, sector, ByteLen::new(len))
        };
        // Flushes are for writes.
        let flags = match io.op {
            Op::Write if len != 0 => io.flags,
            _ => bio.flags() | (io.flags - BioFlags::FLUSHES),
        };
        bio = bio
            .with_flags(flags)
            .with_priority(io.priority)
            .with_token(self.token);
        match io.via {
            Via::Reap => (bio, None),
            Via::Callback => {
                let called_back = Arc::clone(&self.called_back);
                let done = move |completion| called_back.lock().unwrap().push(completion);
                (bio.with_callback(done), None)
            }
            Via::Ticket => {
                let (bio, ticket) = bio.with_ticket();
                (bio, Some(ticket))
            }
        }
    }

    /// Whether no bio on its way touches these bytes; those that only read may meet.
    fn is_free(&self, range: &Range<u64>, op: Op) -> bool {
        self.in_flight.values().all(|one| {
            let apart = one.range.end <= range.start || range.end <= one.range.start;
            apart || (op == Op::Read && one.bio.op() == Op::Read)
        })
    }

    fn submit(&mut self, io: &Io) {
        let range = self.range_of(io);
        if !self.is_free(&range, io.op) {
            let (range, op) = (range.clone(), io.op);
            self.wait(move |driver| driver.is_free(&range, op));
        }
        let context = io.context % self.contexts.len();
        let (mut bio, mut ticket) = self.bio_for(io, &range);
        self.last = range.clone();
        loop {
            let token = self.about_to_submit(&bio, &range, ticket);
            match self.contexts[context].submit(bio) {
                Ok(()) => break self.submitted(token),
                Err(rejected) => {
                    assert_passing(rejected.reason);
                    ticket = self.rejected(token);
                    bio = rejected.bio;
                }
            }
            // A place is free when something has completed, here or elsewhere.
            for context in 0..self.contexts.len() {
                self.reap(context);
            }
            self.collect();
            std::thread::yield_now();
        }
        self.collect();
    }

    fn submit_plugged(&mut self, ios: &[Io]) {
        let context = ios[0].context % self.contexts.len();
        // Out of the way of `self`, for a plug borrows it.
        let mut own = self.contexts.remove(context);
        let mut plug = own.plug();
        let rest = self.submit_some(&mut plug, ios);
        drop(plug);
        self.contexts.insert(context, own);
        self.collect();
        for io in rest {
            self.submit(io);
        }
    }

    fn submit_quiesced(&mut self, ios: &[Io]) {
        let context = ios[0].context % self.contexts.len();
        let mut own = self.contexts.remove(context);
        let queue = self.queue;
        let quiesced = queue.quiesce();
        let rest = queue.device().left_alone(|| {
            let rest = self.submit_some(&mut own, ios);
            own.poll();
            rest
        });
        drop(quiesced);
        self.contexts.insert(context, own);
        self.collect();
        for io in rest {
            self.submit(io);
        }
    }

    /// Without waiting for anything: as far as that goes. The rest.
    fn submit_some<'i>(&mut self, own: &mut Context<'q, Strict>, ios: &'i [Io]) -> &'i [Io] {
        let mut rest = ios;
        while let [io, after @ ..] = rest {
            let range = self.range_of(io);
            if !self.is_free(&range, io.op) {
                break;
            }
            let (bio, ticket) = self.bio_for(io, &range);
            let token = self.about_to_submit(&bio, &range, ticket);
            match own.submit(bio) {
                Ok(()) => self.submitted(token),
                Err(rejected) => {
                    assert_passing(rejected.reason);
                    self.rejected(token);
                    break;
                }
            }
            self.last = range;
            rest = after;
        }
        rest
    }

    fn about_to_submit(&mut self, bio: &Bio, range: &Range<u64>, ticket: Option<Ticket>) -> u64 {
        let device = self.queue.device();
        device.expect_bio(bio);
        let one = InFlight {
            bio: bio.clone(),
            range: range.clone(),
            impossible: device.impossible(bio),
            ticket,
        };
        let token = bio.token();
        assert!(self.in_flight.insert(token, one).is_none());
        token
    }

    fn submitted(&mut self, token: u64) {
        // Its completion may have come already; nobody has looked at it yet.
        self.tally.accepted += 1;
        self.tally.with_range += u64::from(!self.in_flight[&token].range.is_empty());
    }

    fn rejected(&mut self, token: u64) -> Option<Ticket> {
        self.tally.rejected += 1;
        self.queue.device().forget_bio(token);
        self.in_flight.remove(&token).and_then(|one| one.ticket)
    }

    fn completed(&mut self, completion: Completion) {
        let token = completion.token();
        let Some(one) = self.in_flight.remove(&token) else {
            panic!("{completion:?} completed twice, or was never submitted");
        };
        let (done, result) = (completion.done().get(), completion.result());
        let verdict = self.queue.device().bio_completed(token, done);
        let len = one.range.end - one.range.start;
        let first = |a: Option<u64>, b: Option<u64>| match (a, b) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        let name = format!("bio {token}, {:?}", one.bio);
        let must = match first(verdict.failed, one.impossible) {
            None => (len, Ok(())),
            Some(at) if verdict.failed == Some(at) => (at, Err(BlkError::Medium)),
            Some(at) => (at, Err(BlkError::Invalid)),
        };
        assert_eq!((done, result), must, "outcome of {name}");
        let back = completion.into_bio();
        assert_eq!(
            format!("{back:?}"),
            format!("{:?}", one.bio),
            "comes back as it went"
        );

        self.tally.completed += 1;
        self.tally.failed += u64::from(result.is_err());
        self.tally.refused += u64::from(one.impossible.is_some());
        let count = match one.bio.op() {
            Op::Read => &mut self.tally.read,
            Op::Write if len == 0 => &mut self.tally.flushes,
            Op::Write => &mut self.tally.written,
            Op::WriteZeroes => &mut self.tally.zeroed,
            _ => &mut self.tally.discarded,
        };
        *count += if len == 0 { 1 } else { done };
        self.hold_against_oracle(&one, token, done);
    }

    fn hold_against_oracle(&mut self, one: &InFlight, token: u64, done: u64) {
        let from = (one.range.start - self.place.start) as usize;
        let to = (one.range.end - self.place.start) as usize;
        let here = &mut self.bytes[from..to];
        let done = done as usize;
        match one.bio.op() {
            Op::Read => {
                let mut bytes = vec![0; here.len()];
                let mut at = 0;
                for segment in one.bio.segments() {
                    let len = segment.len().get() as usize;
                    self.ram
                        .read_bytes(*segment, &mut bytes[at..at + len])
                        .unwrap();
                    at += len;
                }
                for (n, (is, must)) in bytes.iter().zip(here.iter()).take(done).enumerate() {
                    let at = one.range.start + n as u64;
                    assert!(
                        must.is_none_or(|must| *is == must),
                        "bio {token} read {is:#x} at byte {at}, where {must:?} was written"
                    );
                }
            }
            op => {
                let new = match op {
                    Op::Write => Self::pattern(token, here.len() as u64),
                    _ => vec![0; here.len()],
                };
                for (n, byte) in here.iter_mut().enumerate() {
                    *byte = (n < done).then(|| new[n]);
                }
            }
        }
    }

    /// Whether the contexts have counted what was seen here; how many requests went to the device, as they
    /// count it, and how many times it was busy.
    pub(crate) fn finish(self) -> (u64, u64) {
        let tally = self.tally;
        let (mut requests, mut requeues) = (0_i64, 0);
        let mut sum = Tally::default();
        for context in &self.contexts {
            assert_eq!(context.in_flight(), 0);
            let counters = context.counters();
            assert_eq!(counters.submitted, counters.completed, "{counters:?}");
            sum.accepted += counters.submitted;
            sum.completed += counters.completed;
            sum.rejected += counters.rejected;
            sum.failed += counters.failed;
            sum.read += counters.bytes_read;
            sum.written += counters.bytes_written;
            sum.discarded += counters.bytes_discarded;
            sum.zeroed += counters.bytes_zeroed;
            sum.flushes += counters.flushes;
            requests += counters.splits as i64 - counters.merges as i64;
            requeues += counters.requeues;
        }
        sum.with_range = tally.with_range;
        sum.refused = tally.refused;
        assert_eq!(
            format!("{sum:?}"),
            format!("{tally:?}"),
            "counters, and what was seen"
        );
        requests += tally.with_range as i64 - tally.refused as i64;
        (u64::try_from(requests).unwrap(), requeues)
    }
}
