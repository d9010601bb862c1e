//! Hazard: a bio that is let through, refused or carried out otherwise than Linux would, and nobody meant it.
//!
//! Every operation, with every set of flags that matters, in every shape, on every kind of device; generated, not
//! sampled. What comes out is compared with an independent statement of Linux's rules ([`rules`]) and
//! of where we deviate from them ([`deviation`]): the status, the errno, and each request that the
//! driver saw, with its flags, in order.

mod case;
mod deviation;
mod rules;

use core::cell::RefCell;

use case::{Case, Device, Shape, corner_devices, every_device, every_pair, every_rule};
use deviation::Deviation;
use pageless_block::{
    BioFlags, BlockDevice, Context, Features, Limits, Op, QueueId, RejectReason, Request,
    RequestQueue, Sector, Submitted,
};
use pageless_pfn::ByteLen;
use rules::{Answer, OK, Outcome, Seen, Whose, outcome};
use smallvec::SmallVec;

/// Takes everything, and remembers what it was.
struct Recorder {
    limits: Limits,
    seen: RefCell<SmallVec<[Seen; 6]>>,
}

impl BlockDevice for Recorder {
    fn limits(&self) -> Limits {
        self.limits
    }

    fn submit(&self, request: Request) -> Submitted {
        self.seen.borrow_mut().push(Seen {
            op: request.op(),
            flags: request.flags(),
            start: request.position().get(),
            len: request.len().get(),
        });
        request.run(|_| Ok(()))
    }
}

/// Submits the bio of `case`, and says what became of it.
fn what_happens(context: &mut Context<'_, Recorder>, case: &Case) -> Outcome {
    let (op, shape) = (case.op, case.shape);
    let len = if op.carries_data() { 0 } else { shape.len() };
    let sector = Sector::new(shape.start() / pageless_block::SECTOR_SIZE);
    let mut bio = context
        .pool()
        .with_range(op, sector, ByteLen::new(len))
        .with_flags(case.flags);
    if op.carries_data() {
        bio.extend(shape.segments());
    }
    let answer = match context.submit(bio) {
        Ok(()) => {
            let done = context.reap().expect("completes at once");
            let bytes = done.done().get();
            let answer = match done.result() {
                Ok(()) => {
                    assert_eq!(bytes, shape.len(), "{case:?}");
                    OK
                }
                Err(error) => {
                    assert_eq!(bytes, 0, "{case:?}");
                    Answer::Status(error.code(), error.errno())
                }
            };
            let bio = done.into_bio();
            assert_eq!(bio.flags(), case.flags, "the caller's flags: {case:?}");
            context.pool().put(bio);
            answer
        }
        Err(back) => {
            assert_eq!(back.reason, RejectReason::NoBytes { op }, "{case:?}");
            context.pool().put(back.bio);
            Answer::Rejected
        }
    };
    let seen = context.queue().device().seen.take();
    Outcome { answer, seen }
}

/// How often each deviation made a difference.
type Tally = [u64; Deviation::ALL.len()];

/// Goes through all cases of `op` on these devices, and says how many there were.
fn sweep(
    op: Op,
    devices: impl Iterator<Item = Device>,
    flags: &[BioFlags],
    tally: &mut Tally,
) -> usize {
    let mut cells = 0;
    for device in devices {
        let recorder = Recorder {
            limits: device.limits(),
            seen: RefCell::default(),
        };
        let queue = RequestQueue::with_depth(recorder, 4).unwrap();
        let mut context = queue.context(QueueId::new(0)).unwrap();
        for &flags in flags {
            for shape in Shape::of(op) {
                let case = Case {
                    op,
                    flags,
                    shape,
                    device,
                };
                check(&mut context, &case, tally);
                cells += 1;
            }
        }
        assert_eq!((context.in_flight(), queue.in_flight()), (0, 0));
    }
    cells
}

fn check(context: &mut Context<'_, Recorder>, case: &Case, tally: &mut Tally) {
    let mut points: SmallVec<[Deviation; 8]> = SmallVec::new();
    let mut note = |deviation| points.push(deviation);
    let expected = outcome(case, Whose::Ours(&mut note));
    let found = what_happens(context, case);
    assert_eq!(found, expected, "{case:?}, where we deviate by {points:?}");
    // Never, whatever the rules above say.
    let features = case.device.features;
    for seen in &found.seen {
        assert!(!seen.flags.contains(BioFlags::PREFLUSH), "{case:?}");
        if !features.contains(Features::FUA | Features::WRITE_CACHE) {
            assert!(!seen.flags.contains(BioFlags::FUA), "{case:?}");
        }
        if !features.contains(Features::WRITE_CACHE) {
            assert_ne!(seen.op, Op::Flush, "{case:?}");
        }
    }
    if points.is_empty() || outcome(case, Whose::Linux) == expected {
        return;
    }
    for point in points {
        tally[point as usize] += 1;
    }
}

macro_rules! sweeps {
    ($($name:ident: $op:ident),*) => {$(
        mod $name {
            use super::*;

            #[test]
            fn follows_the_rules_with_every_set_of_flags_that_have_any() {
                let (op, mut tally) = (Op::$op, Tally::default());
                let cells = sweep(op, every_device(op), &every_rule(), &mut tally);
                assert!(cells >= 128 * 128 * 2 * 4, "{cells} cells");
            }

            #[test]
            fn follows_the_rules_with_every_flag_and_every_pair_of_flags() {
                let (op, mut tally) = (Op::$op, Tally::default());
                let cells = sweep(op, corner_devices(op), &every_pair(), &mut tally);
                assert!(cells >= 231 * 16 * 2 * 4, "{cells} cells");
            }
        }
    )*};
}

sweeps! {
    read: Read,
    write: Write,
    flush: Flush,
    discard: Discard,
    secure_erase: SecureErase,
    zone_append: ZoneAppend,
    write_zeroes: WriteZeroes,
    zone_open: ZoneOpen,
    zone_close: ZoneClose,
    zone_finish: ZoneFinish,
    zone_reset: ZoneReset,
    zone_reset_all: ZoneResetAll,
    driver_in: DriverIn,
    driver_out: DriverOut
}

/// A deviation that makes no difference any more is one to be taken off the list.
#[test]
fn every_deviation_on_the_list_occurs() {
    let mut tally = Tally::default();
    for op in Op::ALL {
        sweep(op, corner_devices(op), &every_pair(), &mut tally);
    }
    for deviation in Deviation::ALL {
        let times = tally[deviation as usize];
        assert!(times > 0, "{deviation:?} makes no difference anywhere");
    }
}

#[test]
fn a_device_that_has_everything_accepts_every_operation_that_a_bio_may_ask_for() {
    let limits = Device::everything().limits();
    let recorder = Recorder {
        limits,
        seen: RefCell::default(),
    };
    let queue = RequestQueue::with_depth(recorder, 4).unwrap();
    let mut context = queue.context(QueueId::new(0)).unwrap();
    for op in Op::ALL {
        let shape = match op.has_range() {
            true => Shape::Block,
            false => Shape::Empty,
        };
        let case = Case {
            op,
            flags: BioFlags::empty(),
            shape,
            device: Device::everything(),
        };
        let found = what_happens(&mut context, &case);
        let never = matches!(op, Op::Flush | Op::DriverIn | Op::DriverOut);
        assert_eq!(found.answer == OK, !never, "{op}: {found:?}");
        assert_eq!(found.seen.len(), usize::from(!never), "{op}: {found:?}");
    }
}

/// The table of the design notes.
fn table() -> impl Iterator<Item = String> {
    Deviation::ALL.into_iter().map(|deviation| {
        let story = deviation.story();
        let (what, linux, here, why) = (story.what, story.linux, story.here, story.why);
        format!("| {what} | {linux} | {here} | {why} |")
    })
}

#[test]
#[ignore = "prints the table for the design notes"]
fn print_the_deviations() {
    println!("| a bio | Linux 6.12 | here | because |\n|---|---|---|---|");
    table().for_each(|row| println!("{row}"));
}

#[test]
#[cfg_attr(miri, ignore = "reads a file")]
fn the_design_notes_have_the_table_that_is_printed() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../design/block.md");
    let Ok(notes) = std::fs::read_to_string(path) else {
        // A crate without its repository has no design notes.
        return;
    };
    for row in table() {
        assert!(notes.lines().any(|line| line == row), "missing: {row}");
    }
}
