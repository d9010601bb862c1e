//! The report for people.

use core::time::Duration;

use comfy_table::{CellAlignment, ContentArrangement, Table, TableComponent, presets};

use super::attach::JobReport;
use super::report::SectionReport;
use super::stats::{hull, length};
use super::way::Way;
use crate::job::{Bytes, Direction, Plan, shown};

const HEADER: [&str; 13] = [
    "section",
    "memmap",
    "",
    "IOPS",
    "bandwidth",
    "p50",
    "p99",
    "p99.9",
    "faults",
    "descriptors +\npage tables, peak",
    "reclaimed",
    "shootdowns",
    "attach",
];

type Row = [String; HEADER.len()];

/// Columns of the narrow form: what the requests took, and what the memmap did for them.
const REQUESTS: [usize; 8] = [0, 1, 2, 3, 4, 5, 6, 7];
const BOOKS: [usize; 7] = [0, 1, 8, 9, 10, 11, 12];

/// How many characters the terminal at standard output is wide, if there is one.
#[must_use]
pub fn terminal_width() -> Option<u16> {
    Table::new().width()
}

/// One row for each section, way and direction, sections together so that ways can be compared.
/// Where `width` characters do not suffice, two narrower tables one below the other.
#[must_use]
pub fn table(report: &JobReport, plan: &Plan, width: Option<u16>) -> String {
    let rows = rows(report, plan);
    let all: Vec<usize> = (0..HEADER.len()).collect();
    let wide = render(rows.iter(), &all, None);
    let footer = footer(report, plan);
    let Some(width) = width.filter(|width| widest(&wide) > usize::from(*width)) else {
        return format!("{wide}\n{footer}");
    };
    let requests = render(rows.iter(), &REQUESTS, Some(width));
    // A way's books stand in the first of its rows.
    let books = rows.iter().filter(|row| !row[1].is_empty());
    let books = render(books, &BOOKS, Some(width));
    format!("{requests}\n\n{books}\n{footer}")
}

fn widest(text: &str) -> usize {
    let lines = text.lines().map(|line| line.chars().count());
    lines.max().unwrap_or(0)
}

/// The columns of the rows; with a width, cells are wrapped as it demands.
fn render<'a>(
    rows: impl Iterator<Item = &'a Row> + Clone,
    columns: &[usize],
    width: Option<u16>,
) -> String {
    let mut table = Table::new();
    table
        .load_preset(presets::UTF8_HORIZONTAL_ONLY)
        .set_content_arrangement(ContentArrangement::Disabled)
        .set_header(columns.iter().map(|c| HEADER[*c]));
    for (column, index) in table.column_iter_mut().zip(columns) {
        column.set_cell_alignment(if *index < 3 {
            CellAlignment::Left
        } else {
            CellAlignment::Right
        });
    }
    // Lines between all rows would hide which belong together.
    for line in [
        TableComponent::HorizontalLines,
        TableComponent::MiddleIntersections,
        TableComponent::LeftBorderIntersections,
        TableComponent::RightBorderIntersections,
    ] {
        table.remove_style(line);
    }
    for row in rows {
        table.add_row(columns.iter().map(|c| &row[*c]));
    }
    if let Some(width) = width.filter(|width| widest(&table.to_string()) > usize::from(*width)) {
        table
            .set_content_arrangement(ContentArrangement::Dynamic)
            .set_width(width);
    }
    table.to_string()
}

fn rows(report: &JobReport, plan: &Plan) -> Vec<Row> {
    let mut rows = Vec::new();
    for (index, section) in plan.sections().iter().enumerate() {
        if index > 0 {
            rows.push(Row::default());
        }
        let mut last = None;
        for way in &report.ways {
            for part in way.sections.iter().filter(|s| s.section == index) {
                let name = match part.clone {
                    Some(clone) => format!("{}.{clone}", shown(&section.name)),
                    None => shown(&section.name).to_string(),
                };
                let label = if last.as_ref() == Some(&name) {
                    ""
                } else {
                    &name
                };
                add_rows(&mut rows, label, way.way, way.attach, part);
                last = Some(name);
            }
        }
    }
    rows
}

fn add_rows(rows: &mut Vec<Row>, name: &str, way: Way, attach: Duration, part: &SectionReport) {
    let mut first = true;
    for direction in Direction::ALL {
        let stats = &part.directions[direction];
        if stats.ios == 0 {
            continue;
        }
        let once = |text: String| if first { text } else { String::new() };
        let latency = |p| nanoseconds(stats.latencies.percentile(p));
        let memmap = &part.memmap;
        let descriptors = Bytes::new(memmap.descriptor_bytes_peak);
        rows.push([
            once(name.to_owned()),
            once(way.to_string()),
            direction.name().to_owned(),
            count(stats.per_second() as u64),
            format!("{}/s", round(stats.bytes_per_second() as u64)),
            latency(50.0),
            latency(99.0),
            latency(99.9),
            once(count(memmap.faults)),
            once(match memmap.page_table_bytes_peak {
                0 => descriptors.to_string(),
                tables => format!("{descriptors} + {}", Bytes::new(tables)),
            }),
            once(count(memmap.reclaimed)),
            once(count(memmap.shootdowns)),
            once(match way {
                Way::Pfn => "-".to_owned(),
                _ => nanoseconds(u64::try_from(attach.as_nanos()).unwrap_or(u64::MAX)),
            }),
        ]);
        first = false;
    }
}

fn footer(report: &JobReport, plan: &Plan) -> String {
    let mut text = format!(
        "An eager memmap of this device ({}) takes {} of descriptors.",
        plan.device_size(),
        Bytes::new(report.eager_memmap_bytes)
    );
    let lazy = report.ways.iter().find(|w| w.way == Way::Lazy);
    let shared = plan.groups().iter().any(|group| {
        let parts = group.sections.iter().map(|index| {
            let section = &plan.sections()[*index];
            if section.group_reporting {
                1
            } else {
                section.numjobs
            }
        });
        parts.sum::<u32>() > 1
    });
    if let Some(first) = lazy.and_then(|w| w.sections.first()) {
        let budget = Bytes::new(first.memmap.budget_bytes);
        text.push_str(&format!(" The lazy one was held to a budget of {budget}."));
        if shared {
            text.push_str(
                "\nSections that run at the same time share one memmap: its numbers are those of \
                 all of them.",
            );
        }
    }
    text
}

/// In one sentence for each section what the lazy memmap costs against the eager one.
#[must_use]
pub fn verdicts(report: &JobReport, plan: &Plan) -> Vec<String> {
    let find = |way| report.ways.iter().find(move |w| w.way == way);
    let (Some(lazy), Some(eager)) = (find(Way::Lazy), find(Way::Eager)) else {
        return Vec::new();
    };
    // Requests and time of the section's own directions, without reading back to verify.
    let failed = |sections: &[SectionReport], index: usize| {
        let mut mine = sections.iter().filter(|s| s.section == index);
        mine.any(|s| s.mismatches > 0 || !s.failures.is_empty())
    };
    let sum = |sections: &[SectionReport], index: usize| {
        let access = plan.sections()[index].access;
        let mine = sections.iter().filter(move |s| s.section == index);
        let own = mine.flat_map(|s| Direction::ALL.map(|d| (d, &s.directions[d])));
        own.filter(|(d, _)| access.has(*d)).fold(
            (0u64, 0f64, None),
            |(ios, time, whole), (_, stats)| {
                let mut time = time.max(stats.runtime.as_secs_f64());
                let several = whole.is_some() && whole != stats.interval;
                let whole = hull(whole, stats.interval);
                if let Some(whole) = whole.filter(|_| several) {
                    time = time.max(length(whole).as_secs_f64());
                }
                (ios + stats.ios, time, whole)
            },
        )
    };
    let mut lines = Vec::new();
    for (index, section) in plan.sections().iter().enumerate() {
        // How fast wrong answers come is of no interest.
        if failed(&lazy.sections, index) || failed(&eager.sections, index) {
            continue;
        }
        let (lazy_ios, lazy_time, _) = sum(&lazy.sections, index);
        let (eager_ios, eager_time, _) = sum(&eager.sections, index);
        if lazy_ios == 0 || eager_ios == 0 || lazy_time == 0.0 || eager_time == 0.0 {
            continue;
        }
        let ratio = lazy_ios as f64 / lazy_time / (eager_ios as f64 / eager_time);
        let faults: u64 = lazy
            .sections
            .iter()
            .filter(|s| s.section == index)
            .map(|s| s.memmap.faults)
            .max()
            .unwrap_or(0);
        lines.push(format!(
            "{}: the lazy memmap reaches {:.0} % of the eager one's IOPS, with {} descriptor faults",
            shown(&section.name),
            ratio * 100.0,
            count(faults)
        ));
    }
    lines
}

fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::with_capacity(digits.len() * 4 / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(' ');
        }
        out.push(digit);
    }
    out
}

fn round(bytes: u64) -> String {
    match bytes {
        0..1_048_576 => Bytes::new(bytes).to_string(),
        1_048_576..10_737_418_240 => format!("{} MiB", bytes >> 20),
        _ => format!("{:.1} GiB", bytes as f64 / f64::from(1 << 30)),
    }
}

fn nanoseconds(nanos: u64) -> String {
    match nanos {
        0..1_000 => format!("{nanos} ns"),
        1_000..1_000_000 => format!("{:.1} us", nanos as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} ms", nanos as f64 / 1e6),
        _ => format!("{:.2} s", nanos as f64 / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_and_times_have_their_unit() {
        assert_eq!(count(0), "0");
        assert_eq!(count(1_234_567), "1 234 567");
        assert_eq!(count(123_456), "123 456");
        assert_eq!(nanoseconds(999), "999 ns");
        assert_eq!(nanoseconds(1_500), "1.5 us");
        assert_eq!(nanoseconds(2_500_000_000), "2.50 s");
    }
}
