//! What a test needs of a machine beyond [`Machine`]: CPUs to run on, and to know how big it is.

use core::panic::AssertUnwindSafe;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use pageless_fault::{Machine, MaySleep, Window};

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
pub(crate) mod host;
pub(crate) mod model;
pub(crate) mod sim;

/// What one CPU does, and the right to sleep that it has there.
pub(crate) type Body<'a> = Box<dyn FnOnce(&mut MaySleep) + Send + 'a>;

/// A machine to test on. Memmaps are touched only in the bodies given to [`cpus`](Rig::cpus) and
/// [`on_cpu`](Rig::on_cpu): on some machines an access has to be made *by* somebody. (Reading counters,
/// `chunk`, `chunks` and `self_check` touch the books only.)
///
/// Bodies wait for each other through atomics and [`pause`](Rig::pause), never for a lock, a channel or a
/// join: all CPUs may share one thread.
///
/// Its windows give leaf tables back (on Linux, from 6.14 on): budgets here are reckoned with them.
pub(crate) trait Rig: Sync + Sized {
    type Window: Window + 'static;
    type Machine: Machine<Window = Self::Window>;

    /// Frames under the widest memmap: at least 2^18, 16 MiB of window.
    const FRAMES: u64;
    /// Bytes of the largest chunk: at least 64 KiB. Memory for eight of them and for 8 MiB of small
    /// chunks is enough.
    const LARGEST_CHUNK: u64;
    /// The most CPUs that a test brings together: at least 5.
    const CROWD: u64;
    /// How many of a thousand rounds of a stress test are made here.
    const PER_MILLE: u64;
    /// How often each test is run, each time on another machine.
    const TIMES: u64 = 1;

    /// The machine for the `time`-th time, from 0.
    fn new(time: u64) -> Self;

    fn machine(&self) -> &Self::Machine;

    /// Runs each body on a CPU of its own, all at the same time, until the last one has ended. A panic in
    /// one of them continues in the caller, when all have ended. Not to be called from a body.
    fn cpus(&self, bodies: Vec<Body<'_>>);

    /// Gives the other CPUs a turn.
    fn pause(&self);

    /// Spends about as long as `turns` turns of an empty loop, during which others run.
    fn linger(&self, turns: u64) {
        for _ in 0..turns {
            core::hint::spin_loop();
        }
    }

    /// Fails the test if the machine has seen what no correct core does, whatever the core itself noticed.
    fn check(&self) {}

    /// Runs `body` on a CPU while all others are idle.
    fn on_cpu<T: Send>(&self, body: impl FnOnce(&mut MaySleep) -> T + Send) -> T {
        let mut result = None;
        self.cpus(vec![cpu(|ctx| result = Some(body(ctx)))]);
        result.expect("a body that ended without a panic")
    }

    /// How many rounds of `full` a stress test makes here.
    fn rounds(full: u64) -> u64 {
        (full * Self::PER_MILLE / 1000).max(1)
    }
}

/// Runs one test, as often as the rig says.
pub(crate) fn run<R: Rig>(test: fn(&R)) {
    for time in 0..R::TIMES {
        let _told = Told(time);
        let rig = R::new(time);
        test(&rig);
        rig.check();
    }
}

/// Says which time it was that a test failed.
struct Told(u64);

impl Drop for Told {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("that was time {} of this test", self.0);
        }
    }
}

/// What a CPU is to do.
pub(crate) fn cpu<'a>(body: impl FnOnce(&mut MaySleep) + Send + 'a) -> Body<'a> {
    Box::new(body)
}

/// [`Rig::cpus`] where any thread is a CPU. A single body runs in the calling thread.
pub(crate) fn threads(mut bodies: Vec<Body<'_>>) {
    let Some(last) = bodies.pop() else {
        return;
    };
    let run = |body: Body<'_>| {
        std::panic::catch_unwind(AssertUnwindSafe(|| body(&mut MaySleep::claim())))
    };
    let ends: Vec<_> = std::thread::scope(|scope| {
        let others: Vec<_> = bodies
            .into_iter()
            .map(|body| scope.spawn(move || run(body)))
            .collect();
        let last = run(last);
        others
            .into_iter()
            .map(|other| other.join().and_then(|end| end))
            .chain([last])
            .collect()
    });
    for end in ends {
        if let Err(panic) = end {
            std::panic::resume_unwind(panic);
        }
    }
}

/// Raised once, and says nothing else: nobody reads behind it what was written before.
#[derive(Default)]
pub(crate) struct Signal(AtomicBool);

impl Signal {
    pub(crate) fn raise(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_raised(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Raises it when the guard goes: the others end even if this CPU panics.
    pub(crate) fn raise_at_end(&self) -> impl Drop + '_ {
        struct AtEnd<'a>(&'a Signal);
        impl Drop for AtEnd<'_> {
            fn drop(&mut self) {
                self.0.raise();
            }
        }
        AtEnd(self)
    }
}

/// Where CPUs meet, so that they begin together.
pub(crate) struct Meeting {
    missing: AtomicU64,
}

impl Meeting {
    pub(crate) fn of(cpus: u64) -> Self {
        Meeting {
            missing: AtomicU64::new(cpus),
        }
    }

    pub(crate) fn wait<R: Rig>(&self, rig: &R) {
        self.missing.fetch_sub(1, Ordering::Relaxed);
        while self.missing.load(Ordering::Relaxed) > 0 {
            rig.pause();
        }
    }
}
