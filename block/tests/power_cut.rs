//! Hazard: a device with a volatile cache says that something is durable, the power goes, and it is
//! not.
//!
//! Scripts of writes, flushes, discards and write-zeroes run over a volatile write cache. The power
//! goes after every single request that the cache, or the store behind it, has seen; then an
//! arbitrary part of what was not flushed has reached the store. What is found there must be
//! explained by what the caller was told before.

extern crate alloc;

mod stacking_rig;

use alloc::sync::Arc;
use core::time::Duration;

use pageless_block::{
    Bio, BioFlags, BlkError, BlockDevice, Completion, Delay, Effect, Elevator, Fault, Flakey,
    FrameAccess, Latencies, Latency, Limits, ManualClock, MqDeadline, Op, PowerCut, QueueConfig,
    QueueId, RamFrames, RequestQueue, Sector, WriteBack, WriteCache, WriteCacheConfig,
};
use pageless_pfn::ByteLen;
use proptest::prelude::*;
use proptest::sample::select;
use stacking_rig::{DISCARDED, Fuse, Power, SECTOR, Store, ram, segment};

/// The device, in sectors.
const SECTORS: u64 = 12;
/// The longest operation, in sectors.
const LONGEST: u64 = 4;
/// What the device is full of at first.
const BEFORE: u8 = 0xee;
/// Where the cache has its frames, and the first buffer lies.
const STAGING: u64 = 0;
const BUFFERS: u64 = 4096;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Step {
    Write {
        at: u64,
        len: u64,
        fua: bool,
        preflush: bool,
    },
    Flush,
    Discard {
        at: u64,
        len: u64,
    },
    Zeroes {
        at: u64,
        len: u64,
    },
    /// Waits for everything that is out.
    Wait,
    /// Takes a completion, if there is one.
    Reap,
}

impl Step {
    fn range(self) -> core::ops::Range<u64> {
        match self {
            Self::Write { at, len, .. } | Self::Discard { at, len } | Self::Zeroes { at, len } => {
                at..at + len
            }
            Self::Flush | Self::Wait | Self::Reap => 0..0,
        }
    }

    fn flushes_before(self) -> bool {
        matches!(self, Self::Flush | Self::Write { preflush: true, .. })
    }

    fn fua(self) -> bool {
        matches!(self, Self::Write { fua: true, .. })
    }

    /// What its sectors are full of when it is done. Every write has a value of its own.
    fn value(self, number: usize) -> u8 {
        match self {
            Self::Discard { .. } => DISCARDED,
            Self::Zeroes { .. } => 0,
            _ => 1 + u8::try_from(number).unwrap(),
        }
    }
}

/// What the scripts run on.
#[derive(Clone, Copy, Debug)]
struct Setup {
    /// Whether the cache takes FUA.
    fua: bool,
    /// How many sectors it keeps at most.
    room: u64,
    /// The longest request, in sectors: shorter than some bios.
    max_request: u64,
    /// Whether requests take their time, and overtake each other.
    slow: bool,
    /// Whether one write in four fails half-way.
    flakey: bool,
    /// Whether blocks go down by themselves.
    write_back: bool,
    /// Whether there is a second cache below the first.
    twice: bool,
    /// Whether a scheduler chooses what goes first.
    scheduled: bool,
    seed: u64,
}

type Bottom = Fuse<WriteCache<Arc<Store>, Arc<RamFrames>>>;

/// One run: what the caller was told, and what was found afterwards.
struct Run {
    told: Vec<Told>,
    found: Vec<u8>,
    requests: u64,
}

#[derive(Clone, Copy, Debug)]
struct Told {
    step: Step,
    number: usize,
    submitted: u64,
    completed: Option<Completed>,
}

#[derive(Clone, Copy, Debug)]
struct Completed {
    /// When it was reaped.
    when: u64,
    /// How much of it was done.
    sectors: u64,
    /// Whether that was all.
    ok: bool,
}

fn run(script: &[Step], setup: Setup, lasting: u64, accident: PowerCut) -> Run {
    let ram = ram(1 + 1 + (script.len() as u64 * LONGEST * SECTOR).div_ceil(4096));
    let power = Power::lasting(lasting);
    let mut limits = Limits::new(ByteLen::new(SECTORS * SECTOR));
    limits.max_request = ByteLen::new(setup.max_request * SECTOR);
    limits.max_discard = Limits::UNLIMITED;
    limits.max_write_zeroes = Limits::UNLIMITED;
    let store = Arc::new(Store::with_limits(limits, &ram));
    store.bytes.lock().unwrap().fill(BEFORE);

    let config = WriteCacheConfig {
        capacity: ByteLen::new(setup.room * SECTOR),
        fua: setup.fua,
        write_back: setup.write_back.then_some(WriteBack {
            seed: setup.seed,
            one_in: 2,
        }),
    };
    // Either one cache right before the store, or one more before that.
    let staging = |which: u64| segment(&ram, STAGING + which * 2048, 2048);
    let config_below = WriteCacheConfig {
        fua: setup.seed & 2 == 0,
        ..config
    };
    let lower: Box<dyn BlockDevice>;
    let below: Arc<Bottom>;
    if setup.twice {
        let cache = WriteCache::try_new(
            Arc::clone(&store),
            Arc::clone(&ram),
            staging(1),
            config_below,
        );
        below = Arc::new(Fuse::new(cache.unwrap(), &power));
        lower = Box::new(Arc::clone(&below));
    } else {
        let cache = WriteCache::try_new(Arc::clone(&store), Arc::clone(&ram), staging(1), config);
        below = Arc::new(Fuse::new(cache.unwrap(), &power));
        lower = Box::new(Fuse::new(Arc::clone(&store), &power));
    }
    let upper = WriteCache::try_new(lower, Arc::clone(&ram), staging(0), config).unwrap();
    let flakey = Flakey::new(Fuse::new(upper, &power), setup.seed);
    if setup.flakey {
        let half = Effect::FailSomewhere(BlkError::Medium);
        flakey.inject(Fault::new(half).on(Op::Write).one_in(4));
    }
    let clock = Arc::new(ManualClock::new());
    let latencies = match setup.slow {
        true => Latencies::all(Latency::Uniform(
            Duration::from_nanos(1),
            Duration::from_nanos(100),
        )),
        false => Latencies::default(),
    };
    let device = Delay::new(flakey, clock, latencies, setup.seed);

    let told = play(script, &device, setup, &ram);
    let requests = power.seen();
    power.comes_back();
    // The upper one first: what of it had gone down may be lost below.
    device.device().device().device().power_cut(accident);
    if setup.twice {
        below.device().power_cut(accident);
    }
    let found = store.bytes.lock().unwrap().clone();
    Run {
        told,
        found,
        requests,
    }
}

/// Submits the script, as fast as the queue takes it, and notes what comes back.
fn play(
    script: &[Step],
    device: &impl BlockDevice,
    setup: Setup,
    ram: &Arc<RamFrames>,
) -> Vec<Told> {
    let elevator = || -> Box<dyn Elevator> { Box::new(MqDeadline::default()) };
    let config = QueueConfig {
        depth: 16,
        elevator: setup.scheduled.then(elevator),
        ..QueueConfig::default()
    };
    let queue = RequestQueue::try_new(device, config).unwrap();
    let mut context = queue.context(QueueId::new(0)).unwrap();
    let mut told: Vec<Told> = Vec::new();
    let mut now = 0;
    let mut reaped: Vec<Completion> = Vec::new();
    for (number, &step) in script.iter().enumerate() {
        match bio_of(step, number, ram) {
            Some(bio) => {
                now += 1;
                let mut bio = bio.with_token(told.len() as u64);
                told.push(Told {
                    step,
                    number,
                    submitted: now,
                    completed: None,
                });
                while let Err(back) = context.submit(bio) {
                    bio = back.bio;
                    reaped.extend(context.reap());
                }
            }
            None if step == Step::Reap => reaped.extend(context.reap()),
            None => context.drain(|done| reaped.push(done)),
        }
        if !setup.slow {
            context.drain(|done| reaped.push(done));
        }
        note(&mut told, &mut now, reaped.drain(..));
    }
    context.drain(|done| reaped.push(done));
    note(&mut told, &mut now, reaped.drain(..));
    told
}

fn bio_of(step: Step, number: usize, ram: &RamFrames) -> Option<Bio> {
    let bytes = |len| ByteLen::new(len * SECTOR);
    let bio = match step {
        Step::Write { at, len, .. } => {
            let buffer = BUFFERS + number as u64 * LONGEST * SECTOR;
            let memory = segment(ram, buffer, len * SECTOR);
            let data = vec![step.value(number); (len * SECTOR) as usize];
            ram.write_bytes(memory, &data).unwrap();
            Bio::write(Sector::new(at), memory).erase()
        }
        Step::Flush => Bio::flush().erase(),
        Step::Discard { at, len } => Bio::discard(Sector::new(at), bytes(len)).erase(),
        Step::Zeroes { at, len } => Bio::write_zeroes(Sector::new(at), bytes(len)).erase(),
        Step::Wait | Step::Reap => return None,
    };
    let mut flags = bio.flags();
    flags.set(BioFlags::FUA, step.fua());
    flags.set(BioFlags::PREFLUSH, step.flushes_before());
    Some(bio.with_flags(flags))
}

fn note(told: &mut [Told], now: &mut u64, reaped: impl Iterator<Item = Completion>) {
    for done in reaped {
        *now += 1;
        told[done.token() as usize].completed = Some(Completed {
            when: *now,
            sectors: done.done().get() / SECTOR,
            ok: done.result().is_ok(),
        });
    }
}

/// One sector of one operation: its value, and when it was there.
#[derive(Clone, Copy, Debug)]
struct Version {
    value: u8,
    submitted: u64,
    /// `None`: never, as far as the caller knows. It may be there all the same.
    completed: Option<u64>,
    fua: bool,
}

impl Version {
    /// Whether the caller knew that this was over before `other` began.
    fn is_before(&self, other: &Self) -> bool {
        self.completed.is_some_and(|when| when < other.submitted)
    }
}

/// Says what is wrong with what was found, if anything is.
fn judge(run: &Run) -> Result<(), String> {
    let sectors: Vec<u8> = run
        .found
        .chunks(SECTOR as usize)
        .enumerate()
        .map(
            |(number, bytes)| match bytes.iter().all(|&b| b == bytes[0]) {
                true => Ok(bytes[0]),
                false => Err(format!("sector {number} is torn")),
            },
        )
        .collect::<Result<_, _>>()?;
    let flushed = flushed_until(run, &sectors);
    for (sector, &found) in (0..).zip(&sectors) {
        let versions = versions_of(run, sector);
        let durable = |version: &Version| match version.completed {
            Some(when) => version.fua || when < flushed,
            None => false,
        };
        let explained = versions.iter().any(|candidate| {
            candidate.value == found
                && !versions
                    .iter()
                    .any(|later| durable(later) && candidate.is_before(later))
        });
        if !explained {
            return Err(format!(
                "sector {sector} is {found:#x}, flushed until {flushed}, of {versions:#x?}"
            ));
        }
    }
    Ok(())
}

/// What was completed before this moment is durable: a flush that was submitted then is known to
/// have happened, because the caller was told, or because data is there that had to wait for it.
fn flushed_until(run: &Run, sectors: &[u8]) -> u64 {
    let happened = |told: &&Told| {
        let told_so = told.completed.is_some_and(|c| c.ok || c.sectors != 0);
        let value = told.step.value(told.number);
        let seen = told
            .step
            .range()
            .any(|sector| sectors[sector as usize] == value);
        told.step.flushes_before() && (told_so || seen)
    };
    let flushes = run.told.iter().filter(happened);
    flushes.map(|told| told.submitted).max().unwrap_or(0)
}

fn versions_of(run: &Run, sector: u64) -> Vec<Version> {
    let before = Version {
        value: BEFORE,
        submitted: 0,
        completed: Some(0),
        fua: false,
    };
    let mut versions = vec![before];
    for told in &run.told {
        let range = told.step.range();
        if !range.contains(&sector) {
            continue;
        }
        let done = |c: &Completed| sector - range.start < c.sectors;
        versions.push(Version {
            value: told.step.value(told.number),
            submitted: told.submitted,
            completed: told.completed.filter(done).map(|c| c.when),
            fua: told.step.fua(),
        });
    }
    versions
}

/// Runs the script with the power going after every request, and some accidents each.
fn every_cut(script: &[Step], setup: Setup) -> Result<(), String> {
    let whole = run(script, setup, u64::MAX, PowerCut::AllLost);
    let explain = |run: &Run, lasting, accident| {
        judge(run).map_err(|what| {
            let told = &run.told;
            format!("{what}\ncut after {lasting} requests, {accident:?}, {setup:?}\n{told:#?}")
        })
    };
    explain(&whole, u64::MAX, PowerCut::AllLost)?;
    for lasting in 0..=whole.requests {
        let subset = |n| PowerCut::Some {
            seed: setup.seed.wrapping_add(lasting * 3 + n),
        };
        for accident in [PowerCut::AllLost, subset(0), subset(1), subset(2)] {
            let cut = run(script, setup, lasting, accident);
            explain(&cut, lasting, accident)?;
        }
    }
    Ok(())
}

fn range() -> impl Strategy<Value = (u64, u64)> {
    (0..SECTORS, 1..=LONGEST).prop_map(|(at, len)| (at.min(SECTORS - len), len))
}

fn steps() -> impl Strategy<Value = Step> {
    let write = (range(), any::<bool>(), any::<bool>());
    prop_oneof![
        6 => write.prop_map(|((at, len), fua, preflush)| Step::Write {
            at,
            len,
            fua,
            preflush: preflush && fua,
        }),
        3 => range().prop_map(|(at, len)| Step::Write { at, len, fua: false, preflush: false }),
        1 => range().prop_map(|(at, len)| Step::Write { at, len, fua: false, preflush: true }),
        2 => Just(Step::Flush),
        1 => range().prop_map(|(at, len)| Step::Discard { at, len }),
        1 => range().prop_map(|(at, len)| Step::Zeroes { at, len }),
        1 => Just(Step::Wait),
        1 => Just(Step::Reap),
    ]
}

fn setups() -> impl Strategy<Value = Setup> {
    let switches = (any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>());
    let lengths = (select(vec![1, 3, 64]), select(vec![2, 64]));
    (switches, lengths, any::<u64>()).prop_map(
        |((slow, flakey, write_back, twice), (room, max_request), seed)| Setup {
            fua: seed & 1 == 0,
            room,
            max_request,
            slow,
            flakey,
            write_back,
            twice,
            scheduled: seed & 4 == 0,
            seed,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        cases: 256,
        ..ProptestConfig::default()
    })]

    #[test]
    #[cfg_attr(miri, ignore = "maps memory")]
    fn whatever_the_caller_was_told_holds_after_a_cut_at_every_request(
        script in proptest::collection::vec(steps(), 1..10),
        setup in setups(),
    ) {
        let verdict = every_cut(&script, setup);
        prop_assert!(verdict.is_ok(), "{}", verdict.unwrap_err());
    }
}

const PLAIN: Setup = Setup {
    fua: false,
    room: 64,
    max_request: 64,
    slow: false,
    flakey: false,
    write_back: false,
    twice: false,
    scheduled: false,
    seed: 1,
};

fn write(at: u64, fua: bool) -> Step {
    let (len, preflush) = (2, false);
    Step::Write {
        at,
        len,
        fua,
        preflush,
    }
}

fn holds(script: &[Step], setup: Setup) {
    if let Err(what) = every_cut(script, setup) {
        panic!("{what}");
    }
}

#[test]
#[cfg_attr(miri, ignore = "maps memory")]
fn a_write_with_fua_is_there_whether_or_not_the_cache_takes_fua() {
    for fua in [false, true] {
        for twice in [false, true] {
            let setup = Setup {
                fua,
                twice,
                ..PLAIN
            };
            holds(&[write(0, true)], setup);
            holds(&[write(0, false), write(1, true), write(0, false)], setup);
        }
    }
}

#[test]
#[cfg_attr(miri, ignore = "maps memory")]
fn what_was_completed_before_a_flush_is_there_when_the_flush_is_answered() {
    for twice in [false, true] {
        let setup = Setup { twice, ..PLAIN };
        holds(&[write(0, false), Step::Flush, write(1, false)], setup);
    }
}

#[test]
#[cfg_attr(miri, ignore = "maps memory")]
fn the_first_half_of_a_write_with_fua_that_failed_is_there() {
    for fua in [false, true] {
        for seed in 0..8 {
            let setup = Setup {
                fua,
                flakey: true,
                seed,
                ..PLAIN
            };
            let script: Vec<Step> = (0..6).map(|n| write(n, true)).collect();
            holds(&script, setup);
        }
    }
}

#[test]
#[cfg_attr(miri, ignore = "maps memory")]
fn data_behind_a_preflush_is_there_only_after_what_was_completed_before() {
    let ordered = Step::Write {
        at: 4,
        len: 2,
        fua: false,
        preflush: true,
    };
    for write_back in [false, true] {
        let setup = Setup {
            write_back,
            ..PLAIN
        };
        holds(&[write(0, false), ordered, write(6, false)], setup);
    }
}
