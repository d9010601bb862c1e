//! What one shootdown takes under each policy, in *modelled* nanoseconds.
//!
//! `cargo run --release --example shootdown_latency -- --targets 63`

mod stdout;

use std::io::Write;
use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use comfy_table::{CellAlignment, Table, presets};
use pageless::fault::shootdown::PolicyKind;
use pageless::fault::sim::{Costs, Scene};

/// A table of the modelled latency of one shootdown of one page that every CPU has cached.
#[derive(Debug, Parser)]
struct Arguments {
    /// The most CPUs that are shot at; the columns double up to it.
    #[arg(long, value_name = "N", default_value_t = 15, value_parser = clap::value_parser!(u16).range(1..=1023))]
    targets: u16,
    /// Pages, next to each other.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=Scene::PAGES_MOST))]
    pages: u64,
    /// Whose costs.
    #[arg(long, value_enum, default_value_t = Model::Haswell)]
    costs: Model,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Model {
    /// One socket, 2019: calibrated to six published points
    Haswell,
    /// Two sockets of 8 CPUs, 2014: the Haswell and one point more
    TwoSockets,
    /// Eight sockets of 15 CPUs, 2013: the Haswell and one point more
    EightSockets,
    /// Two sockets of chiplets: not calibrated
    Modern,
}

impl Model {
    fn costs(self, cpus: u16) -> Costs {
        match self {
            Model::Haswell => Costs::HASWELL_2019,
            Model::TwoSockets => Costs::TWO_SOCKETS_2014,
            Model::EightSockets => Costs::EIGHT_SOCKETS_2013,
            Model::Modern => Costs::two_modern_sockets(cpus),
        }
    }

    fn origin(self) -> &'static str {
        match self {
            Model::Haswell => "a Haswell of 2019, calibrated to six published points",
            Model::TwoSockets => "two sockets of 8 CPUs, 2014, calibrated to one point of 16 CPUs",
            Model::EightSockets => {
                "eight sockets of 15 CPUs, 2013, calibrated to one point of 120 CPUs"
            }
            Model::Modern => "two sockets of chiplets, not calibrated: a prediction",
        }
    }
}

/// Policies whose answers carry the time at which they were given.
const POLICIES: [PolicyKind; 7] = [
    PolicyKind::SyncIpi,
    PolicyKind::ConcurrentIpi,
    PolicyKind::EarlyAck,
    PolicyKind::IdleSkip,
    PolicyKind::KernelRange,
    PolicyKind::Resident,
    PolicyKind::Broadcast,
];

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    stdout::speaking(|out| run(&arguments, out))
}

fn run(arguments: &Arguments, out: &mut dyn Write) -> Result<(), Box<dyn core::error::Error>> {
    let most = arguments.targets;
    let doubling = (1..=10).map(|power| (1 << power) - 1);
    let mut targets: Vec<u16> = doubling.take_while(|targets| *targets < most).collect();
    targets.push(most);

    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    let columns = targets.iter().map(u16::to_string);
    table.set_header(core::iter::once("targets".into()).chain(columns));
    for policy in POLICIES {
        let mut row = vec![policy.name().to_owned()];
        for targets in &targets {
            let cpus = targets + 1;
            let scene = Scene {
                pages: arguments.pages,
                // What the targets do meanwhile. Changes nothing while it is less than a delivery.
                pace: 100,
                ..Scene::new(cpus, policy, arguments.costs.costs(cpus))
            };
            row.push(scene.play()?.added().to_string());
        }
        table.add_row(row);
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }

    writeln!(
        out,
        "MODELLED nanoseconds that a shootdown of {} takes longer than flushing oneself.",
        match arguments.pages {
            1 => "one page".to_owned(),
            pages => format!("{pages} pages"),
        }
    )?;
    writeln!(
        out,
        "Costs: {}. Every CPU runs and has the page.\n",
        arguments.costs.origin()
    )?;
    writeln!(out, "{table}\n")?;
    writeln!(
        out,
        "early-ack: until all have entered their handlers; nothing may be used again by then."
    )?;
    writeln!(out, "broadcast: its two costs are guesses.")?;
    Ok(())
}
