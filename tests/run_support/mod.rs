//! The built binary, job files in a directory of their own, and the report it writes.

#![expect(dead_code, reason = "each test file uses a part of it")]

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;

/// A directory with a job file in it.
pub(crate) struct Bench {
    dir: TempDir,
}

impl Bench {
    pub(crate) fn new(job: &str) -> Self {
        let dir = TempDir::new().expect("a temporary directory");
        let bench = Self { dir };
        bench.write("job.fio", job.as_bytes());
        bench
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, bytes).expect("writable");
        path
    }

    /// A file of zeroes.
    pub(crate) fn image(&self, name: &str, len: u64) -> PathBuf {
        let path = self.write(name, b"");
        let file = std::fs::OpenOptions::new()
            .write(true)
            .open(&path)
            .expect("just made");
        file.set_len(len).expect("room");
        path
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pageless"));
        command
            .arg("run")
            .arg("job.fio")
            .args(arguments)
            .current_dir(self.dir.path());
        command
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Ran {
        Ran(self.command(arguments).output().expect("the binary starts"))
    }

    /// Runs with the report on standard output; fails the test if the run fails.
    pub(crate) fn report(&self, arguments: &[&str]) -> Value {
        let mut all = vec!["--json", "-"];
        all.extend_from_slice(arguments);
        let ran = self.run(&all);
        assert_eq!(ran.code(), 0, "{}", ran.stderr());
        ran.json()
    }
}

/// A run that has ended.
pub(crate) struct Ran(Output);

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        Self(output)
    }
}

impl Ran {
    pub(crate) fn code(&self) -> i32 {
        self.0.status.code().expect("not killed")
    }

    pub(crate) fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.0.stderr).into_owned()
    }

    pub(crate) fn stdout(&self) -> String {
        String::from_utf8_lossy(&self.0.stdout).into_owned()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.0.stdout).expect("a JSON report")
    }

    /// The one error line of a run that must fail with `code`.
    pub(crate) fn error(&self, code: i32) -> String {
        let stderr = self.stderr();
        assert_eq!(self.code(), code, "{stderr}");
        assert!(!stderr.contains("panicked"), "{stderr}");
        let errors: Vec<_> = stderr
            .lines()
            .filter(|l| l.starts_with("error: "))
            .collect();
        assert_eq!(errors.len(), 1, "one error line: {stderr}");
        errors[0].to_owned()
    }
}

/// The jobs of a report.
pub(crate) fn jobs(report: &Value) -> &Vec<Value> {
    report["jobs"].as_array().expect("jobs")
}

/// A number somewhere in a job, by the path of its keys.
pub(crate) fn number(job: &Value, keys: &[&str]) -> u64 {
    let found = keys.iter().fold(job, |value, key| &value[*key]);
    found
        .as_u64()
        .unwrap_or_else(|| panic!("{keys:?} is {found}"))
}

/// fio's version, or a loud word that a test is skipped.
pub(crate) fn fio() -> Option<String> {
    match Command::new("fio").arg("--version").output() {
        Ok(output) if output.status.success() => {
            Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
        }
        _ => {
            // Not `eprintln!`: what a passing test prints is not shown.
            let _ = writeln!(
                std::io::stderr(),
                "SKIPPED: fio is not installed, nothing was compared (apt install fio)"
            );
            None
        }
    }
}

/// The job files of this package.
pub(crate) fn shipped() -> Vec<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("jobs");
    let mut files: Vec<_> = std::fs::read_dir(dir)
        .expect("jobs/")
        .map(|entry| entry.expect("readable").path())
        .filter(|path| path.extension().is_some_and(|e| e == "fio"))
        .collect();
    files.sort();
    assert!(files.len() >= 4, "{files:?}");
    files
}
