//! Hazard: an event that a subscriber sees under another name, or with another number, than the
//! kernel's tracepoint would have.
#![cfg(feature = "tracing")]

extern crate alloc;

#[path = "blktrace/run.rs"]
mod run;

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use core::fmt::Debug;
use std::sync::Mutex;

use pageless_block::{
    Action, BioFlags, BlkError, DeviceNumber, Event, EventCounts, Op, Probe, TracingProbe,
};
use tracing::field::{Field, Visit};
use tracing::span;

/// What a subscriber was told of one event.
#[derive(Clone, Debug, Default)]
struct Seen {
    name: &'static str,
    target: String,
    fields: BTreeMap<&'static str, String>,
}

impl Visit for Seen {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.fields.insert(field.name(), format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.fields.insert(field.name(), value.to_owned());
    }
}

#[derive(Clone, Default)]
struct Subscriber(Arc<Mutex<Vec<Seen>>>);

impl tracing::Subscriber for Subscriber {
    fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        unreachable!("a probe opens no spans")
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        let mut seen = Seen {
            name: event.metadata().name(),
            target: event.metadata().target().to_owned(),
            fields: BTreeMap::new(),
        };
        event.record(&mut seen);
        self.0.lock().unwrap().push(seen);
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

fn seen(tell: impl FnOnce(&TracingProbe)) -> Vec<Seen> {
    let subscriber = Subscriber::default();
    let all = Arc::clone(&subscriber.0);
    let probe = TracingProbe::new(DeviceNumber::try_new(259, 3).unwrap());
    tracing::subscriber::with_default(subscriber, || tell(&probe));
    let all = all.lock().unwrap();
    all.clone()
}

#[test]
fn each_action_has_the_name_of_its_tracepoint() {
    let tag = Some(run::tag());
    let table = [
        (Action::Queue, None, "block_bio_queue"),
        (Action::BackMerge, None, "block_bio_backmerge"),
        (Action::FrontMerge, None, "block_bio_frontmerge"),
        (Action::GetRequest, tag, "block_getrq"),
        (Action::SleepRequest, None, "block_sleeprq"),
        (Action::Requeue, tag, "block_rq_requeue"),
        (Action::Issue, tag, "block_rq_issue"),
        (Action::Complete, tag, "block_rq_complete"),
        (Action::Complete, None, "block_bio_complete"),
        (Action::Plug, None, "block_plug"),
        (Action::Unplug, None, "block_unplug"),
        (Action::Insert, tag, "block_rq_insert"),
        (Action::Split, None, "block_split"),
        (Action::Bounce, None, "block_bio_bounce"),
        (Action::Remap, None, "block_bio_remap"),
        (Action::Remap, tag, "block_rq_remap"),
        (Action::Abort, tag, "block_rq_abort"),
    ];
    for (action, tag, name) in table {
        let seen = seen(|probe| {
            probe.event(&Event {
                tag,
                ..run::event(action, 0, 8, 4096)
            });
        });
        assert_eq!(seen.len(), 1, "{action:?}: {seen:?}");
        assert_eq!((seen[0].name, seen[0].target.as_str()), (name, "block"));
    }
    for action in Action::ALL {
        assert!(table.iter().any(|row| row.0 == action), "{action:?}");
    }
}

#[test]
fn fields_are_typed_and_in_the_kernels_units() {
    let tag = run::tag();
    let seen = seen(|probe| {
        probe.event(&Event {
            op: Op::Write,
            flags: BioFlags::FLUSHES | BioFlags::SYNC | BioFlags::META,
            tag: Some(tag),
            error: Some(BlkError::Medium),
            context: 3,
            ..run::event(Action::Complete, 7, 100, 4096)
        });
        probe.event(&Event {
            detail: 104,
            ..run::event(Action::Split, 7, 100, 4096)
        });
        probe.event(&Event {
            detail: 5,
            ..run::event(Action::Unplug, 7, 100, 4096)
        });
    });
    let names: Vec<&str> = seen.iter().map(|seen| seen.name).collect();
    assert_eq!(
        names,
        [
            "block_rq_complete",
            "block_rq_error",
            "block_split",
            "block_unplug"
        ]
    );
    let field = |at: usize, name| seen[at].fields.get(name).map(String::as_str);
    for (name, value) in [
        ("dev", "259:3"),
        ("queue", "0"),
        ("cpu", "3"),
        ("time", "7000"),
        ("tag", "0"),
        ("sector", "100"),
        ("nr_sector", "8"),
        ("bytes", "4096"),
        ("rwbs", "FWFSM"),
        ("ioprio", "0"),
        ("error", "-61"),
    ] {
        assert_eq!(field(0, name), Some(value), "{name}");
        assert_eq!(field(1, name), Some(value), "{name}");
    }
    assert!(field(1, "reason").is_some());
    assert_eq!(field(2, "new_sector"), Some("104"));
    assert_eq!(field(2, "tag"), None);
    assert_eq!(field(3, "nr_rq"), Some("5"));
    assert_eq!(field(3, "sector"), None);
}

#[test]
fn every_event_of_a_run_arrives() {
    let counts = Arc::new(EventCounts::new());
    let seen = seen(|probe| run::play(&(*probe, Arc::clone(&counts)), 16));
    let all: u64 = Action::ALL
        .into_iter()
        .map(|action| counts.get(action))
        .sum();
    assert_eq!(seen.len() as u64, all + counts.errors());
    assert_ne!(counts.errors(), 0);
}
