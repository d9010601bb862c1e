//! The `pageless` command line.

#![forbid(unsafe_code)]

extern crate alloc;

mod cli;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Struct-page-free block I/O with a lazily faulted memmap.
#[derive(Debug, Parser)]
#[command(version, about)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    #[command(verbatim_doc_comment)]
    Run(cli::run::RunArgs),
}

fn main() -> ExitCode {
    match Arguments::parse().command {
        Command::Run(args) => cli::run::run(&args),
    }
}
