//! CPUs that map, touch and unmap the same few pages at random, as hard on the protocol as they can be: few frames, the
//! last one freed handed out first, and no page that is not everybody's.

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use pageless_fault::shootdown::{PolicyKind, SpaceId};
use pageless_fault::sim::schedule::{Failure, Run, Schedule};
use pageless_fault::sim::{Cpu, SimConfig, SimMachine, SimWindow, Speculation, Unmapped};
use pageless_fault::{Machine, WindowLen};
use x86_64::structures::paging::PageTableFlags as Flags;

/// Pages that all CPUs fight over.
const PAGES: u64 = 8;
/// Windows that a machine has room for.
const WINDOWS: u16 = 64;

pub(crate) struct Fight {
    pub(crate) machine: SimMachine,
    /// One for all; or, where only the CPU that owns a window may touch it, one for each.
    windows: Vec<SimWindow>,
    /// Held by the CPU that changes the entry of the page.
    changing: Vec<[AtomicBool; PAGES as usize]>,
    pub(crate) done: AtomicU64,
    /// One in how many operations is a nap; 0 for none.
    naps: u32,
}

/// A machine for a fight: speculation on, ticks often, mailboxes small.
pub(crate) fn config(cpus: u16, policy: PolicyKind, seed: u64) -> SimConfig {
    SimConfig {
        cpus,
        // Page tables, the pages, and little more: a frame that is freed is used again at once.
        frames: if policy == PolicyKind::LocalOnly {
            4 + u32::from(cpus.min(WINDOWS)) * (PAGES as u32 + 3)
        } else {
            4 + PAGES as u32 + 4
        },
        policy,
        lazy_most: 3,
        speculation: Speculation::WithoutAccessed,
        speculate_one_in: 24,
        // Often: on many CPUs an early acknowledgement hurts seldom enough.
        nmi_one_in: 2,
        tick_every: 16,
        mailbox: 2,
        seed,
        ..SimConfig::default()
    }
}

impl Fight {
    pub(crate) fn new(config: SimConfig) -> Self {
        let machine = SimMachine::new(config).unwrap();
        let windows = if config.policy == PolicyKind::LocalOnly {
            config.cpus.min(WINDOWS)
        } else {
            1
        };
        let len = WindowLen::covering(PAGES * 4096).unwrap();
        let windows = (0..windows)
            .map(|_| machine.reserve(len, 4096).unwrap())
            .collect();
        Fight {
            machine,
            changing: (0..config.cpus.min(WINDOWS))
                .map(|_| Default::default())
                .collect(),
            windows,
            done: AtomicU64::new(0),
            naps: 97,
        }
    }

    fn va(&self, window: usize, page: u64) -> u64 {
        self.windows[window].base() + page * 4096
    }

    /// What one CPU does: `operations` of them.
    pub(crate) fn fight(&self, cpu: &Cpu, operations: u64, seed: u64) {
        let mut random = fastrand::Rng::with_seed(seed ^ (u64::from(cpu.id().get()) * 0x9e37_79b9));
        let mut limbo = Vec::new();
        let window = cpu.id().index() % self.windows.len();
        for _ in 0..operations {
            let page = random.u64(..PAGES);
            let va = self.va(window, page) + random.u64(..512) * 8;
            match random.u32(..16) {
                // Touch: a fault is an answer.
                0..=6 => drop(cpu.load(va)),
                7..=10 => drop(cpu.store(va, u64::from(cpu.id().get()))),
                11..=13 => self.change(cpu, window, page, &mut limbo),
                14 if self.naps > 0 && random.u32(..self.naps) == 0 => cpu.idle(random.u32(1..4)),
                14 => cpu.with_interrupts_off(|| {
                    let _ = cpu.load(va);
                    let _ = cpu.load(va);
                }),
                _ => {
                    limbo = self.collect(cpu, limbo);
                    // Nobody may hoard what others need.
                    while limbo.len() > 4 {
                        let oldest = limbo.remove(0);
                        self.free(cpu, oldest);
                    }
                }
            }
        }
        for unmapped in limbo {
            self.free(cpu, unmapped);
        }
        self.done.fetch_add(operations, Ordering::Relaxed);
    }

    fn free(&self, cpu: &Cpu, unmapped: Unmapped) {
        if let Err((_, error)) = unmapped.free(&self.machine, cpu) {
            panic!("{error}");
        }
    }

    fn collect(&self, cpu: &Cpu, limbo: Vec<Unmapped>) -> Vec<Unmapped> {
        limbo
            .into_iter()
            .filter_map(|unmapped| unmapped.try_free(&self.machine, cpu).err())
            .collect()
    }

    /// Unmaps the page if it is mapped, maps a fresh frame if not.
    fn change(&self, cpu: &Cpu, window: usize, page: u64, limbo: &mut Vec<Unmapped>) {
        let changing = &self.changing[window][page as usize];
        if changing.swap(true, Ordering::Acquire) {
            return;
        }
        let va = self.va(window, page);
        let flags = Flags::PRESENT | Flags::WRITABLE | Flags::GLOBAL;
        match self.machine.unmap(cpu, SpaceId::EVERY, va) {
            Some(unmapped) if unmapped.pending().is_deferred() => {
                self.machine.park(cpu, unmapped).unwrap();
            }
            Some(unmapped) => limbo.push(unmapped),
            None => {
                if let Some(frame) = self.machine.alloc_on(cpu).unwrap() {
                    self.machine
                        .map_with(SpaceId::EVERY, va, frame, flags)
                        .unwrap();
                }
            }
        }
        changing.store(false, Ordering::Release);
    }

    /// `operations` on each CPU, interleaved by `schedule`.
    pub(crate) fn scheduled(
        &self,
        schedule: &Schedule,
        operations: u64,
        seed: u64,
    ) -> Result<Run, Box<Failure>> {
        let bodies = (0..self.machine.config().cpus)
            .map(|_| {
                let body: Box<dyn FnOnce(&Cpu) + '_> =
                    Box::new(move |cpu: &Cpu| self.fight(cpu, operations, seed));
                body
            })
            .collect();
        self.machine.run_scheduled(schedule, bodies)
    }

    /// `operations` on each CPU, each a thread.
    pub(crate) fn threads(&self, operations: u64, seed: u64) {
        let bodies = (0..self.machine.config().cpus)
            .map(|_| {
                let body: Box<dyn FnOnce(&Cpu) + Send + '_> =
                    Box::new(move |cpu: &Cpu| self.fight(cpu, operations, seed));
                body
            })
            .collect();
        self.machine.run_threads(bodies).unwrap();
    }

    /// What must hold at the end, whoever fought.
    pub(crate) fn assert_balanced(&self) {
        let counters = self.machine.counters();
        assert_eq!(
            counters.sent,
            counters.received + counters.skipped + counters.deferred,
            "{counters:?}"
        );
    }
}
