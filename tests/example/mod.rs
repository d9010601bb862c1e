//! Examples, run as `cargo test` has built them.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// Where an example is.
fn path(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("this test's own path");
    let profile = test.parent().and_then(Path::parent);
    let example = profile
        .expect("target/<profile>/deps")
        .join("examples")
        .join(name);
    // A test target asked for by name is built alone.
    assert!(
        example.exists(),
        "{name} is not built: `cargo build --examples` does"
    );
    example
}

/// Runs an example.
pub(crate) fn example(name: &str, arguments: &[&str]) -> Output {
    example_into(Stdio::piped(), name, arguments)
}

/// Runs an example with this for its standard output.
pub(crate) fn example_into(out: Stdio, name: &str, arguments: &[&str]) -> Output {
    let mut command = Command::new(path(name));
    let command = command.args(arguments).stdin(Stdio::null()).stdout(out);
    let output = command.stderr(Stdio::piped()).output();
    output.expect("it starts")
}

/// Its status, and what it said on both streams.
pub(crate) fn said(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (
        output.status.code(),
        text(&output.stdout),
        text(&output.stderr),
    )
}
