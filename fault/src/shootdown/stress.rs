//! All parts together on threads: two initiators take entries away from one CPU that walks, sleeps, wakes,
//! switches and leaves as it likes. An entry holds a version; a version below `reused` is somebody else's
//! by now, and the CPU must never use one.

use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::{
    CpuId, Generation, Letter, Mailbox, Presence, Residency, Served, SpaceGeneration, SpaceId,
    Stamp, Tickets,
};

const CPU: CpuId = CpuId::new(0);
const HERE: SpaceId = SpaceId::new(1);
const INITIATORS: usize = 2;

/// How an initiator asks for a flush.
#[derive(Debug, Clone, Copy)]
enum Asks {
    ByMailbox,
    ByTicket,
}

struct World {
    presence: Presence,
    generation: SpaceGeneration,
    residency: Residency,
    mailbox: Mailbox,
    tickets: Tickets,
    /// Relaxed, both: only the parts above order them.
    entries: [AtomicU64; INITIATORS],
    reused: [AtomicU64; INITIATORS],
    finished: AtomicU64,
    /// The CPU has failed: nobody must wait for it.
    failed: AtomicBool,
}

/// Counts an initiator that has ended, also one that failed.
struct Finished<'a>(&'a World);

impl Drop for Finished<'_> {
    fn drop(&mut self) {
        self.0.finished.fetch_add(1, Ordering::Release);
    }
}

/// Tells the initiators that the CPU is no more.
struct Failed<'a>(&'a World);

impl Drop for Failed<'_> {
    fn drop(&mut self) {
        self.0.failed.store(true, Ordering::Relaxed);
    }
}

impl World {
    fn new(capacity: u16) -> Arc<Self> {
        Arc::new(World {
            presence: Presence::running(HERE),
            generation: SpaceGeneration::new(),
            residency: Residency::new(1),
            mailbox: Mailbox::new(capacity),
            tickets: Tickets::new(1),
            entries: core::array::from_fn(|_| AtomicU64::new(0)),
            reused: core::array::from_fn(|_| AtomicU64::new(0)),
            finished: AtomicU64::new(0),
            failed: AtomicBool::new(false),
        })
    }

    /// Initiator `n`: maps version after version, and reuses the one before, until it had to interrupt the
    /// CPU `interrupts` times.
    fn initiate(&self, n: usize, asks: Asks, mut interrupts: u64) {
        let _finished = Finished(self);
        let mut version = 0;
        while interrupts > 0 && !self.failed.load(Ordering::Relaxed) {
            version += 1;
            self.entries[n].swap(version, Ordering::Relaxed);
            let bumped = self.generation.bump();
            if self.residency.targets().contains(CPU) && self.presence.must_interrupt(HERE, &bumped)
            {
                interrupts -= 1;
                match asks {
                    Asks::ByMailbox => {
                        let letter = Letter([n as u64; 4]);
                        let receipt = self.mailbox.post(letter, Stamp::ZERO);
                        self.wait(|| self.mailbox.is_acked(receipt));
                    }
                    Asks::ByTicket => {
                        let ticket = self.tickets.take();
                        self.wait(|| self.tickets.is_done(CPU, ticket));
                    }
                }
            } else {
                std::thread::yield_now();
            }
            self.reused[n].store(version, Ordering::Relaxed);
        }
    }

    fn wait(&self, done: impl Fn() -> bool) {
        while !done() && !self.failed.load(Ordering::Relaxed) {
            std::thread::yield_now();
        }
    }

    fn run_cpu(&self, seed: u64) {
        let _failed = Failed(self);
        let mut random = fastrand::Rng::with_seed(seed);
        let mut cached = [None; INITIATORS];
        let mut flushed = Generation::ZERO;
        while self.finished.load(Ordering::Acquire) < INITIATORS as u64 {
            match random.u8(..16) {
                0 => {
                    self.presence.sleep();
                    if random.u8(..8) == 0 {
                        std::thread::yield_now();
                    }
                    let awake = self.presence.wake();
                    if let Some(current) = awake.behind(&self.generation, flushed) {
                        cached = [None; INITIATORS];
                        flushed = current;
                    }
                }
                1 => {
                    let switch = self.presence.begin_switch(HERE);
                    if let Some(current) = switch.behind(&self.generation, flushed) {
                        cached = [None; INITIATORS];
                        flushed = current;
                    }
                    self.presence.end_switch(switch);
                }
                2 => {
                    cached = [None; INITIATORS];
                    self.residency.leave(CPU);
                    if random.u8(..8) == 0 {
                        std::thread::yield_now();
                    }
                }
                // Where all threads share a processor, the others seldom meet it awake otherwise.
                3 => std::thread::yield_now(),
                _ => {}
            }
            if self.mailbox.pending() {
                self.mailbox.serve(Stamp::ZERO, |served| {
                    match served {
                        Served::Request { letter, .. } => cached[letter.0[0] as usize] = None,
                        Served::Everything { .. } => cached = [None; INITIATORS],
                    }
                    Stamp::ZERO
                });
            }
            if self.tickets.pending(CPU) {
                self.tickets.serve(CPU, || cached = [None; INITIATORS]);
            }
            // One instruction: nothing is served between translation and effect.
            for (n, cached) in cached.iter_mut().enumerate() {
                let version = *cached.get_or_insert_with(|| {
                    self.residency.enter(CPU);
                    self.entries[n].load(Ordering::Relaxed)
                });
                let reused = self.reused[n].load(Ordering::Relaxed);
                assert!(
                    version >= reused,
                    "a stale hit: version {version} of entry {n}, and {reused} is in use"
                );
            }
        }
    }
}

#[test]
fn a_cpu_that_comes_and_goes_never_uses_what_is_reused() {
    let interrupts = if cfg!(miri) { 4 } else { 100 };
    let all: &[_] = &[
        [Asks::ByMailbox; 2],
        [Asks::ByTicket; 2],
        [Asks::ByMailbox, Asks::ByTicket],
    ];
    for (seed, (asks, capacity)) in (0..).zip(all.iter().zip([1, 2, 1])) {
        let world = World::new(capacity);
        let initiators: [_; INITIATORS] = core::array::from_fn(|n| {
            let (world, asks) = (Arc::clone(&world), asks[n]);
            std::thread::spawn(move || world.initiate(n, asks, interrupts))
        });
        world.run_cpu(seed);
        for initiator in initiators {
            initiator.join().unwrap();
        }
    }
}
