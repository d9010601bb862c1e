//! One page, one CPU that takes it away, others that use it: does a frame that has been given away still get read?
//!
//! `cargo run --release --example stale_hit -- --policy no-remote`

extern crate alloc;

mod stdout;

use alloc::rc::Rc;
use core::cell::Cell;
use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;
use clap::builder::{PossibleValuesParser, TypedValueParser as _};
use pageless::fault::shootdown::{CpuId, PolicyKind, SpaceId};
use pageless::fault::sim::schedule::{Deviations, Failure, FailureKind, Program, Schedule, shrink};
use pageless::fault::sim::{Cpu, ScheduledBody, SimConfig, SimMachine, SimWindow};
use pageless::fault::{Machine as _, WindowLen};

/// Runs the smallest race there is on the modelled machine, under many random schedules, and tells the first stale
/// hit as a short trace.
#[derive(Debug, Parser)]
#[command(after_help = "Exit status: 0 no stale hit; 1 a stale hit; 2 wrong usage.")]
struct Arguments {
    /// How the page is shot down.
    #[arg(long, value_name = "NAME", default_value = "concurrent-ipi", value_parser = policies())]
    policy: PolicyKind,
    /// List the policies, and which of them are broken on purpose.
    #[arg(long)]
    list: bool,
    /// CPUs: one takes the page away, the others use it.
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u16).range(2..=64))]
    cpus: u16,
    /// The first seed; each schedule takes the next one.
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Schedules to run.
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..))]
    schedules: u64,
    /// Run this one schedule instead: the deviations that a trace ends with.
    #[arg(long, value_name = "DEVIATIONS")]
    replay: Option<Deviations>,
}

fn policies() -> impl clap::builder::TypedValueParser<Value = PolicyKind> {
    let all = PolicyKind::ALL.iter();
    PossibleValuesParser::new(all.map(|policy| policy.name())).map(|name| {
        let named = |policy: &&PolicyKind| policy.name() == name;
        *PolicyKind::ALL.iter().find(named).expect("one of them")
    })
}

/// A machine with one mapped page.
struct Race {
    machine: SimMachine,
    window: SimWindow,
    /// Whether its frame is somebody else's by now.
    reused: Cell<bool>,
}

impl Race {
    fn new(cpus: u16, policy: PolicyKind) -> Self {
        let config = SimConfig {
            cpus,
            frames: 24,
            policy,
            // Unfriendly: timers tick often, and non-maskable interrupts come at the worst moment.
            tick_every: 4,
            nmi_one_in: 2,
            // Time proves nothing, which a CPU without a timer shows.
            tickless: (policy == PolicyKind::SweepTimed).then_some(CpuId::new(1)),
            ..SimConfig::default()
        };
        let machine = SimMachine::new(config).expect("2 to 64 CPUs");
        let len = WindowLen::covering(1 << 16).expect("64 KiB");
        let race = Race {
            window: machine.reserve(len, 4096).expect("the first window"),
            machine,
            reused: Cell::new(false),
        };
        race.map(0);
        race
    }

    fn va(&self, page: u64) -> u64 {
        self.window.base() + page * 4096
    }

    fn map(&self, page: u64) {
        let frame = self.machine.alloc().expect("more frames than pages");
        let va = self.va(page);
        let mapped = self.machine.map(SpaceId::EVERY, va, frame, true);
        mapped.expect("nothing is mapped there");
    }

    /// Takes the page away, and gives its frame to another page as soon as the policy says that it may.
    fn replace(&self, cpu: &Cpu) {
        let unmapped = self.machine.unmap(cpu, SpaceId::EVERY, self.va(0));
        let unmapped = unmapped.expect("mapped");
        if self.machine.config().policy == PolicyKind::LocalOnly {
            // Over at once, or never: while others can have the page, its frame stays locked away.
            if unmapped.try_free(&self.machine, cpu).is_err() {
                return;
            }
        } else if let Err((_, error)) = unmapped.free(&self.machine, cpu) {
            panic!("{error}");
        }
        self.map(1);
        cpu.store(self.va(1), 1).expect("mapped");
        self.reused.set(true);
    }

    /// Uses the page until it is gone.
    fn use_it(&self, cpu: &Cpu) {
        (0..32).all(|word| cpu.load(self.va(0) + 8 * word).is_ok());
    }
}

/// The race, and a check at its end: has anybody been where it had no business any more?
fn program<'a>(cpus: u16, policy: PolicyKind, reused: &'a Cell<u64>) -> Program<'a> {
    let race = Rc::new(Race::new(cpus, policy));
    let body = |cpu: u16| -> ScheduledBody<'a> {
        let race = Rc::clone(&race);
        Box::new(move |on| match cpu {
            0 => race.replace(on),
            _ => race.use_it(on),
        })
    };
    let tasks = race.machine.tasks((0..cpus).map(body).collect());
    let check = move || {
        reused.set(reused.get() + u64::from(race.reused.get()));
        if let Some(incident) = race.machine.incidents().first() {
            panic!("{incident}");
        }
    };
    (tasks.expect("all CPUs are free"), check).into()
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    stdout::speaking(|out| Ok(run(&arguments, out)?))
}

fn run(arguments: &Arguments, out: &mut dyn Write) -> io::Result<ExitCode> {
    let (policy, cpus) = (arguments.policy, arguments.cpus);
    if arguments.list {
        for policy in PolicyKind::ALL {
            match policy.is_safe() {
                true => writeln!(out, "{}", policy.name())?,
                false => writeln!(out, "{:<15} broken on purpose", policy.name())?,
            }
        }
        return Ok(ExitCode::SUCCESS);
    }

    let reused = Cell::new(0);
    let make = || program(cpus, policy, &reused);
    if let Some(deviations) = &arguments.replay {
        let schedule = Schedule::replay(deviations).record_trace(true);
        return match schedule.run(make()) {
            Ok(run) => {
                writeln!(
                    out,
                    "no stale hit: {} steps, {} switches",
                    run.steps, run.switches
                )?;
                Ok(ExitCode::SUCCESS)
            }
            Err(failure) => tell(out, &failure, cpus, policy),
        };
    }

    let seeds = (arguments.seed..=u64::MAX)
        .take(usize::try_from(arguments.schedules).unwrap_or(usize::MAX));
    let mut steps = 0;
    for (schedule, seed) in (1..).zip(seeds) {
        match Schedule::random(seed).run(make()) {
            Ok(run) => steps += run.steps,
            Err(failure) => {
                let shrunk = shrink(failure, make);
                writeln!(
                    out,
                    "{}: schedule {schedule} (seed {seed}) fails; shrunk in {} runs to what matters:\n",
                    policy.name(),
                    shrunk.runs
                )?;
                return tell(out, &shrunk.failure, cpus, policy);
            }
        }
    }
    writeln!(
        out,
        "{}: no stale hit in {} schedules of {cpus} CPUs ({steps} steps).",
        policy.name(),
        arguments.schedules
    )?;
    writeln!(out, "The frame was used again in {} of them.", reused.get())?;
    Ok(ExitCode::SUCCESS)
}

/// The failure, for a person.
fn tell(
    out: &mut dyn Write,
    failure: &Failure,
    cpus: u16,
    policy: PolicyKind,
) -> io::Result<ExitCode> {
    match &failure.kind {
        FailureKind::Panic { message, .. } => writeln!(out, "{message}\n")?,
        other => writeln!(out, "{other}\n")?,
    }
    writeln!(out, "{}", failure.trace)?;
    writeln!(
        out,
        "Times are modelled, each CPU's own; the lines are in the order in which things happened."
    )?;
    writeln!(
        out,
        "again: cargo run --release --example stale_hit -- --policy {} --cpus {cpus} --replay '{}'",
        policy.name(),
        failure.deviations
    )?;
    Ok(ExitCode::FAILURE)
}
