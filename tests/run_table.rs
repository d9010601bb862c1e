//! Hazard: the table hides what the memmap holds, breaks on a narrow terminal, or praises a run that
//! has failed.

extern crate alloc;

use pageless::job::{Bytes, IniFile, Job, Plan, PlanOptions};
use pageless::run::{
    Control, JobReport, MemmapOptions, Stage, StageOptions, Ways, run_job, table, verdicts,
};

fn run(text: &str) -> (Plan, JobReport) {
    let ini = IniFile::parse("j.fio", text, |_| None).expect("parses");
    let job = Job::from_ini(&ini).expect("understood");
    let plan = job.plan(&PlanOptions::default()).expect("fits");
    let stage = Stage::prepare(&plan, &StageOptions::default()).expect("prepares");
    let memmap = MemmapOptions {
        chunk: None,
        budget: Some(Bytes::new(128 << 10)),
    };
    let control = Control::default();
    let report = run_job(&stage, Ways::All, &memmap, &control, &mut ()).expect("runs");
    drop(stage);
    (plan, report)
}

const JOB: &str = "\
[global]
rw=randrw
size=16m
bs=4k
filename=f
[first]
[second]
stonewall
";

fn widest(text: &str) -> usize {
    text.lines().map(|l| l.chars().count()).max().unwrap_or(0)
}

#[test]
fn page_tables_stand_beside_descriptors() {
    let (plan, report) = run(JOB);
    let memmap = report.ways[1].sections[0].memmap;
    assert!(memmap.page_table_bytes_peak > 0);
    let both = format!(
        "{} + {}",
        Bytes::new(memmap.descriptor_bytes_peak),
        Bytes::new(memmap.page_table_bytes_peak)
    );
    let text = table(&report, &plan, None);
    assert!(text.contains(&both), "{both}: {text}");
}

#[test]
fn a_narrow_terminal_gets_the_same_in_two_tables_that_fit() {
    let (plan, report) = run(JOB);
    let wide = table(&report, &plan, None);
    assert!(widest(&wide) > 100, "{wide}");
    assert_eq!(table(&report, &plan, Some(300)), wide);
    for width in [100, 80, 60] {
        let narrow = table(&report, &plan, Some(width));
        let tables = narrow.split("An eager memmap").next().expect("a footer");
        assert!(widest(tables) <= usize::from(width), "{width}:\n{narrow}");
        if width >= 80 {
            for word in [
                "p99.9",
                "shootdowns",
                "reclaimed",
                "attach",
                "first",
                "second",
            ] {
                assert!(narrow.contains(word), "{word}: {narrow}");
            }
        }
    }
}

#[test]
fn a_section_that_did_not_verify_gets_no_verdict() {
    let (plan, mut report) = run(JOB);
    let sections = |report: &JobReport| verdicts(report, &plan).len();
    assert_eq!(sections(&report), 2);
    report.ways[1].sections[0].mismatches = 1;
    assert_eq!(sections(&report), 1);
    report.ways[2].sections[1].mismatches = 1;
    assert_eq!(sections(&report), 0);
}

#[test]
fn sections_that_share_a_memmap_say_so_once() {
    let shared = "share one memmap";
    let (plan, report) = run(JOB);
    assert!(!table(&report, &plan, None).contains(shared));
    let (plan, report) = run(&JOB.replace("stonewall", ""));
    assert_eq!(table(&report, &plan, None).matches(shared).count(), 1);
    let (plan, report) = run(&format!("{JOB}numjobs=2\ngroup_reporting\n"));
    assert!(!table(&report, &plan, None).contains(shared));
}
