//! Hazard: a job file makes the reader panic, or a plan issues a request outside its region.

extern crate alloc;

use pageless::job::workload::Next;
use pageless::job::{Bytes, IniFile, Job, PlanOptions, honoured_names};
use proptest::prelude::*;

/// Reads, understands and plans, and tries the first requests of every thread.
fn survive(text: &str, device: Option<u64>) {
    let options = PlanOptions {
        device: device.map(Bytes::new),
        seed: Some(1),
    };
    let Ok(ini) = IniFile::parse("j.fio", text, |_| None) else {
        return;
    };
    let Ok(job) = Job::from_ini(&ini) else { return };
    let Ok(plan) = job.plan(&options) else { return };
    let device = plan.device_size().get();
    for section in 0..plan.sections().len() {
        // A map of the visited blocks may take memory; small regions show the same mistakes.
        let Some(thread) = plan.threads_of(section).find(|t| t.len.get() <= 1 << 30) else {
            continue;
        };
        let area = &plan.areas()[thread.area];
        let mut generator = plan.generator(thread).expect("planning has checked it");
        for _ in 0..300 {
            let Next::Request(request) = generator.next_request() else {
                generator.restart();
                continue;
            };
            let end = request.offset + u64::from(request.len);
            assert!(
                request.len > 0 && end <= thread.len.get(),
                "{text}\n{request:?} {thread:?}"
            );
            let place = area.start.get() + thread.offset.get() + request.offset;
            assert!(
                place % 512 == 0 && request.len % 512 == 0,
                "{text}\n{request:?}"
            );
            assert!(
                place + u64::from(request.len) <= device,
                "{text}\n{request:?}"
            );
        }
    }
}

fn value() -> impl Strategy<Value = String> {
    let words = [
        "0",
        "1",
        "2",
        "7",
        "100",
        "512",
        "4k",
        "1m",
        "3g",
        "50%",
        "100%",
        "1p",
        "16000p",
        "4k-64k",
        "64k-4k",
        "4k/50:8k/50",
        "512/1:1m/99",
        "4k,8k",
        "4k,,8k",
        ",,",
        "1-3",
        "100ms",
        "3d",
        "randrw",
        "randwrite:8",
        "write:4k",
        "read",
        "trimwrite",
        "randtrimwrite",
        "randtrim",
        "rw",
        "zipf:1.2",
        "pareto:0.2",
        "normal:20",
        "zoned:50/10:50/90",
        "zoned_abs:50/1m:50/64k",
        "crc32c",
        "md5",
        "pattern",
        "0xff%o",
        "99:99.9",
        "-1",
        "18446744073709551615",
        "",
    ];
    prop_oneof![
        9 => proptest::sample::select(words.to_vec()).prop_map(str::to_owned),
        1 => "[ -~]{0,12}",
    ]
}

fn option() -> impl Strategy<Value = String> {
    let names: Vec<&'static str> = honoured_names().collect();
    (proptest::sample::select(names), value()).prop_map(|(name, value)| format!("{name}={value}"))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn any_text_is_read_or_refused(text in "(\\[?[ -~\u{e9}\t]{0,20}\\]?\n){0,8}") {
        survive(&text, Some(1 << 20));
    }

    #[test]
    fn any_options_are_planned_or_refused(
        sections in prop::collection::vec(prop::collection::vec(option(), 0..6), 1..4),
        device in prop::option::of(1u64..1 << 40),
    ) {
        let mut text = String::new();
        for (n, options) in sections.iter().enumerate() {
            text.push_str(&format!("[s{n}]\n{}\n", options.join("\n")));
        }
        survive(&text, device);
    }

    #[test]
    fn requests_stay_within_their_region_whatever_the_shape(
        rw in proptest::sample::select(&[
            "read", "write:4k", "randread", "randwrite:5", "randrw", "trimwrite", "randtrimwrite",
        ][..]),
        bs in proptest::sample::select(&[
            "bs=512", "bs=4k", "bs=1536", "bsrange=512-9k", "bssplit=1k/40:6k/60", "bs=4k,1k,2k",
        ][..]),
        more in proptest::sample::select(&[
            "", "norandommap", "random_distribution=zipf:1.2", "random_distribution=normal:30",
            "random_distribution=zoned:70/5:30/95", "ba=8k", "random_distribution=pareto:0.1",
        ][..]),
        size in 16_384u64..2_000_000,
        offset in 0u64..100_000,
        io in 1u64..4_000_000,
    ) {
        survive(
            &format!("[a]\nrw={rw}\n{bs}\n{more}\nsize={size}\noffset={offset}\nio_size={io}\n"),
            None,
        );
    }
}
