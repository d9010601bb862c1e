//! The modelled machine: a stale translation is seen, and not only where it does harm.

use alloc::sync::Arc;
use core::sync::atomic::{AtomicU64, Ordering};

use pageless_fault::shootdown::{CpuId, PolicyKind, Processor};
use pageless_fault::sim::schedule::Schedule;
use pageless_fault::sim::{Cpu, SimConfig, SimMachine, SimRam, SimVspace, SimWindow, Speculation};
use pageless_fault::{MaySleep, WindowLen};
use pageless_pfn::FrameCount;

use super::{Body, Rig};

/// CPUs of each machine.
const CPUS: u16 = 4;
/// Frames to show.
const RAM: u64 = 1024;

struct World {
    machine: SimMachine,
    ram: Arc<SimRam>,
    runs: AtomicU64,
}

impl World {
    fn new(policy: PolicyKind, seed: u64) -> Self {
        let config = SimConfig {
            cpus: CPUS,
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
        let machine = SimMachine::new(config).unwrap();
        let ram = machine.ram(FrameCount::new(RAM)).unwrap();
        World {
            machine,
            ram: Arc::new(ram),
            runs: AtomicU64::new(0),
        }
    }

    fn space(&self, pages: u64) -> SimVspace {
        let len = WindowLen::covering(pages * 4096).unwrap();
        self.machine.reserve_vspace(len).unwrap()
    }

    /// One CPU after the other, each time it is asked: what the last ones have cached stays cached.
    fn on_cpu<T>(&self, body: impl FnOnce(&mut MaySleep) -> T) -> T {
        let nth = self.runs.fetch_add(1, Ordering::Relaxed);
        let id = CpuId::new((nth % u64::from(CPUS)) as u16);
        self.machine
            .run_on(id, |_| body(&mut MaySleep::claim()))
            .unwrap()
    }

    fn pause(&self) {
        self.machine.on_current(|cpu| cpu.relax(0)).unwrap();
    }

    fn check(&self) {
        let incidents = self.machine.incidents();
        let told: Vec<String> = incidents.iter().map(ToString::to_string).collect();
        assert_eq!(
            (self.machine.stale_hits(), self.machine.stale_walks()),
            (0, 0),
            "{}",
            told.join("\n")
        );
    }
}

/// The policies whose word can be taken: `LocalOnly` is for one CPU.
fn safe() -> Vec<PolicyKind> {
    let several = |policy: &PolicyKind| policy.is_safe() && *policy != PolicyKind::LocalOnly;
    PolicyKind::ALL.iter().copied().filter(several).collect()
}

/// How many times as many schedules are to be run: `PAGELESS_SEEDS`.
fn seeds() -> u64 {
    let asked = std::env::var("PAGELESS_SEEDS").ok();
    asked.and_then(|n| n.parse().ok()).unwrap_or(1)
}

fn threads(world: &World, _seed: u64, bodies: Vec<Body<'_>>) {
    let bodies = bodies
        .into_iter()
        .map(|body| -> Box<dyn FnOnce(&Cpu) + Send> { Box::new(|_| body(&mut MaySleep::claim())) })
        .collect();
    world.machine.run_threads(bodies).unwrap();
}

fn scheduled(world: &World, seed: u64, bodies: Vec<Body<'_>>) {
    let run = world.runs.fetch_add(1, Ordering::Relaxed);
    let bodies = bodies
        .into_iter()
        .map(|body| -> Box<dyn FnOnce(&Cpu)> { Box::new(|_| body(&mut MaySleep::claim())) })
        .collect();
    let schedule = Schedule::random(seed << 16 | run).steps_at_most(100_000_000);
    if let Err(failure) = world.machine.run_scheduled(&schedule, bodies) {
        panic!("under {}: {failure}", world.machine.config().policy.name());
    }
}

macro_rules! rig {
    (
        $(#[$doc:meta])* $name:ident,
        times $times:expr, per mille $per_mille:expr, $policy:expr, $cpus:ident
    ) => {
        $(#[$doc])*
        pub(crate) struct $name(World, u64);

        impl Rig for $name {
            type Space = SimVspace;
            type Window = SimWindow;
            type Machine = SimMachine;
            type Memory = SimRam;

            fn times() -> u64 {
                $times
            }

            const PER_MILLE: u64 = $per_mille;

            fn new(time: u64) -> Self {
                let policy: fn(u64) -> PolicyKind = $policy;
                $name(World::new(policy(time), time), time)
            }

            fn machine(&self) -> &SimMachine {
                &self.0.machine
            }

            fn memory(&self) -> &Arc<SimRam> {
                &self.0.ram
            }

            fn space(&self, pages: u64) -> SimVspace {
                self.0.space(pages)
            }

            fn cpus(&self, bodies: Vec<Body<'_>>) {
                $cpus(&self.0, self.1, bodies);
            }

            fn pause(&self) {
                self.0.pause();
            }

            fn check(&self) {
                self.0.check();
            }

            fn on_cpu<T: Send>(&self, body: impl FnOnce(&mut MaySleep) -> T + Send) -> T {
                self.0.on_cpu(body)
            }
        }
    };
}

rig! {
    /// Each CPU a thread.
    SimThreadsRig, times seeds(), per mille 100, |_| PolicyKind::ConcurrentIpi, threads
}

rig! {
    /// All CPUs in one thread, interleaved from a seed.
    SimScheduledRig, times 8 * seeds(), per mille 10, |_| PolicyKind::ConcurrentIpi, scheduled
}

rig! {
    /// Every test once under each policy that is safe with several CPUs.
    SimPoliciesRig, times safe().len() as u64, per mille 8, |time| safe()[time as usize], scheduled
}
