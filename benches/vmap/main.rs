//! Virtually contiguous memory: what mapping scattered frames costs, lazily and eagerly unmapped, what is gained by small mappings,
//! what it costs to use, and where an object of a compressed pool is better mapped than copied.
//!
//! ```text
//! cargo bench --bench vmap                          everything, some minutes; which section it is at is on standard error
//! cargo bench --bench vmap -- --quick               the same with fewer samples, under two
//! cargo bench --bench vmap -- scattered objects     only these sections
//! cargo bench --bench vmap -- objects --plot FILE   where the plot goes, instead of target/ratios/vmap-objects.svg
//! cargo bench --bench vmap -- --help                the sections
//! ```
//!
//! Two kinds of nanoseconds, in tables of their own. *Measured*: on this machine, in alternation. *Modelled*: what the table of costs of
//! the simulated machine adds up to, the same everywhere.

extern crate alloc;

#[path = "../cpus/mod.rs"]
mod cpus;
#[expect(dead_code, reason = "no row of this program is an added time")]
#[path = "../ratios/mod.rs"]
mod ratios;

mod bios;
mod books;
mod compound;
mod host;
mod modelled;
mod objects;
mod peer;
mod plain;
mod plot;
mod scattered;
mod small;
mod threads;
mod turns;
mod ways;

use clap::{CommandFactory, Parser, ValueEnum, error::ErrorKind};
use core::error::Error;
use pageless_fault::Cpus;
use ratios::Report;
use std::{path::PathBuf, thread};

/// What is measured, or modelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Section {
    /// Map and unmap 16 scattered frames: lazily, eagerly, with plain mmap and munmap. Measured.
    Scattered,
    /// Ways of the host to take many mappings away at once. Measured.
    Ways,
    /// Small mappings against areas. Measured.
    Small,
    /// Access through a virtual compound page. Measured.
    Compound,
    /// Bios into memory in pieces. Measured.
    Bios,
    /// Objects that cross from one frame into another: mapped, copied, in two segments. Measured, and modelled.
    Objects,
    /// One thread against two. Measured.
    Threads,
    /// Map and unmap 16 scattered frames, on 2 to 64 CPUs. Modelled.
    Modelled,
}

#[derive(Debug, Parser)]
#[command(about = "Measures virtually contiguous memory: see benches/vmap/main.rs")]
struct Args {
    /// Only these; all if there is none.
    sections: Vec<Section>,
    /// Fewer samples.
    #[arg(long)]
    quick: bool,
    /// Where the plot of the section `objects` goes; folders are made.
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
    /// What Cargo says when it is a benchmark.
    #[arg(long, hide = true)]
    bench: bool,
    /// What others say when it is none.
    #[arg(long, hide = true)]
    test: bool,
    #[arg(long, hide = true)]
    list: bool,
}

/// Runs a section in a thread of its own: it may tie itself to a CPU, and the next one begins untied.
fn apart<T: Send>(section: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| scope.spawn(section).join().unwrap())
}

fn main() -> Result<(), Box<dyn Error>> {
    let args = Args::parse();
    let Some(mut report) = Report::of("vmap") else {
        return Ok(());
    };
    let named = |section: &Section| args.sections.is_empty() || args.sections.contains(section);
    if args.plot.is_some() && !named(&Section::Objects) {
        let error = "--plot is for the section `objects`, which was not asked for";
        Args::command()
            .error(ErrorKind::ArgumentConflict, error)
            .exit();
    }
    // How many CPUs there are is asked once, and not by a thread that is tied to one.
    host::ram(1).cpus();
    let wanted = |section: Section| {
        let wanted = named(&section);
        if wanted {
            // Some take minutes, and the tables come at the end.
            eprintln!("vmap: {}", format!("{section:?}").to_lowercase());
        }
        wanted
    };
    if wanted(Section::Scattered) {
        apart(|| scattered::measure(&mut report));
    }
    if wanted(Section::Ways) {
        apart(|| ways::measure(&mut report));
    }
    if wanted(Section::Small) {
        apart(|| small::measure(&mut report));
    }
    if wanted(Section::Compound) {
        apart(|| compound::measure(&mut report));
    }
    if wanted(Section::Bios) {
        apart(|| bios::measure(&mut report));
    }
    if wanted(Section::Threads) {
        apart(|| threads::measure(&mut report));
    }
    let measured = wanted(Section::Objects).then(|| apart(|| objects::measure(&report)));
    report.finish()?;
    if let Some(measured) = measured {
        objects::print(&measured, args.plot.as_deref())?;
    }
    if wanted(Section::Modelled) {
        modelled::print();
    }
    Ok(())
}
