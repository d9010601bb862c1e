//! The report in fio's JSON, so that what reads fio's reads ours.

use core::time::Duration;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value, json};

use super::attach::JobReport;
use super::report::{SectionReport, WayReport};
use super::stats::{DirectionStats, Latencies};
use crate::job::{Direction, Plan, Section};

/// What the report is about.
#[derive(Debug)]
pub struct JsonContext<'a> {
    /// The plan that was run.
    pub plan: &'a Plan,
    /// When it ended.
    pub time: SystemTime,
}

/// The report as one JSON object: fio's fields, and in each job an object `pageless` with the
/// books of the memmap. There is a job for each section and way.
#[must_use]
pub fn to_json(report: &JobReport, context: &JsonContext<'_>) -> Value {
    let since = context
        .time
        .duration_since(UNIX_EPOCH)
        .unwrap_or(Duration::ZERO);
    let jobs: Vec<Value> = report
        .ways
        .iter()
        .flat_map(|way| way.sections.iter().map(move |s| (way, s)))
        .map(|(way, section)| job(way, section, report, context.plan))
        .collect();
    json!({
        "fio version": concat!("pageless-", env!("CARGO_PKG_VERSION")),
        "timestamp": since.as_secs(),
        "timestamp_ms": u64::try_from(since.as_millis()).unwrap_or(u64::MAX),
        "time": utc(since.as_secs()),
        "global options": options(&context.plan.job().global),
        "jobs": jobs,
    })
}

fn job(way: &WayReport, report: &SectionReport, all: &JobReport, plan: &Plan) -> Value {
    let section = &plan.sections()[report.section];
    let elapsed = report.elapsed.as_secs_f64();
    let percent = |time: Duration| {
        if elapsed > 0.0 {
            time.as_secs_f64() / elapsed * 100.0
        } else {
            0.0
        }
    };
    let mut job = Map::new();
    let mut set = |key: &str, value: Value| job.insert(key.to_owned(), value);
    set("jobname", json!(section.name));
    set("groupid", json!(report.group));
    set(
        "error",
        json!(report.failures.first().map_or(0, |f| f.kind.errno())),
    );
    set("eta", json!(0));
    set("elapsed", json!(report.elapsed.as_secs() + 1));
    if let Some(description) = &section.description {
        set("desc", json!(description));
    }
    set("job options", job_options(section, plan));
    for way in Direction::ALL {
        set(way.name(), direction(&report.directions[way], section));
    }
    set(
        "sync",
        json!({ "total_ios": report.sync.count(), "lat_ns": latencies(&report.sync, None) }),
    );
    set("job_runtime", json!(millis(report.elapsed)));
    set("usr_cpu", json!(percent(report.cpu.user)));
    set("sys_cpu", json!(percent(report.cpu.system)));
    set("ctx", json!(report.cpu.switches));
    set("majf", json!(report.cpu.major_faults));
    set("minf", json!(report.cpu.minor_faults));
    let submitted: u64 = report.depths.iter().sum();
    set("iodepth_level", shares(&DEPTHS, &report.depths, submitted));
    // Requests are submitted and reaped one by one, which is fio's bucket of 1 to 4.
    let single = [0, submitted, 0, 0, 0, 0, 0];
    set("iodepth_submit", shares(&BATCHES, &single, submitted));
    set("iodepth_complete", shares(&BATCHES, &single, submitted));
    for (name, labels, counts, total) in coarse(report) {
        set(name, shares(labels, &counts, total));
    }
    set("latency_depth", json!(section.iodepth));
    set("latency_target", json!(0));
    set("latency_percentile", json!(100.0));
    set("latency_window", json!(0));
    let memmap = &report.memmap;
    set(
        "pageless",
        json!({
            "memmap": way.way.name(),
            "attach_ns": u64::try_from(way.attach.as_nanos()).unwrap_or(u64::MAX),
            "descriptor_faults": memmap.faults,
            "descriptor_bytes_peak": memmap.descriptor_bytes_peak,
            "page_table_bytes_peak": memmap.page_table_bytes_peak,
            "page_table_bytes_end": memmap.page_table_bytes_end,
            "descriptor_budget_bytes": memmap.budget_bytes,
            "chunks_populated": memmap.populated,
            "chunks_reclaimed": memmap.reclaimed,
            "shootdowns": memmap.shootdowns,
            "pinned_peak": memmap.pinned_peak,
            "eager_memmap_bytes": all.eager_memmap_bytes,
        }),
    );
    Value::Object(job)
}

fn options(given: &[(String, String)]) -> Value {
    given
        .iter()
        .map(|(key, value)| (key.clone(), json!(value)))
        .collect::<Map<_, _>>()
        .into()
}

/// What the section says, and the four options that plotting tools look for.
fn job_options(section: &Section, plan: &Plan) -> Value {
    let mut all = options(&section.given);
    let global = &plan.job().global;
    let said = |names: &[&str]| {
        let both = section.given.iter().chain(global);
        both.into_iter()
            .any(|(key, _)| names.contains(&key.as_str()))
    };
    let defaults = [
        (&["rw", "readwrite"][..], "rw", "read".to_owned()),
        (
            &["bs", "blocksize"],
            "bs",
            section.sizes[Direction::Read].max().to_string(),
        ),
        (&["iodepth"], "iodepth", section.iodepth.to_string()),
        (&["numjobs"], "numjobs", section.numjobs.to_string()),
    ];
    if let Value::Object(map) = &mut all {
        for (names, name, value) in defaults {
            if !said(names) {
                map.insert(name.to_owned(), json!(value));
            }
        }
    }
    all
}

fn direction(stats: &DirectionStats, section: &Section) -> Value {
    let kib = |bytes: f64| bytes / 1024.0;
    let percentiles = |wanted: bool| wanted.then_some(section.percentiles.as_slice());
    let bandwidth = &stats.bandwidth;
    json!({
        "io_bytes": stats.bytes,
        "io_kbytes": stats.bytes / 1024,
        "bw_bytes": stats.bytes_per_second() as u64,
        "bw": kib(stats.bytes_per_second()) as u64,
        "iops": stats.per_second(),
        "runtime": millis(stats.runtime),
        "total_ios": stats.ios,
        "short_ios": 0,
        "drop_ios": 0,
        "slat_ns": latencies(&Latencies::new(), None),
        "clat_ns": latencies(&stats.latencies, percentiles(section.clat_percentiles)),
        "lat_ns": latencies(&stats.latencies, percentiles(section.lat_percentiles)),
        "bw_min": kib(bandwidth.min()) as u64,
        "bw_max": kib(bandwidth.max()) as u64,
        "bw_agg": if stats.ios > 0 { 100.0 } else { 0.0 },
        "bw_mean": kib(bandwidth.mean()),
        "bw_dev": kib(bandwidth.stddev()),
        "bw_samples": bandwidth.count(),
        "iops_min": stats.iops.min() as u64,
        "iops_max": stats.iops.max() as u64,
        "iops_mean": stats.iops.mean(),
        "iops_stddev": stats.iops.stddev(),
        "iops_samples": stats.iops.count(),
    })
}

fn latencies(latencies: &Latencies, percentiles: Option<&[f64]>) -> Value {
    let mut value = json!({
        "min": latencies.min(),
        "max": latencies.max(),
        "mean": latencies.mean(),
        "stddev": latencies.stddev(),
        "N": latencies.count(),
    });
    if let (Value::Object(map), Some(list), true) = (&mut value, percentiles, latencies.count() > 0)
    {
        let found: Map<_, _> = list
            .iter()
            .map(|p| (format!("{p:.6}"), json!(latencies.percentile(*p))))
            .collect();
        map.insert("percentile".to_owned(), found.into());
    }
    value
}

const DEPTHS: [&str; 7] = ["1", "2", "4", "8", "16", "32", ">=64"];
const BATCHES: [&str; 7] = ["0", "4", "8", "16", "32", "64", ">=64"];
const FINE: [&str; 10] = [
    "2", "4", "10", "20", "50", "100", "250", "500", "750", "1000",
];
const MILLIS: [&str; 12] = [
    "2", "4", "10", "20", "50", "100", "250", "500", "750", "1000", "2000", ">=2000",
];
const BOUNDS: [u64; 11] = [2, 4, 10, 20, 50, 100, 250, 500, 750, 1000, 2000];

/// fio's coarse distributions: counts of nanoseconds, of microseconds, of milliseconds.
fn coarse(report: &SectionReport) -> [(&'static str, &'static [&'static str], Vec<u64>, u64); 3] {
    let (mut nanos, mut micros, mut millis) = (vec![0; 10], vec![0; 10], vec![0; 12]);
    let mut total = 0;
    for stats in &report.directions {
        for (value, count) in stats.latencies.values() {
            let (counts, value) = match value {
                0..1_000 => (&mut nanos, value),
                1_000..1_000_000 => (&mut micros, value / 1_000),
                _ => (&mut millis, value / 1_000_000),
            };
            let bucket = BOUNDS
                .iter()
                .position(|b| value < *b)
                .unwrap_or(BOUNDS.len());
            let last = counts.len() - 1;
            counts[bucket.min(last)] += count;
            total += count;
        }
    }
    [
        ("latency_ns", &FINE, nanos, total),
        ("latency_us", &FINE, micros, total),
        ("latency_ms", &MILLIS, millis, total),
    ]
}

fn shares(labels: &[&str], counts: &[u64], total: u64) -> Value {
    let percent = |n: u64| {
        if total > 0 {
            n as f64 / total as f64 * 100.0
        } else {
            0.0
        }
    };
    let all = labels
        .iter()
        .zip(counts)
        .map(|(l, n)| ((*l).to_owned(), json!(percent(*n))));
    all.collect::<Map<_, _>>().into()
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// A moment as C's `ctime` writes it, in UTC.
fn utc(seconds: u64) -> String {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let days = seconds / 86_400;
    let (mut year, mut left) = (1970, days);
    let leap = |y: u64| y.is_multiple_of(4) && (!y.is_multiple_of(100) || y.is_multiple_of(400));
    while left >= 365 + u64::from(leap(year)) {
        left -= 365 + u64::from(leap(year));
        year += 1;
    }
    let lengths = [
        31,
        28 + u64::from(leap(year)),
        31,
        30,
        31,
        30,
        31,
        31,
        30,
        31,
        30,
        31,
    ];
    let mut month = 0;
    while left >= lengths[month] {
        left -= lengths[month];
        month += 1;
    }
    let (h, m, s) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    let weekday = DAYS[usize::try_from(days % 7).unwrap_or(0)];
    format!(
        "{weekday} {} {:2} {h:02}:{m:02}:{s:02} {year}",
        MONTHS[month],
        left + 1
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_written_as_ctime_writes_them() {
        assert_eq!(utc(0), "Thu Jan  1 00:00:00 1970");
        assert_eq!(utc(951_782_400), "Tue Feb 29 00:00:00 2000");
        assert_eq!(utc(1_795_167_747), "Fri Nov 20 09:42:27 2026");
    }
}
