//! Mapping and unmapping 16 frames on the simulated machine, lazily and eagerly. No nanosecond in here was measured: they are what the table
//! of costs adds up to. The books cost nothing there: what is counted is entries, walks, flushes and interrupts.

use super::host;
use comfy_table::{ContentArrangement, Table, presets};
use core::cell::{Cell, RefCell};
use pageless_fault::shootdown::{PolicyKind, Processor};
use pageless_fault::sim::schedule::Schedule;
use pageless_fault::sim::{Costs, Cpu, SimConfig, SimMachine};
use pageless_fault::{Protection, Vspace, WindowLen};
use pageless_pfn::FrameCount;
use pageless_vmap::area::{NoDescriptors, Vmalloc, VmallocConfig};

const PAGES: u64 = 16;
/// Areas of a run that shoots down for each.
const EAGER_AREAS: u64 = 100;
/// What a CPU with nothing to do does between two looks for interrupts, in modelled nanoseconds.
const PACE: u64 = 200;

/// A table of costs, and how far it can be trusted.
pub(crate) struct Priced {
    pub(crate) name: &'static str,
    pub(crate) costs: fn(u16) -> Costs,
}

/// The two tables that everything here is worked out with.
pub(crate) const PRICED: [Priced; 2] = [
    Priced {
        name: "one socket of a Haswell of 2019, calibrated with up to 4 CPUs and NOT beyond",
        costs: |_| Costs::HASWELL_2019,
    },
    Priced {
        name: "two modern sockets with half of the CPUs each, NOT calibrated",
        costs: Costs::two_modern_sockets,
    },
];

/// Runs `work` on CPU 0 of a machine of `cpus` CPUs while all others run and do nothing but serve interrupts.
pub(crate) fn beside_running_cpus(machine: &SimMachine, cpus: u16, work: impl FnOnce(&Cpu)) {
    let done = Cell::new(false);
    let worker: Box<dyn FnOnce(&Cpu) + '_> = Box::new(|cpu: &Cpu| {
        work(cpu);
        done.set(true);
    });
    let others = (1..cpus).map(|_| {
        let body: Box<dyn FnOnce(&Cpu) + '_> = Box::new(|cpu: &Cpu| {
            while !done.get() {
                cpu.advance_to(cpu.now() + PACE);
                cpu.pause();
            }
        });
        body
    });
    let bodies = core::iter::once(worker).chain(others).collect();
    let schedule = Schedule::by_clock(0).steps_at_most(u64::MAX);
    if let Err(failure) = machine.run_scheduled(&schedule, bodies) {
        panic!("{failure}");
    }
    assert_eq!(machine.stale_hits(), 0, "{:?}", machine.incidents());
}

/// A machine of which everything but the CPUs and the costs is as always.
pub(crate) fn machine(cpus: u16, frames: u32, costs: Costs) -> SimMachine {
    SimMachine::new(SimConfig {
        cpus,
        frames,
        costs,
        policy: PolicyKind::ConcurrentIpi,
        patience: u32::MAX,
        ..SimConfig::default()
    })
    .unwrap()
}

/// Modelled ns of one area, on average, and areas of the run.
struct Cycle {
    areas: u64,
    map: f64,
    unmap: f64,
    /// Most of the time.
    usual: u64,
    longest: u64,
}

fn cycle(cpus: u16, costs: Costs, eager: bool) -> Cycle {
    let machine = machine(cpus, 4096, costs);
    let ram = machine.ram(FrameCount::new(64)).unwrap();
    let len = WindowLen::covering(1 << 29).unwrap();
    let space = machine.reserve_vspace(len).unwrap();
    let frames = host::scattered(&ram, 0, PAGES);
    let config = VmallocConfig::for_cpus(cpus);
    let config = if eager { config.eager() } else { config };
    let vmalloc = Vmalloc::new(space, NoDescriptors, config);
    let taken = RefCell::new((0, Vec::new()));
    beside_running_cpus(&machine, cpus, |cpu| {
        let ctx = host::ctx();
        let (map, unmaps) = &mut *taken.borrow_mut();
        // Lazily, one whole cycle: up to and with the purge.
        while unmaps.len() < EAGER_AREAS as usize || vmalloc.counters().purges == 0 {
            let begun = cpu.now();
            let address = vmalloc.vmap(&ctx, &frames, Protection::ReadWrite).unwrap();
            *map += cpu.now() - begun;
            for page in 0..PAGES {
                let at = vmalloc.space().offset_of(address).unwrap();
                let at = at.checked_add(page * 4096).unwrap();
                vmalloc.space().write(at, &[1; 8]).unwrap();
            }
            let begun = cpu.now();
            vmalloc.vunmap(&ctx, address).unwrap();
            unmaps.push(cpu.now() - begun);
        }
    });
    let (map, mut unmaps) = taken.into_inner();
    unmaps.sort_unstable();
    let areas = unmaps.len() as u64;
    Cycle {
        areas,
        map: map as f64 / areas as f64,
        unmap: unmaps.iter().sum::<u64>() as f64 / areas as f64,
        usual: unmaps[unmaps.len() / 2],
        longest: unmaps[unmaps.len() - 1],
    }
}

/// Prints the tables of this section.
pub(crate) fn print() {
    for priced in &PRICED {
        println!(
            "\nmodelled: map + unmap of 16 scattered frames, {}\n",
            priced.name
        );
        let mut table = Table::new();
        table
            .load_preset(presets::ASCII_MARKDOWN)
            .set_content_arrangement(ContentArrangement::Disabled)
            .set_header([
                "CPUs",
                "map, modelled ns",
                "eager unmap, modelled ns",
                "lazy unmap with its share of the purge, modelled ns",
                "the same, most callers",
                "the same, who purges",
                "areas for each purge",
                "eager / lazy, unmap",
                "eager / lazy, map + unmap",
            ]);
        for cpus in [2, 8, 64] {
            let costs = (priced.costs)(cpus);
            let (lazy, eager) = (cycle(cpus, costs, false), cycle(cpus, costs, true));
            table.add_row([
                cpus.to_string(),
                format!("{:.0}", lazy.map),
                format!("{:.0}", eager.unmap),
                format!("{:.0}", lazy.unmap),
                lazy.usual.to_string(),
                lazy.longest.to_string(),
                lazy.areas.to_string(),
                format!("{:.1}x", eager.unmap / lazy.unmap),
                format!(
                    "{:.1}x",
                    (eager.map + eager.unmap) / (lazy.map + lazy.unmap)
                ),
            ]);
        }
        println!("{table}");
    }
}
