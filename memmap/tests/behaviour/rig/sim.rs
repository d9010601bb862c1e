//! The modelled machine: what a correct core never does is seen here, and not only where it does harm.
//!
//! Speculation without accessed bits, interrupts in between, ticks often and mailboxes for two: as unfriendly as
//! the model can be. A CPU is a thread ([`SimThreadsRig`]) or one of several tasks in the same thread, interleaved
//! from a seed ([`SimScheduledRig`], [`SimPoliciesRig`]); what fails there names the seed.

use core::sync::atomic::{AtomicU64, Ordering};

use pageless_fault::MaySleep;
use pageless_fault::shootdown::{CpuId, PolicyKind, Processor};
use pageless_fault::sim::schedule::Schedule;
use pageless_fault::sim::{Cpu, SimConfig, SimMachine, SimWindow, Speculation};

use super::{Body, Rig};

/// CPUs of each machine. Not all are used by all tests: the others are idle.
const CPUS: u16 = 6;

fn machine(policy: PolicyKind, seed: u64) -> SimMachine {
    let config = SimConfig {
        cpus: CPUS,
        // 8 MiB of small chunks, eight of 64 KiB, page tables, and little more.
        frames: 2560,
        policy,
        speculation: Speculation::WithoutAccessed,
        speculate_one_in: 16,
        nmi_one_in: 8,
        tick_every: 32,
        mailbox: 2,
        seed,
        ..SimConfig::default()
    };
    SimMachine::new(config).unwrap()
}

/// What must hold when all CPUs have come to rest.
fn check(machine: &SimMachine) {
    assert_eq!(
        (machine.stale_hits(), machine.stale_walks()),
        (0, 0),
        "{}",
        told(machine)
    );
    let counters = machine.counters();
    assert_eq!(
        counters.sent,
        counters.received + counters.skipped + counters.deferred,
        "{counters:?}"
    );
}

fn told(machine: &SimMachine) -> String {
    let incidents = machine.incidents();
    let lines: Vec<String> = incidents.iter().map(ToString::to_string).collect();
    lines.join("\n")
}

/// One turn of waiting on the CPU that this body runs on.
fn pause(machine: &SimMachine) {
    machine.on_current(|cpu| cpu.relax(0)).unwrap();
}

/// An instruction takes as long as some turns of an empty loop.
fn linger(machine: &SimMachine, turns: u64) {
    for _ in 0..turns.div_ceil(8) {
        machine.on_current(Cpu::pause).unwrap();
    }
}

/// Runs `body` on one CPU after the other, each time it is asked: what the last ones have cached stays cached.
fn on_cpu<T>(machine: &SimMachine, nth: u64, body: impl FnOnce(&mut MaySleep) -> T) -> T {
    let id = CpuId::new((nth % u64::from(CPUS)) as u16);
    machine
        .run_on(id, |_| body(&mut MaySleep::claim()))
        .unwrap()
}

/// Each CPU a thread.
pub(crate) struct SimThreadsRig {
    machine: SimMachine,
    runs: AtomicU64,
}

impl Rig for SimThreadsRig {
    type Window = SimWindow;
    type Machine = SimMachine;

    const FRAMES: u64 = 1 << 18;
    const LARGEST_CHUNK: u64 = 64 << 10;
    const CROWD: u64 = CPUS as u64;
    const PER_MILLE: u64 = 30;

    fn new(time: u64) -> Self {
        SimThreadsRig {
            machine: machine(PolicyKind::ConcurrentIpi, time),
            runs: AtomicU64::new(0),
        }
    }

    fn machine(&self) -> &SimMachine {
        &self.machine
    }

    fn cpus(&self, bodies: Vec<Body<'_>>) {
        let bodies = bodies
            .into_iter()
            .map(|body| -> Box<dyn FnOnce(&Cpu) + Send> {
                Box::new(|_| body(&mut MaySleep::claim()))
            })
            .collect();
        self.machine.run_threads(bodies).unwrap();
    }

    fn pause(&self) {
        pause(&self.machine);
    }

    fn linger(&self, turns: u64) {
        linger(&self.machine, turns);
    }

    fn check(&self) {
        check(&self.machine);
    }

    fn on_cpu<T: Send>(&self, body: impl FnOnce(&mut MaySleep) -> T + Send) -> T {
        let nth = self.runs.fetch_add(1, Ordering::Relaxed);
        on_cpu(&self.machine, nth, body)
    }
}

/// All CPUs in one thread, interleaved from a seed.
struct Scheduled {
    machine: SimMachine,
    seed: u64,
    runs: AtomicU64,
}

impl Scheduled {
    fn new(policy: PolicyKind, seed: u64) -> Self {
        Scheduled {
            machine: machine(policy, seed),
            seed,
            runs: AtomicU64::new(0),
        }
    }

    fn cpus(&self, bodies: Vec<Body<'_>>) {
        let run = self.runs.fetch_add(1, Ordering::Relaxed);
        let bodies = bodies
            .into_iter()
            .map(|body| -> Box<dyn FnOnce(&Cpu)> { Box::new(|_| body(&mut MaySleep::claim())) })
            .collect();
        let schedule = Schedule::random(self.seed << 16 | run).steps_at_most(100_000_000);
        if let Err(failure) = self.machine.run_scheduled(&schedule, bodies) {
            panic!("under {}: {failure}", self.machine.config().policy.name());
        }
    }

    fn on_cpu<T>(&self, body: impl FnOnce(&mut MaySleep) -> T) -> T {
        on_cpu(
            &self.machine,
            self.runs.fetch_add(1, Ordering::Relaxed),
            body,
        )
    }
}

macro_rules! scheduled_rig {
    ($(#[$doc:meta])* $name:ident, times $times:expr, per mille $per_mille:expr, $policy:expr) => {
        $(#[$doc])*
        pub(crate) struct $name(Scheduled);

        impl Rig for $name {
            type Window = SimWindow;
            type Machine = SimMachine;

            const FRAMES: u64 = 1 << 18;
            const LARGEST_CHUNK: u64 = 64 << 10;
            const CROWD: u64 = CPUS as u64;
            const PER_MILLE: u64 = $per_mille;
            const TIMES: u64 = $times;

            fn new(time: u64) -> Self {
                let policy: fn(u64) -> PolicyKind = $policy;
                $name(Scheduled::new(policy(time), time))
            }

            fn machine(&self) -> &SimMachine {
                &self.0.machine
            }

            fn cpus(&self, bodies: Vec<Body<'_>>) {
                self.0.cpus(bodies);
            }

            fn pause(&self) {
                pause(&self.0.machine);
            }

            fn linger(&self, turns: u64) {
                linger(&self.0.machine, turns);
            }

            fn check(&self) {
                check(&self.0.machine);
            }

            fn on_cpu<T: Send>(&self, body: impl FnOnce(&mut MaySleep) -> T + Send) -> T {
                self.0.on_cpu(body)
            }
        }
    };
}

scheduled_rig! {
    /// Every test under eight schedules; interrupts as Linux sends them.
    SimScheduledRig, times 8, per mille 6, |_| PolicyKind::ConcurrentIpi
}

scheduled_rig! {
    /// Every test once under each policy that is safe with several CPUs.
    SimPoliciesRig, times SAFE.len() as u64, per mille 4, |time| SAFE[time as usize]
}

/// The policies whose word can be taken. `LocalOnly` is for one CPU: `tests/sim` has it.
const SAFE: &[PolicyKind] = &[
    PolicyKind::SyncIpi,
    PolicyKind::ConcurrentIpi,
    PolicyKind::EarlyAck,
    PolicyKind::Coalescing,
    PolicyKind::IdleSkip,
    PolicyKind::KernelRange,
    PolicyKind::Resident,
    PolicyKind::LazyPurge,
    PolicyKind::Sweep,
    PolicyKind::AtRealloc,
    PolicyKind::Broadcast,
];

#[test]
fn no_safe_policy_is_left_out() {
    let safe: Vec<PolicyKind> = PolicyKind::ALL
        .iter()
        .copied()
        .filter(|policy| policy.is_safe() && *policy != PolicyKind::LocalOnly)
        .collect();
    assert_eq!(SAFE, safe);
}
