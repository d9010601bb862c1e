//! Standard output of an example, and how the example ends.

use core::error::Error;
use std::io::{self, BufWriter, ErrorKind, Write};
use std::process::{ExitCode, Termination};

/// Runs an example that speaks through what it is given. Its own status, or 1 with the reason on standard error.
///
/// `println!` panics when standard output takes no more. Here a full disk is an error like any other, and a reader that has gone away
/// (`| head -1`) has heard enough.
pub(crate) fn speaking<T: Termination>(
    example: impl FnOnce(&mut dyn Write) -> Result<T, Box<dyn Error>>,
) -> ExitCode {
    let mut out = BufWriter::new(io::stdout().lock());
    let ended = example(&mut out).map(Termination::report);
    // What was said before an error comes before the error.
    let flushed = out.flush();
    // What did not get out is not tried again.
    let _ = out.into_parts();
    let (status, error) = match (ended, flushed) {
        (Ok(status), Ok(())) => return status,
        (Ok(status), Err(error)) => (status, error.into()),
        (Err(error), _) => (ExitCode::SUCCESS, error),
    };
    let reason = match error.downcast_ref::<io::Error>().map(io::Error::kind) {
        Some(ErrorKind::BrokenPipe) => return status,
        Some(_) => format!("standard output: {error}"),
        None => error.to_string(),
    };
    // Standard error may be closed; there is nobody else to tell.
    let _ = writeln!(io::stderr(), "{}: {reason}", env!("CARGO_BIN_NAME"));
    ExitCode::FAILURE
}
