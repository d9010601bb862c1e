//! Hazard: devices on devices, of any kind and in any order, send bytes to the wrong place, lose a
//! request between two layers, or report as done what is not.

extern crate alloc;

mod stacking_rig;

use alloc::sync::Arc;
use core::ops::Range;
use core::time::Duration;

use pageless_block::{
    Bio, BioFlags, BlkError, BlockDevice, Bounce, BytePos, Completion, Context, Delay, Effect,
    Elevator, Fault, Features, Flakey, FrameAccess, Latencies, Latency, Limits, Linear,
    ManualClock, MqDeadline, Op, Partition, QueueConfig, QueueId, RamFrames, RequestQueue, Sector,
    Stripe, WriteBack, WriteCache, WriteCacheConfig,
};
use pageless_pfn::{ByteLen, PhysSegment};
use proptest::prelude::*;
use proptest::sample::select;
use stacking_rig::{Later, SECTOR, Store, bytes_of, next, pageless, ram, segment};

type Device = Arc<dyn BlockDevice + Send + Sync>;

/// A stack of devices. Lengths are in sectors.
#[derive(Clone, Debug)]
enum Plan {
    Disk {
        len: u64,
        block: u64,
        chunk: Option<u64>,
        max_request: u64,
        cache: bool,
        paged: bool,
    },
    Linear(Vec<Plan>),
    Stripe(u64, Vec<Plan>),
    /// Begins and ends after so many parts of 16.
    Partition(Box<Plan>, u64, u64),
    WriteCache(Box<Plan>, u64, bool),
    Delay(Box<Plan>),
    Later(Box<Plan>, usize),
    Bounce(Box<Plan>),
    /// Fails half-way now and then.
    Flakey(Box<Plan>),
}

/// What a stack is built of.
struct Site {
    ram: Arc<RamFrames>,
    clock: Arc<ManualClock>,
    /// Frames handed out to layers so far, in bytes.
    taken: u64,
    stores: Vec<Arc<Store>>,
    seed: u64,
}

impl Site {
    fn new(frames: u64, seed: u64) -> Self {
        Self {
            ram: ram(frames),
            clock: Arc::new(ManualClock::new()),
            taken: 0,
            stores: Vec::new(),
            seed,
        }
    }

    fn frames(&mut self, len: u64) -> PhysSegment {
        let here = self.taken;
        self.taken += len;
        segment(&self.ram, here, len)
    }

    fn all(&mut self, plans: &[Plan]) -> Vec<Device> {
        plans.iter().map(|plan| self.build(plan)).collect()
    }

    /// The stack; a layer that cannot stand on what is below it is left out.
    fn build(&mut self, plan: &Plan) -> Device {
        let seed = next(&mut self.seed);
        match plan {
            Plan::Disk {
                len,
                block,
                chunk,
                max_request,
                cache,
                paged,
            } => {
                let mut limits = Limits::new(ByteLen::new(len * SECTOR));
                limits.set_logical_block(ByteLen::new(block * SECTOR));
                limits.max_request = ByteLen::new(max_request * block * SECTOR);
                limits.chunk = chunk.map(|chunk| ByteLen::new(chunk * block * SECTOR));
                limits.max_discard = Limits::UNLIMITED;
                limits.max_write_zeroes = Limits::UNLIMITED;
                limits.features.set(Features::WRITE_CACHE, *cache);
                limits.features.set(Features::PAGELESS, !paged);
                limits.validate().unwrap();
                let mut store = Store::with_limits(limits, &self.ram);
                store.discarded = 0;
                let store = Arc::new(store);
                self.stores.push(Arc::clone(&store));
                store
            }
            Plan::Linear(plans) => {
                let below = self.all(plans);
                let first = Arc::clone(&below[0]);
                Linear::try_new(below).map_or(first, |device| Arc::new(device) as Device)
            }
            Plan::Stripe(chunk, plans) => {
                let below = self.all(plans);
                let first = Arc::clone(&below[0]);
                let chunk = ByteLen::new(chunk * SECTOR);
                Stripe::try_new(chunk, below).map_or(first, |device| Arc::new(device) as Device)
            }
            Plan::Partition(plan, from, to) => {
                let below = self.build(plan);
                let len = below.limits().capacity.get();
                let block = below.limits().logical_block.get();
                let at = |part| len * part / 16 / block * block;
                let (start, end) = (at(*from.min(to)), at(*from.max(to)));
                let (start, len) = (BytePos::new(start), ByteLen::new(end - start));
                Partition::try_new(Arc::clone(&below), start, len)
                    .map_or(below, |device| Arc::new(device) as Device)
            }
            Plan::WriteCache(plan, room, fua) => {
                let below = self.build(plan);
                let config = WriteCacheConfig {
                    capacity: ByteLen::new(room * 4096),
                    fua: *fua,
                    write_back: Some(WriteBack { seed, one_in: 3 }),
                };
                let staging = self.frames(8192);
                WriteCache::try_new(Arc::clone(&below), Arc::clone(&self.ram), staging, config)
                    .map_or(below, |device| Arc::new(device) as Device)
            }
            Plan::Delay(plan) => {
                let below = self.build(plan);
                let latency = Latency::Exponential(Duration::from_micros(50));
                let clock = Arc::clone(&self.clock);
                Arc::new(Delay::new(below, clock, Latencies::all(latency), seed))
            }
            Plan::Later(plan, room) => Arc::new(Later::new(self.build(plan), *room, seed)),
            Plan::Bounce(plan) => {
                let below = self.build(plan);
                let pool = self.frames(16 * 4096);
                let each = ByteLen::new(4096);
                Bounce::try_new(Arc::clone(&below), Arc::clone(&self.ram), pool, each)
                    .map_or(below, |device| Arc::new(device) as Device)
            }
            Plan::Flakey(plan) => {
                let flakey = Flakey::new(self.build(plan), seed);
                let half = Effect::FailSomewhere(BlkError::Medium);
                flakey.inject(Fault::new(half).one_in(9));
                Arc::new(flakey)
            }
        }
    }
}

/// One thing to do, with numbers that are made to fit the device.
#[derive(Clone, Copy, Debug)]
struct Ask {
    op: Op,
    flags: BioFlags,
    at: u64,
    len: u64,
    /// Where the memory is cut into segments, and how it is aligned.
    memory: u64,
}

/// The most blocks of an ask, and bytes of memory for one.
const MOST: u64 = 24;
const ROOM: u64 = 32 << 10;
/// Where the memory of the players begins; before it is that of the layers.
const PLAYERS: u64 = 4 << 20;
/// How often to ask for a completion that does not come.
const PATIENCE: u64 = 10_000_000;

/// What each sector of some part of a device may hold.
struct Oracle {
    /// The part, in sectors.
    part: Range<u64>,
    /// By sector: more than one where a write failed and nobody knows how far it got. A logical
    /// block may be longer than those of the devices below, which may have written half of it.
    may_hold: Vec<Vec<Vec<u8>>>,
}

impl Oracle {
    fn new(part: Range<u64>) -> Self {
        let zero = vec![vec![0; SECTOR as usize]];
        let len = (part.end - part.start) as usize;
        Self {
            part,
            may_hold: vec![zero; len],
        }
    }

    fn sector(&mut self, number: u64) -> &mut Vec<Vec<u8>> {
        &mut self.may_hold[(number - self.part.start) as usize]
    }

    /// What `ask` writes to sector `number`.
    fn content(op: Op, ask: u64, number: u64) -> Vec<u8> {
        let byte = |n: u64| match op {
            Op::Write => (ask * 31 + number * 7 + n + n / 256) as u8 | 1,
            _ => 0,
        };
        (0..SECTOR).map(byte).collect()
    }

    fn wrote(&mut self, op: Op, ask: u64, sectors: Range<u64>, done: u64) {
        for number in sectors.clone() {
            let may_hold = self.sector(number);
            if number - sectors.start < done {
                may_hold.clear();
            }
            may_hold.push(Self::content(op, ask, number));
        }
    }

    fn read(&mut self, sectors: Range<u64>, done: u64, bytes: &[u8]) {
        for (number, found) in sectors.clone().zip(bytes.chunks(SECTOR as usize)) {
            if number - sectors.start >= done {
                break;
            }
            let may_hold = self.sector(number);
            assert!(
                may_hold.iter().any(|content| content == found),
                "sector {number} of {sectors:?} holds {:?}..., not one of {:?}...",
                &found[..8],
                may_hold.iter().map(|c| &c[..8]).collect::<Vec<_>>(),
            );
            *may_hold = vec![found.to_vec()];
        }
    }
}

/// One thread's work on its part of a device.
struct Player<'a> {
    ram: &'a RamFrames,
    /// Where its memory begins.
    memory: u64,
    oracle: Oracle,
    /// Sectors of a logical block.
    block: u64,
    /// Asks that are out: number, operation, sectors.
    out: Vec<(u64, Op, Range<u64>)>,
    /// How many asks there were.
    asked: u64,
    /// What the last one was, and where it ended.
    last: (Op, u64),
    pageless: bool,
    failures: u64,
}

impl Player<'_> {
    fn play<D: BlockDevice>(&mut self, context: &mut Context<'_, D>, asks: &[Ask]) {
        let first = self.asked;
        self.asked += asks.len() as u64;
        let mut asks = (first..).zip(asks);
        while let Some((number, ask)) = asks.next() {
            if ask.memory & 2 == 0 {
                self.ask(context, number, ask);
                continue;
            }
            // Some are held back together, so that they meet.
            let mut plug = context.plug();
            self.ask(&mut plug, number, ask);
            for (number, ask) in asks.by_ref().take(6) {
                self.ask(&mut plug, number, ask);
            }
        }
        self.settle(context);
    }

    fn ask<D: BlockDevice>(&mut self, context: &mut Context<'_, D>, number: u64, ask: &Ask) {
        let part = self.oracle.part.clone();
        let all = (part.end - part.start) / self.block;
        let len = 1 + ask.len % MOST.min(all);
        let mut at = part.start + ask.at % (all - len + 1) * self.block;
        let mut ask = *ask;
        // Where the last one ended, and of its kind.
        if ask.memory & 4 != 0 && self.last.1 + len * self.block <= part.end {
            at = self.last.1;
            ask.op = self.last.0;
            ask.flags = BioFlags::empty();
        }
        let sectors = match ask.op {
            Op::Flush => 0..0,
            _ => at..at + len * self.block,
        };
        if ask.op != Op::Flush {
            self.last = (ask.op, sectors.end);
        }
        // Two at the same place at the same time could be anything.
        let meets = |other: &Range<u64>| other.start < sectors.end && sectors.start < other.end;
        if self.out.iter().any(|(_, _, other)| meets(other)) {
            self.settle(context);
        }
        let mut bio = self.bio(number, &ask, &sectors).with_token(number);
        self.out.push((number, ask.op, sectors));
        while let Err(back) = context.submit(bio) {
            bio = back.bio;
            if let Some(done) = context.reap() {
                self.done(&done);
            }
        }
    }

    /// Memory of this ask in one segment or two, wherever it likes to begin.
    fn segments(&self, number: u64, ask: &Ask, len: u64) -> Vec<PhysSegment> {
        // As many as may be out at a time have memory of their own.
        let start = self.memory + number % (ASKS as u64 + 1) * ROOM + ask.memory % 1000;
        let cut = ask.memory / 1000 % len;
        let mut segments = vec![segment(self.ram, start + cut + 100, len - cut)];
        if cut != 0 {
            segments.insert(0, segment(self.ram, start, cut));
        }
        if self.pageless && ask.memory & 1 == 1 {
            segments = segments.into_iter().map(pageless).collect();
        }
        segments
    }

    fn bio(&self, number: u64, ask: &Ask, sectors: &Range<u64>) -> Bio {
        let sector = Sector::new(sectors.start);
        let len = (sectors.end - sectors.start) * SECTOR;
        match ask.op {
            Op::Flush => Bio::flush().erase(),
            Op::Discard | Op::WriteZeroes => Bio::with_range(ask.op, sector, ByteLen::new(len)),
            _ => {
                let mut bio = Bio::new(ask.op, sector).with_flags(ask.flags);
                let segments = self.segments(number, ask, len);
                if ask.op == Op::Write {
                    let content = |n| Oracle::content(ask.op, number, n);
                    let content: Vec<u8> = sectors.clone().flat_map(content).collect();
                    let mut rest = &content[..];
                    for &memory in &segments {
                        let (now, after) = rest.split_at(memory.len().get() as usize);
                        self.ram.write_bytes(memory, now).unwrap();
                        rest = after;
                    }
                }
                bio.extend(segments);
                bio
            }
        }
    }

    fn done(&mut self, done: &Completion) {
        let at = self.out.iter().position(|out| out.0 == done.token());
        let (number, op, sectors) = self.out.swap_remove(at.expect("nothing completes twice"));
        let all = sectors.end - sectors.start;
        let count = done.done().get() / SECTOR;
        match done.result() {
            Ok(()) => assert_eq!(count, all, "{done:?}"),
            Err(error) => {
                assert_eq!(error, BlkError::Medium, "{done:?}");
                assert!(count < all || all == 0, "{done:?}");
                self.failures += 1;
            }
        }
        match op {
            Op::Flush => {}
            Op::Read => {
                let segments = done.bio().segments().iter();
                let bytes: Vec<u8> = segments.flat_map(|&s| bytes_of(self.ram, s)).collect();
                self.oracle.read(sectors, count, &bytes);
            }
            _ => self.oracle.wrote(op, number, sectors, count),
        }
    }

    fn settle<D: BlockDevice>(&mut self, context: &mut Context<'_, D>) {
        let mut idle = 0;
        while context.in_flight() != 0 {
            match context.reap() {
                Some(done) => {
                    self.done(&done);
                    idle = 0;
                }
                None => {
                    idle += 1;
                    assert!(idle < PATIENCE, "these never complete: {:?}", self.out);
                    // Whoever has what we wait for may have been interrupted.
                    std::thread::yield_now();
                }
            }
        }
        assert_eq!(self.out, [], "lost");
    }
}

/// Plays on the whole of a stack, each thread on a part and through a hardware queue of its own,
/// and then reads everything.
fn play(site: &Site, device: &Device, scripts: &[Vec<Ask>]) -> Outcome {
    let limits = device.limits();
    let config = QueueConfig {
        hw_queues: scripts.len() as u16,
        depth: 8,
        elevator: (site.seed & 1 == 0).then(elevator),
        ..QueueConfig::default()
    };
    let queue = RequestQueue::try_new(device, config).unwrap();
    let block = limits.logical_block.get() / SECTOR;
    let each = limits.capacity.get() / SECTOR / block / scripts.len() as u64;
    let turn = |number: u64, script: &[Ask]| {
        if each == 0 {
            return Outcome::default();
        }
        let mut player = Player {
            ram: &site.ram,
            memory: PLAYERS + number * (ASKS as u64 + 1) * ROOM,
            oracle: Oracle::new(number * each * block..(number + 1) * each * block),
            block,
            out: Vec::new(),
            asked: 0,
            last: (Op::Read, number * each * block),
            pageless: limits.accepts_pageless(),
            failures: 0,
        };
        let mut context = queue.context(QueueId::new(number as u16)).unwrap();
        for some in script.chunks(ASKS) {
            player.play(&mut context, some);
        }
        for at in (0..each).step_by(MOST as usize) {
            let ask = Ask {
                op: Op::Read,
                flags: BioFlags::empty(),
                at,
                len: MOST.min(each - at) - 1,
                memory: at,
            };
            player.play(&mut context, &[ask]);
        }
        Outcome {
            failures: player.failures,
            merges: context.counters().merges,
        }
    };
    if let [script] = scripts {
        return turn(0, script);
    }
    std::thread::scope(|threads| {
        let turn = &turn;
        let all: Vec<_> = (0..)
            .zip(scripts)
            .map(|(number, script)| threads.spawn(move || turn(number, script)))
            .collect();
        let mut sum = Outcome::default();
        for one in all {
            let outcome = one.join().unwrap();
            sum.failures += outcome.failures;
            sum.merges += outcome.merges;
        }
        sum
    })
}

fn elevator() -> Box<dyn Elevator> {
    Box::new(MqDeadline::default())
}

/// What came of it, beside the bytes.
#[derive(Clone, Copy, Debug, Default)]
struct Outcome {
    /// Bios that failed.
    failures: u64,
    /// Bios that became part of a request that was there.
    merges: u64,
}

/// The most asks that are out at a time, and of a script that is made up.
const ASKS: usize = 24;

fn asks() -> impl Strategy<Value = Vec<Ask>> {
    let op = prop_oneof![
        5 => Just(Op::Write),
        4 => Just(Op::Read),
        1 => Just(Op::Discard),
        1 => Just(Op::WriteZeroes),
        1 => Just(Op::Flush),
    ];
    let fua = prop_oneof![4 => Just(false), 1 => Just(true)];
    let ask = (op, fua, any::<[u32; 3]>()).prop_map(|(op, fua, [at, len, memory])| Ask {
        op,
        flags: match op {
            Op::Write if fua => BioFlags::FUA,
            _ => BioFlags::empty(),
        },
        at: at.into(),
        len: len.into(),
        memory: memory.into(),
    });
    proptest::collection::vec(ask, 1..=ASKS)
}

fn plans(faults: bool) -> impl Strategy<Value = Plan> {
    let disk = (
        4_u64..40,
        select(vec![1, 1, 1, 2]),
        select(vec![None, None, Some(1), Some(3), Some(8)]),
        select(vec![1, 5, 1000]),
        any::<bool>(),
        any::<bool>(),
    );
    let disk = disk.prop_map(
        |(blocks, block, chunk, max_request, cache, paged)| Plan::Disk {
            len: blocks * block,
            block,
            chunk,
            max_request,
            cache,
            paged,
        },
    );
    disk.prop_recursive(4, 16, 3, move |below| {
        let some = || proptest::collection::vec(below.clone(), 1..4);
        let one = || below.clone().prop_map(Box::new);
        let sound = prop_oneof![
            2 => some().prop_map(Plan::Linear),
            2 => (select(vec![1, 2, 3, 8]), some()).prop_map(|(c, some)| Plan::Stripe(c, some)),
            2 => (one(), 0_u64..8, 8_u64..17).prop_map(|(one, a, b)| Plan::Partition(one, a, b)),
            1 => (one(), 1_u64..9, any::<bool>())
                .prop_map(|(one, room, fua)| Plan::WriteCache(one, room, fua)),
            1 => one().prop_map(Plan::Delay),
            1 => (one(), 1_usize..6).prop_map(|(one, room)| Plan::Later(one, room)),
            1 => one().prop_map(Plan::Bounce),
        ];
        match faults {
            false => sound.boxed(),
            true => prop_oneof![5 => sound, 2 => one().prop_map(Plan::Flakey)].boxed(),
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        cases: 400,
        ..ProptestConfig::default()
    })]

    #[test]
    #[cfg_attr(miri, ignore = "maps memory")]
    fn any_stack_holds_what_one_vector_would(plan in plans(false), script in asks(), seed: u64) {
        let mut site = Site::new(2048, seed);
        let device = site.build(&plan);
        prop_assert_eq!(play(&site, &device, &[script]).failures, 0);
    }

    #[test]
    #[cfg_attr(miri, ignore = "maps memory")]
    fn what_a_failing_stack_says_is_done_is_done(plan in plans(true), script in asks(), seed: u64) {
        let mut site = Site::new(2048, seed);
        let device = site.build(&plan);
        play(&site, &device, &[script]);
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        cases: 100,
        ..ProptestConfig::default()
    })]

    #[test]
    #[cfg_attr(miri, ignore = "maps memory")]
    fn two_threads_on_two_queues_do_not_disturb_each_other(
        plan in plans(true),
        scripts in [asks(), asks()],
        seed: u64,
    ) {
        let mut site = Site::new(2048, seed);
        let device = site.build(&plan);
        play(&site, &device, &scripts);
    }
}

/// Three layers and more, with everything in them that takes its time or fails.
fn deep(faults: bool) -> Plan {
    let disk = |len, paged| {
        Box::new(Plan::Disk {
            len,
            block: 1,
            chunk: None,
            max_request: 16,
            cache: len % 2 == 0,
            paged,
        })
    };
    let flakey = |plan: Box<Plan>| match faults {
        true => Box::new(Plan::Flakey(plan)),
        false => plan,
    };
    let first = Plan::Linear(vec![Plan::Later(disk(41, false), 3), *disk(34, false)]);
    let second = Plan::Bounce(Box::new(Plan::Delay(disk(80, true))));
    let third = Plan::Linear(vec![
        Plan::Delay(disk(27, false)),
        *flakey(Box::new(Plan::WriteCache(
            Box::new(Plan::Later(disk(50, false), 2)),
            2,
            true,
        ))),
    ]);
    let row = vec![
        Plan::Delay(flakey(Box::new(first))),
        Plan::WriteCache(Box::new(second), 2, false),
        third,
    ];
    Plan::Partition(Box::new(Plan::Stripe(3, row)), 1, 15)
}

/// As many asks as one likes.
fn many(seed: &mut u64, count: usize) -> Vec<Ask> {
    let ops = [
        Op::Write,
        Op::Write,
        Op::Write,
        Op::Read,
        Op::Read,
        Op::Flush,
        Op::Discard,
        Op::WriteZeroes,
    ];
    let ask = |_| {
        let op = ops[next(seed) as usize % ops.len()];
        let fua = op == Op::Write && next(seed).is_multiple_of(5);
        Ask {
            op,
            flags: if fua {
                BioFlags::FUA
            } else {
                BioFlags::empty()
            },
            at: next(seed),
            len: next(seed) % 9,
            memory: next(seed) >> 32,
        }
    };
    (0..count).map(ask).collect()
}

#[test]
#[cfg_attr(miri, ignore = "maps memory")]
fn a_deep_stack_under_two_threads_holds_what_two_vectors_would() {
    for seed in 0..8 {
        let mut site = Site::new(4096, seed);
        let device = site.build(&deep(false));
        let scripts = [300, 300].map(|count| many(&mut site.seed, count));
        assert_eq!(play(&site, &device, &scripts).failures, 0);
        assert!(
            site.stores
                .iter()
                .all(|store| !store.seen_of(Op::Write).is_empty())
        );
    }
}

#[test]
#[cfg_attr(miri, ignore = "maps memory")]
fn a_deep_stack_that_fails_says_to_two_threads_what_is_done() {
    let mut failures = 0;
    for seed in 0..8 {
        let mut site = Site::new(4096, seed);
        let device = site.build(&deep(true));
        let scripts = [300, 300].map(|count| many(&mut site.seed, count));
        failures += play(&site, &device, &scripts).failures;
    }
    assert!(failures > 100, "only {failures} of 4800 failed");
}

#[test]
#[cfg_attr(miri, ignore = "maps memory")]
fn bios_that_were_merged_share_what_was_done() {
    let disk = |len| {
        Box::new(Plan::Disk {
            len,
            block: 1,
            chunk: None,
            max_request: 1000,
            cache: true,
            paged: false,
        })
    };
    let plan = Plan::Linear(vec![
        Plan::Flakey(Box::new(Plan::Delay(disk(64)))),
        Plan::Later(Box::new(Plan::Flakey(disk(37))), 4),
    ]);
    let (mut merges, mut failures) = (0, 0);
    for seed in 0..8 {
        let mut site = Site::new(4096, seed);
        let device = site.build(&plan);
        let script = many(&mut site.seed, 300);
        let outcome = play(&site, &device, &[script]);
        merges += outcome.merges;
        failures += outcome.failures;
    }
    assert!(merges > 100, "only {merges} of 2400 bios were merged");
    assert!(failures > 100, "only {failures} of 2400 failed");
}
