//! `pageless run`: a fio job file, three ways.

use alloc::sync::Arc;
use core::fmt::Display;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::SystemTime;

use clap::{Args, ValueEnum};

use pageless::block::{PmemFrames, PmemOpenError};
use pageless::job::{Bytes, IniFile, Job, JobError, Plan, PlanOptions, command_line_size, escaped};
use pageless::pfn::Pfn;
use pageless::run::{
    AttachWayError, Bar, Control, JobReport, JsonContext, MemmapOptions, Stage, StageError,
    StageOptions, Way, Ways, run_job, table, terminal_width, to_json, verdicts,
};

use super::report_file::ReportFile;

/// What was asked for cannot be: usage, job file, sizes, files.
const USAGE: u8 = 2;
/// There was no room, the run failed, or what it read was not what had been written.
const FAILED: u8 = 1;
/// Ended by Ctrl-C.
const INTERRUPTED: u8 = 130;

/// Runs a fio job file against a device of persistent memory, with and without descriptors.
///
/// The same requests go to the same device up to three times:
///
///   pfn    requests carry typed frame numbers and nothing else
///   lazy   each device frame that a request touches is also pinned, from submission to
///          completion, through a memmap whose descriptors are faulted in on demand and
///          reclaimed within a budget
///   eager  the same through a memmap that is there from the start, as in Linux
#[derive(Debug, Args)]
#[command(verbatim_doc_comment, after_long_help = EXAMPLES)]
pub(crate) struct RunArgs {
    /// The job file, in fio's format.
    #[arg(value_name = "JOB.fio")]
    job: PathBuf,

    /// Which way to run it.
    #[arg(long, value_enum, default_value_t = MemmapArg::All)]
    memmap: MemmapArg,

    /// Size of the device; by default as large as the job needs. Units as in 64MiB, 6TiB, 1GB.
    #[arg(long, value_name = "SIZE", value_parser = size)]
    size: Option<Bytes>,

    /// Keep the device in this file instead of in memory; it must exist and be large enough.
    #[arg(long, value_name = "FILE")]
    image: Option<PathBuf>,

    /// How much memory the lazy memmap's descriptors and page tables may take; by default a
    /// sixteenth of the eager memmap, at most 64 MiB and at least 64 chunks.
    #[arg(long, value_name = "SIZE", value_parser = size)]
    budget: Option<Bytes>,

    /// The unit in which descriptors come and go, 4KiB to 2MiB.
    #[arg(long, value_name = "SIZE", value_parser = size, default_value = "4KiB")]
    chunk: Bytes,

    /// Seed of all random choices; replaces the job's randseed and randrepeat.
    #[arg(long, value_name = "N")]
    seed: Option<u64>,

    /// Also write the report as fio's JSON; `-` is standard output, in place of the table.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,

    /// Also write a block trace of each way into this directory, which must exist, as pfn.blktrace.0
    /// and so on: a file for each thread. For `blkparse -i DIR/pfn`, btt and iowatcher. A traced
    /// run is slower.
    #[arg(long, value_name = "DIR")]
    blktrace: Option<PathBuf>,

    /// No progress on standard error.
    #[arg(long, short)]
    quiet: bool,
}

const EXAMPLES: &str = "\
Examples:
  Three ways side by side, written, read and verified:
      pageless run jobs/quickstart.fio

  A device of 6 TiB, whose eager memmap would take 96 GiB, with 64 MiB of descriptors:
      pageless run jobs/bssplit-zipf.fio --size 6TiB --budget 64MiB

  Only the lazy way, in chunks of 64 KiB, the report for fio's tools:
      pageless run jobs/quickstart.fio --memmap lazy --chunk 64KiB --json lazy.json

  What each request went through, for the kernel's own tools:
      mkdir trace && pageless run jobs/bssplit-zipf.fio --memmap pfn --blktrace trace
      blkparse -i trace/pfn

  A device that outlives the run:
      truncate -s 2G disk.img && pageless run jobs/verify-md5.fio --image disk.img

Job files are fio's: sections, rw, bs, size, iodepth, verify and so on have fio's meaning, and
sizes in them fio's units (1k is 1024, 1KiB is 1000 unless kb_base=1000). ioengine=null is a
device that moves no bytes; other engines, and options that say how fio reaches a kernel device,
are accepted without effect. A request that pins waits when the budget is pinned; it fails only
when nothing comes back.

Exit status: 0 done; 1 no room, failed, or blocks did not verify; 2 wrong usage, job file, size,
image or report file; 130 Ctrl-C.
";

#[derive(Debug, Clone, Copy, ValueEnum)]
enum MemmapArg {
    /// Only typed pfns
    Pfn,
    /// Descriptors on demand, within the budget
    Lazy,
    /// All descriptors from the start
    Eager,
    /// The three one after the other
    All,
}

impl From<MemmapArg> for Ways {
    fn from(arg: MemmapArg) -> Self {
        match arg {
            MemmapArg::Pfn => Self::Only(Way::Pfn),
            MemmapArg::Lazy => Self::Only(Way::Lazy),
            MemmapArg::Eager => Self::Only(Way::Eager),
            MemmapArg::All => Self::All,
        }
    }
}

fn size(text: &str) -> Result<Bytes, String> {
    match command_line_size(text) {
        Ok(Bytes::ZERO) => Err("must be at least one byte".to_owned()),
        Ok(bytes) => Ok(bytes),
        Err(error) => Err(error.to_string()),
    }
}

/// Runs the subcommand.
pub(crate) fn run(args: &RunArgs) -> ExitCode {
    if let Err(error) = check_image(args) {
        return fail(USAGE, &error);
    }
    let plan = match plan(args) {
        Ok(plan) => plan,
        Err(error) => return fail(USAGE, &error),
    };
    if let Err(error) = check_size(args, &plan) {
        return fail(USAGE, &error);
    }
    // Before the run: a path that cannot be written must not cost one.
    let json = match json_file(args) {
        Ok(json) => json,
        Err(error) => return fail(USAGE, &error),
    };
    let notes = |notes: &[String]| {
        for note in notes {
            say(&format!("note: {note}"));
        }
    };
    notes(plan.notes());
    let options = StageOptions {
        image: args.image.clone(),
        cold: false,
        blktrace: args.blktrace.clone(),
    };
    if let Some(directory) = &args.blktrace
        && !directory.is_dir()
    {
        let path = directory.display();
        return fail(USAGE, &format!("--blktrace {path}: not a directory"));
    }
    let stage = match Stage::prepare(&plan, &options) {
        Ok(stage) => stage,
        Err(error @ StageError::Device(PmemOpenError::TooShort { .. })) => {
            return fail(USAGE, &error);
        }
        Err(error) => return fail(FAILED, &error),
    };
    notes(stage.notes());
    let control = Arc::new(Control::default());
    let handler = {
        let control = Arc::clone(&control);
        move || {
            if control.is_stopped() {
                std::process::exit(i32::from(INTERRUPTED));
            }
            control.stop();
        }
    };
    if let Err(error) = ctrlc::set_handler(handler) {
        say(&format!("note: Ctrl-C ends the run at once: {error}"));
    }
    let memmap = MemmapOptions {
        chunk: Some(args.chunk),
        budget: args.budget,
    };
    let ways = Ways::from(args.memmap);
    let report = if args.quiet {
        run_job(&stage, ways, &memmap, &control, &mut ())
    } else {
        run_job(&stage, ways, &memmap, &control, &mut Bar::stderr())
    };
    let report = match report {
        Ok(report) => report,
        Err(error @ (AttachWayError::Chunk(_) | AttachWayError::Budget(_))) => {
            return fail(USAGE, &error);
        }
        Err(error) => return fail(FAILED, &error),
    };
    for (way, why) in &report.left_out {
        say(&format!("note: the {way} way was left out: {why}"));
    }
    if let Err(error) = write_report(args, json, &report, &plan) {
        return fail(FAILED, &error);
    }
    let failed = tell_failures(&report);
    if control.is_stopped() {
        say("interrupted: the numbers are of what was done until then");
        return ExitCode::from(INTERRUPTED);
    }
    if failed {
        ExitCode::from(FAILED)
    } else {
        ExitCode::SUCCESS
    }
}

fn plan(args: &RunArgs) -> Result<Plan, JobError> {
    let job = Job::from_ini(&IniFile::read(&args.job)?)?;
    job.plan(&PlanOptions {
        device: args.size.or_else(|| image_size(args)),
        seed: args.seed,
    })
}

/// Refuses an image that cannot be opened before its size is taken for the device's.
fn check_image(args: &RunArgs) -> Result<(), String> {
    let Some(path) = &args.image else {
        return Ok(());
    };
    let base = Pfn::try_new(0).map_err(|e| e.to_string())?;
    PmemFrames::open(base, path)
        .map(drop)
        .map_err(|e| e.to_string())
}

/// An image decides the size of the device, unless the command line does.
fn image_size(args: &RunArgs) -> Option<Bytes> {
    let meta = std::fs::metadata(args.image.as_ref()?).ok()?;
    Some(Bytes::new(meta.len()))
}

/// Refuses a device that is larger than there can be, and says where its size comes from.
fn check_size(args: &RunArgs, plan: &Plan) -> Result<(), String> {
    let size = plan.device_size();
    if size.get() <= PmemFrames::MAX_BYTES {
        return Ok(());
    }
    let most = Bytes::new(PmemFrames::MAX_BYTES);
    Err(match (args.size, &args.image) {
        (Some(size), _) => format!("--size {size}: the largest device is {most}"),
        (None, Some(path)) => format!(
            "{}: has {size}, and the largest device is {most}",
            path.display()
        ),
        (None, None) => format!(
            "{}: the jobs need {size} together, and the largest device is {most}",
            args.job.display()
        ),
    })
}

fn json_file(args: &RunArgs) -> Result<Option<ReportFile>, String> {
    match &args.json {
        Some(path) if path != Path::new("-") => {
            let inputs = [
                ("job file", Some(&args.job)),
                ("image", args.image.as_ref()),
            ];
            ReportFile::open(path, &inputs)
                .map(Some)
                .map_err(|e| e.to_string())
        }
        _ => Ok(None),
    }
}

fn write_report(
    args: &RunArgs,
    json: Option<ReportFile>,
    report: &JobReport,
    plan: &Plan,
) -> Result<(), String> {
    let to_stdout = args.json.as_deref() == Some(Path::new("-"));
    let mut out = std::io::stdout().lock();
    let stdout = |e: std::io::Error| format!("cannot write to standard output: {e}");
    if !to_stdout {
        writeln!(out, "{}", table(report, plan, terminal_width())).map_err(stdout)?;
        for line in verdicts(report, plan) {
            writeln!(out, "{line}").map_err(stdout)?;
        }
    }
    if args.json.is_none() {
        return Ok(());
    }
    let value = to_json(
        report,
        &JsonContext {
            plan,
            time: SystemTime::now(),
        },
    );
    let text = format!("{value:#}\n");
    match json {
        Some(file) => file.write(&text).map_err(|e| e.to_string()),
        None => out.write_all(text.as_bytes()).map_err(stdout),
    }
}

fn tell_failures(report: &JobReport) -> bool {
    let mut failed = false;
    for section in report.ways.iter().flat_map(|w| &w.sections) {
        for failure in &section.failures {
            failed = true;
            say(&format!("error: {failure}"));
        }
        let shown = section.failures.len() as u64;
        if section.mismatches > shown {
            say(&format!(
                "error: and {} more blocks did not verify",
                section.mismatches - shown
            ));
        }
    }
    failed
}

fn fail(code: u8, error: &dyn Display) -> ExitCode {
    say(&format!("error: {error}"));
    ExitCode::from(code)
}

fn say(line: &str) {
    // Standard error may be closed; there is nobody else to tell.
    let _ = writeln!(std::io::stderr(), "{}", escaped(line));
}
