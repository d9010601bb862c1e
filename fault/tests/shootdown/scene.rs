//! A few CPUs, a few pages, one race: run under many schedules, and every failure cut down to the few switches that
//! matter.

use pageless_fault::shootdown::SpaceId;
use pageless_fault::sim::schedule::{Failure, Program, Schedule, explore, shrink};
use pageless_fault::sim::{Cpu, SimConfig, SimMachine, SimWindow, Unmapped};
use pageless_fault::{Machine, WindowLen};
use x86_64::structures::paging::PageTableFlags as Flags;

/// Random schedules for each scene.
const SEEDS: u64 = 400;
/// Explored schedules for each scene, at most.
const EXPLORED: u64 = 4_000;

pub(crate) struct Scene {
    pub(crate) machine: SimMachine,
    window: SimWindow,
}

impl Scene {
    pub(crate) fn new(config: SimConfig) -> Self {
        let machine = SimMachine::new(config).unwrap();
        let window = machine
            .reserve(WindowLen::covering(1 << 16).unwrap(), 4096)
            .unwrap();
        Scene { machine, window }
    }

    pub(crate) fn va(&self, page: u64) -> u64 {
        self.window.base() + page * 4096
    }

    /// Maps a fresh frame there, filled with `value`.
    pub(crate) fn map(&self, page: u64) {
        let frame = self.machine.alloc().unwrap();
        let flags = Flags::PRESENT | Flags::WRITABLE | Flags::GLOBAL;
        self.machine
            .map_with(SpaceId::EVERY, self.va(page), frame, flags)
            .unwrap();
    }

    pub(crate) fn unmap(&self, cpu: &Cpu, page: u64) -> Unmapped {
        self.machine
            .unmap(cpu, SpaceId::EVERY, self.va(page))
            .expect("a mapped page")
    }

    /// Unmaps the page, waits, and frees its frame.
    pub(crate) fn unmap_and_free(&self, cpu: &Cpu, page: u64) {
        let unmapped = self.unmap(cpu, page);
        if let Err((_, error)) = unmapped.free(&self.machine, cpu) {
            panic!("{error}");
        }
    }

    pub(crate) fn assert_clean(&self) {
        let incidents = self.machine.incidents();
        assert!(incidents.is_empty(), "{}", incidents[0]);
        let counters = self.machine.counters();
        assert_eq!(
            counters.sent,
            counters.received + counters.skipped + counters.deferred,
            "{counters:?}"
        );
    }
}

/// What one CPU does in a scene.
pub(crate) type Role = fn(&Scene, &Cpu);

/// Plays the roles, the `n`-th on CPU `n`, under every schedule with one preemption (as far as they go) and under some hundred
/// random ones. `prepare` runs first, on CPU 0 alone.
pub(crate) fn play(config: SimConfig, prepare: Role, roles: &[Role]) {
    let make = || program(config, prepare, roles);
    let explored = explore(1, EXPLORED, make);
    if let Some(failure) = explored.failure {
        report(failure, make);
    }
    for seed in 0..SEEDS {
        let schedule = Schedule::random(seed).preempt_one_in(2 + seed as u32 % 6);
        if let Err(failure) = schedule.run(make()) {
            report(failure, make);
        }
    }
}

fn program<'a>(config: SimConfig, prepare: Role, roles: &'a [Role]) -> Program<'a> {
    let scene = alloc::rc::Rc::new(Scene::new(config));
    let cpu = scene
        .machine
        .cpu(pageless_fault::shootdown::CpuId::new(0))
        .unwrap();
    prepare(&scene, &cpu);
    drop(cpu);
    let bodies = roles
        .iter()
        .map(|role| {
            let scene = alloc::rc::Rc::clone(&scene);
            let body: Box<dyn FnOnce(&Cpu) + 'a> = Box::new(move |cpu: &Cpu| role(&scene, cpu));
            body
        })
        .collect();
    let tasks = scene.machine.tasks(bodies).unwrap();
    (tasks, move || scene.assert_clean()).into()
}

fn report<'a>(failure: Box<Failure>, make: impl Fn() -> Program<'a>) -> ! {
    let shrunk = shrink(failure, make);
    panic!("{}", shrunk.failure);
}
