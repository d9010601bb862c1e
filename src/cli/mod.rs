//! The command line, a file for each subcommand.

mod report_file;
pub(crate) mod run;
