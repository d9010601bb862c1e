//! The same memmap on this process's own MMU and on the modelled machine, chosen by type; and on the second one a race
//! that comes out the same in every run.
//!
//! `cargo run --release --example memmap_on_sim -- --seed 42`

extern crate alloc;

mod stdout;

use alloc::rc::Rc;
use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;
use pageless::fault::host::HostMachine;
use pageless::fault::shootdown::CpuId;
use pageless::fault::sim::schedule::Schedule;
use pageless::fault::sim::{ScheduledBody, SimConfig, SimMachine, Speculation};
use pageless::fault::{Machine, MaySleep, Window};
use pageless::memmap::{Budget, ChunkSize, Config, Memmap, Owner};
use pageless::pfn::{FrameCount, PagedPfn, Pfn, PfnFlags, PfnRange, PfnT};

type Outcome<T> = Result<T, Box<dyn core::error::Error>>;

/// Looks the same descriptors up on two machines, and then on four CPUs at once.
#[derive(Debug, Parser)]
struct Arguments {
    /// Decides in which order the four CPUs run.
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
}

/// Frames of the device: 1 GiB.
const FRAMES: u64 = 1 << 18;

fn attach<M: Machine>(machine: &M) -> Outcome<Memmap<M::Window>> {
    let device = PfnRange::try_new(Pfn::try_new(1 << 30)?, FrameCount::new(FRAMES))?;
    let chunk = ChunkSize::MIN;
    let config = Config {
        chunk,
        budget: Budget::new(64 << 10, chunk)?,
        reserve_chunks: 0,
        fill_ahead: 1,
    };
    Ok(Memmap::attach(machine, device, config)?)
}

fn frame(index: u64) -> Outcome<PagedPfn> {
    let pfn = Pfn::try_new((1 << 30) + index % FRAMES)?;
    Ok(PfnT::new(pfn, PfnFlags::DEV | PfnFlags::MAP).paged()?)
}

/// Looks descriptors up all over the device, from `first` on, and holds one of them meanwhile.
fn tour<W: Window>(memmap: &Memmap<W>, first: u64, turns: u64) -> Outcome<()> {
    let ctx = MaySleep::claim();
    let held = memmap.get(&ctx, frame(first)?)?;
    held.set_owner(Owner(7));
    for turn in 0..turns {
        drop(memmap.get(&ctx, frame(first + turn * 4099)?)?);
    }
    assert_eq!(held.owner(), Owner(7));
    Ok(())
}

fn tell<W: Window>(out: &mut dyn Write, machine: &str, memmap: &Memmap<W>) -> io::Result<()> {
    let seen = memmap.counters();
    writeln!(
        out,
        "{machine:4}  {} chunks populated, {} reclaimed with {} shootdowns, at most {} KiB",
        seen.chunks_populated,
        seen.chunks_reclaimed,
        seen.shootdowns,
        seen.used_bytes_peak >> 10
    )
}

fn main() -> ExitCode {
    let Arguments { seed } = Arguments::parse();
    stdout::speaking(|out| run(seed, out))
}

fn run(seed: u64, out: &mut dyn Write) -> Outcome<()> {
    // The process's own MMU.
    let memmap = attach(&HostMachine::new()?)?;
    tour(&memmap, 0, 1000)?;
    tell(out, "host", &memmap)?;

    // The modelled machine. Memory can be accessed only on one of its CPUs.
    let config = SimConfig {
        cpus: 4,
        frames: 256,
        speculation: Speculation::Marked,
        ..SimConfig::default()
    };
    let machine = SimMachine::new(config)?;
    let memmap = attach(&machine)?;
    machine.run_on(CpuId::new(0), |_| tour(&memmap, 0, 1000))??;
    tell(out, "sim", &memmap)?;

    // Four CPUs at once, in an order that follows from the seed.
    let machine = SimMachine::new(config)?;
    let memmap = Rc::new(attach(&machine)?);
    let bodies = (0..4).map(|cpu| -> ScheduledBody<'_> {
        let memmap = Rc::clone(&memmap);
        Box::new(move |_| tour(&memmap, cpu * 60_000, 200).expect("there is memory enough"))
    });
    let run = machine.run_scheduled(&Schedule::random(seed), bodies.collect())?;
    tell(out, "race", &memmap)?;
    writeln!(
        out,
        "      {} steps, {} switches, the same in every run with seed {seed}",
        run.steps, run.switches
    )?;
    writeln!(out, "      {} stale hits", machine.stale_hits())?;
    let sent = machine.counters();
    writeln!(
        out,
        "      {} shootdowns asked {} CPUs: {} flushed, {} skipped, {} deferred",
        sent.shootdowns, sent.sent, sent.received, sent.skipped, sent.deferred
    )?;
    Ok(())
}
