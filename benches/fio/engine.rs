//! One run of a job by either program, each in a process of its own, and what it reports.

use core::fmt::Display;
use serde_json::Value;
use std::{fs, path::Path, process::Command};

/// What one run of a job came to.
#[derive(Clone, Copy)]
pub(crate) struct Ran {
    /// Nanoseconds for each request: the time of the section over its requests.
    pub(crate) each: f64,
    /// Nanoseconds of processor time for each, which others on the machine do not lengthen as much.
    pub(crate) busy: f64,
    /// The median latency in nanoseconds.
    pub(crate) p50: f64,
    /// What 99 % of the latencies do not exceed.
    pub(crate) p99: f64,
    /// What 99.9 % of them do not exceed.
    pub(crate) p999: f64,
}

/// fio's version, where it is installed.
pub(crate) fn fio_version() -> Option<String> {
    let output = Command::new("fio").arg("--version").output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout);
    output.status.success().then(|| text.trim().to_owned())
}

/// Runs `job` with fio; it works in `dir`, where it may leave files.
pub(crate) fn fio(job: &str, dir: &Path) -> Ran {
    let mut command = Command::new("fio");
    command.arg("--output-format=json");
    report(command, job, dir)
}

/// Runs `job` with pageless, without descriptors, on `image` or, without one, on what the job says.
pub(crate) fn pageless(job: &str, dir: &Path, image: Option<&Path>) -> Ran {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pageless"));
    command.args(["run", "--quiet", "--memmap", "pfn", "--json", "-"]);
    if let Some(image) = image {
        command.arg("--image").arg(image);
    }
    report(command, job, dir)
}

fn report(mut command: Command, job: &str, dir: &Path) -> Ran {
    fs::write(dir.join("job.fio"), job).unwrap();
    let output = command.arg("job.fio").current_dir(dir).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {stderr}\n{job}");
    let report: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{command:?}: {error}: {stderr}"));
    let section = &report["jobs"][0];
    assert_eq!(section["error"], 0, "{command:?}: {stderr}");
    let direction = ["read", "write"]
        .map(|name| &section[name])
        .into_iter()
        .find(|direction| number(&direction["total_ios"], "total_ios") > 0.0)
        .unwrap_or_else(|| panic!("{command:?}: nothing was done"));
    // Both record the latency of every request: no request may be missing from the histogram.
    let latencies = &direction["clat_ns"];
    let counted = number(&latencies["N"], "N");
    assert_eq!(counted, number(&direction["total_ios"], "total_ios"));
    let percentile = |p: f64| {
        let name = format!("{p:.6}");
        number(&latencies["percentile"][&name], &name)
    };
    let each = 1e9 / number(&direction["iops"], "iops");
    let busy = ["usr_cpu", "sys_cpu"].map(|key| number(&section[key], key) / 100.0);
    Ran {
        each,
        busy: each * (busy[0] + busy[1]),
        p50: percentile(50.0),
        p99: percentile(99.0),
        p999: percentile(99.9),
    }
}

fn number(value: &Value, what: impl Display) -> f64 {
    let number = value.as_f64();
    number.unwrap_or_else(|| panic!("{what} is {value}"))
}
