//! The command line, a file for each subcommand.

pub(crate) mod run;
