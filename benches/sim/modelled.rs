//! Tables of the modelled clock. No nanosecond in them was measured here: the published ones were measured elsewhere, all
//! others are what the table of costs adds up to.

use comfy_table::{ContentArrangement, Table, presets};
use pageless_fault::shootdown::PolicyKind;
use pageless_fault::sim::{Costs, Scene};

fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table
        .load_preset(presets::ASCII_MARKDOWN)
        .set_content_arrangement(ContentArrangement::Disabled)
        .set_header(header);
    table
}

fn published(table: &mut Table, what: &str, modelled: u64, published: f64, within: f64) {
    let off = (modelled as f64 / published - 1.0) * 100.0;
    table.add_row([
        what.to_owned(),
        modelled.to_string(),
        published.to_string(),
        format!("{off:+.1} %"),
        format!("{within} %"),
        if off.abs() <= within { "yes" } else { "NO" }.to_owned(),
    ]);
}

fn calibrated() -> Table {
    let mut table = table(&[
        "one shootdown",
        "modelled ns",
        "published ns",
        "off by",
        "at most",
        "holds",
    ]);
    for (policy, points, within) in [
        (PolicyKind::SyncIpi, [775.0, 910.0], 10.0),
        (PolicyKind::ConcurrentIpi, [562.0, 758.0], 15.0),
        (PolicyKind::EarlyAck, [260.0, 407.0], 20.0),
    ] {
        for (cpus, point) in [(2, points[0]), (4, points[1])] {
            let scene = Scene::new(cpus, policy, Costs::HASWELL_2019);
            let what = format!(
                "Amit 2019, {}, added by {} targets",
                policy.name(),
                cpus - 1
            );
            published(
                &mut table,
                &what,
                scene.play().unwrap().added(),
                point,
                within,
            );
        }
    }
    for (what, cpus, costs, point) in [
        (
            "LATR 2018, 16 CPUs, 2 sockets",
            16,
            Costs::TWO_SOCKETS_2014,
            6e3,
        ),
        (
            "LATR 2018, 120 CPUs, 8 sockets",
            120,
            Costs::EIGHT_SOCKETS_2013,
            8e4,
        ),
    ] {
        let scene = Scene {
            pace: 100,
            ..Scene::new(cpus, PolicyKind::SyncIpi, costs)
        };
        published(&mut table, what, scene.play().unwrap().waited, point, 10.0);
    }
    let alone = |pages| {
        let scene = Scene {
            pages,
            ..Scene::new(1, PolicyKind::SyncIpi, Costs::IVY_BRIDGE_2014)
        };
        scene.play().unwrap().alone
    };
    let slope = 32 * 227 * 100 / 267;
    let what = "Hansen 2014, own flush of 33 pages less that of 1";
    published(&mut table, what, alone(33) - alone(1), slope as f64, 15.0);
    table.add_row([
        "the same, 33 pages; 34 pages: everything".to_owned(),
        format!("{}; {}", alone(33), alone(34)),
        "a step down".to_owned(),
        "-".to_owned(),
        "sign".to_owned(),
        if alone(34) < alone(33) { "yes" } else { "NO" }.to_owned(),
    ]);
    table
}

fn predicted() -> Table {
    const POLICIES: [PolicyKind; 5] = [
        PolicyKind::SyncIpi,
        PolicyKind::ConcurrentIpi,
        PolicyKind::EarlyAck,
        PolicyKind::Coalescing,
        PolicyKind::Broadcast,
    ];
    let names = POLICIES.map(|policy| format!("{}, modelled ns", policy.name()));
    let header: Vec<&str> = ["CPUs"]
        .into_iter()
        .chain(names.iter().map(String::as_str))
        .collect();
    let mut table = table(&header);
    for cpus in (1..=10).map(|bits| 1_u16 << bits) {
        let waited = POLICIES.map(|policy| {
            let scene = Scene {
                pace: 200,
                ..Scene::new(cpus, policy, Costs::two_modern_sockets(cpus))
            };
            scene.play().unwrap().waited.to_string()
        });
        table.add_row([cpus.to_string()].into_iter().chain(waited));
    }
    table
}

/// Prints all of them.
pub(crate) fn print() {
    println!(
        "\nmodelled against published: calibrated, since the costs were set so that these points come out\n"
    );
    println!("{}", calibrated());
    println!(
        "\nmodelled prediction, NOT calibrated: one page, two modern sockets with half of the CPUs each, all running\n"
    );
    println!("{}", predicted());
}
