//! Hazard: something is forgotten, or counted twice, where everything comes together: a device that is busy, slow,
//! at once or fails as it likes, gives back what has taken too long or does not, and queues with schedulers,
//! flushes, splits, merges, timeouts, freezing and quiescing.

extern crate alloc;

mod rig;

use alloc::sync::Arc;
use core::time::Duration;
use std::collections::HashSet;
use std::sync::Mutex;

use pageless_block::{
    Abort, Bio, BioFlags, BlkError, BlockDevice, Clock, Context, Done, Elevator, Features, Limits,
    ManualClock, MqDeadline, QueueConfig, QueueId, Request, RequestQueue, Sector, Submitted, Tag,
};
use pageless_pfn::ByteLen;

const TIMEOUT: Duration = Duration::from_millis(1);

struct Moody {
    fua: bool,
    state: Mutex<State>,
}

struct State {
    rng: fastrand::Rng,
    /// From now on it keeps everything, until it is polled.
    calm: bool,
    kept: Vec<Request>,
    /// Names in use, of which no two are alike.
    names: HashSet<(QueueId, Tag)>,
}

impl Moody {
    fn new(seed: u64, fua: bool) -> Self {
        let state = State {
            rng: fastrand::Rng::with_seed(seed),
            calm: false,
            kept: Vec::new(),
            names: HashSet::new(),
        };
        Self {
            fua,
            state: Mutex::new(state),
        }
    }

    fn calm_down(&self) {
        self.state.lock().unwrap().calm = true;
    }

    fn kept(&self) -> usize {
        self.state.lock().unwrap().kept.len()
    }
}

fn outcome(rng: &mut fastrand::Rng, request: Request) -> Done {
    match rng.u8(..10) {
        0 => request.complete(Err(BlkError::Medium.into())),
        _ => request.complete(Ok(())),
    }
}

impl BlockDevice for Moody {
    fn limits(&self) -> Limits {
        let mut limits = Limits::new(ByteLen::new(1 << 20));
        limits.max_request = ByteLen::new(4096);
        limits.features |= Features::WRITE_CACHE;
        limits.features.set(Features::FUA, self.fua);
        limits
    }

    fn submit(&self, request: Request) -> Submitted {
        let state = &mut *self.state.lock().unwrap();
        let name = (request.queue(), request.tag());
        assert!(!state.names.contains(&name), "{request:?} is here already");
        match state.rng.u8(..3) {
            0 if !state.calm => Submitted::Busy(request),
            1 if !state.calm => Submitted::Done(outcome(&mut state.rng, request)),
            _ => {
                state.names.insert(name);
                state.kept.push(request);
                Submitted::Kept
            }
        }
    }

    fn poll(&self, queue: QueueId, done: &mut dyn FnMut(Done)) {
        let state = &mut *self.state.lock().unwrap();
        let mut index = 0;
        while let Some(request) = state.kept.get(index) {
            if request.queue() != queue || !(state.calm || state.rng.u8(..3) == 0) {
                index += 1;
                continue;
            }
            state.names.remove(&(request.queue(), request.tag()));
            let request = state.kept.remove(index);
            done(outcome(&mut state.rng, request));
        }
    }

    fn abort(&self, queue: QueueId, tag: Tag) -> Abort {
        let state = &mut *self.state.lock().unwrap();
        let named = |one: &Request| (one.queue(), one.tag()) == (queue, tag);
        match state.kept.iter().position(named) {
            Some(at) if state.rng.bool() => {
                state.names.remove(&(queue, tag));
                Abort::Aborted(state.kept.remove(at))
            }
            _ => Abort::Running,
        }
    }
}

struct Run<'q> {
    contexts: Vec<Context<'q, Moody>>,
    rng: fastrand::Rng,
    /// What was taken in and has not come back.
    out: HashSet<u64>,
    next: u64,
}

impl Run<'_> {
    fn bio(&mut self) -> Bio {
        let token = self.next;
        self.next += 1;
        let flags = match self.rng.u8(..8) {
            0 => BioFlags::PREFLUSH,
            1 => BioFlags::FUA,
            2 => BioFlags::PREFLUSH | BioFlags::FUA,
            _ => BioFlags::empty(),
        };
        if self.rng.u8(..10) == 0 {
            return Bio::flush().with_token(token).erase();
        }
        let sector = Sector::new(self.rng.u64(..64) * 4);
        let memory = rig::memory(2048 << self.rng.u32(..4));
        let bio = match flags.is_empty() && self.rng.bool() {
            true => Bio::read(sector, memory).erase(),
            false => Bio::write(sector, memory).erase(),
        };
        bio.with_flags(flags).with_token(token)
    }

    fn submit(&mut self, plugged: bool) {
        let which = self.rng.usize(..self.contexts.len());
        let bios: Vec<Bio> = (0..self.rng.u8(1..5)).map(|_| self.bio()).collect();
        let (context, out) = (&mut self.contexts[which], &mut self.out);
        let submit_all = |context: &mut Context<'_, Moody>| {
            for bio in bios {
                let token = bio.token();
                if context.submit(bio).is_ok() {
                    assert!(out.insert(token));
                }
            }
        };
        match plugged {
            true => submit_all(&mut context.plug()),
            false => submit_all(context),
        }
    }

    fn reap(&mut self, which: usize) {
        while let Some(done) = self.contexts[which].reap() {
            assert!(self.out.remove(&done.token()), "{done:?} came back before");
        }
    }
}

fn run(seed: u64) {
    let mut rng = fastrand::Rng::with_seed(seed);
    let clock = Arc::new(ManualClock::new());
    let (hw_queues, depth) = (rng.u16(1..4), rng.u16(1..5));
    let scheduled = rng.bool();
    let config = QueueConfig {
        hw_queues,
        depth,
        elevator: scheduled.then(|| Box::new(MqDeadline::default()) as Box<dyn Elevator>),
        clock: Some(Arc::clone(&clock) as Arc<dyn Clock>),
        timeout: Some(TIMEOUT),
        io_stat: true,
        ..QueueConfig::default()
    };
    let queue = RequestQueue::try_new(Moody::new(seed, rng.bool()), config).unwrap();
    let shared = rng.bool();
    let contexts = (0..hw_queues * if shared { 2 } else { 1 }).map(|n| {
        let id = QueueId::new(n % hw_queues);
        match shared {
            true => queue.shared_context(id).unwrap(),
            false => queue.context(id).unwrap(),
        }
    });
    let mut run = Run {
        contexts: contexts.collect(),
        rng,
        out: HashSet::new(),
        next: 0,
    };
    let (mut frozen, mut quiesced) = (None, None);
    for _ in 0..120 {
        let which = run.rng.usize(..run.contexts.len());
        match run.rng.u8(..20) {
            0 => frozen = frozen.is_none().then(|| queue.freeze()),
            1 => quiesced = quiesced.is_none().then(|| queue.quiesce()),
            2..5 => clock.advance(TIMEOUT / 2),
            5..9 => run.reap(which),
            9 | 10 => run.submit(true),
            _ => run.submit(false),
        }
    }
    drop((frozen, quiesced));
    queue.device().calm_down();
    for _ in 0..1000 {
        (0..run.contexts.len()).for_each(|which| run.reap(which));
    }
    assert_eq!(run.out, HashSet::new(), "seed {seed}: never came back");
    let in_flight = run.contexts.iter().map(Context::in_flight);
    assert_eq!((queue.in_flight(), in_flight.sum::<u32>()), (0, 0));
    assert_eq!(queue.stat().unwrap().in_flight, 0);
    // The device gets as many as ever: no tag, and no place at the device, is lost.
    for context in run.contexts.iter_mut().take(usize::from(hw_queues)) {
        for n in 0..u64::from(depth) {
            context.submit(rig::sector(1000 + 8 * n)).unwrap();
        }
    }
    assert_eq!(queue.device().kept(), usize::from(hw_queues * depth));
    for context in &mut run.contexts {
        context.drain(|_| ());
    }
}

#[test]
fn everything_comes_back_once_and_nothing_is_lost_to_the_device() {
    (0..if cfg!(miri) { 2 } else { 2000 }).for_each(run);
}
