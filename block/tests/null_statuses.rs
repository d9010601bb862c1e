//! Hazard: a status that is not the one null_blk would give, so that what a caller learns from the null
//! device is wrong for a real one. One row for each way in which a request can end.

extern crate alloc;

use alloc::sync::Arc;
use core::time::Duration;

use pageless_block::{
    Bio, BioFlags, BlkError, CompletionMode, FaultAttr, HeapFrames, ManualClock, NullBlk,
    NullConfig, Op, QueueConfig, QueueId, RequestQueue, Sector, ZoneConfig, ZoneFault,
};
use pageless_pfn::{ByteLen, FrameCount, PAGE_SIZE, Pfn, PhysSegment};
use proptest::prelude::*;

const MIB: ByteLen = ByteLen::new(1 << 20);

fn frames(count: u64) -> Arc<HeapFrames> {
    let base = Pfn::try_new(0x100).unwrap();
    Arc::new(HeapFrames::new(base, FrameCount::new(count)).unwrap())
}

fn segment(frames: &HeapFrames, offset: u64, len: u64) -> PhysSegment {
    frames.segment(offset, ByteLen::new(len)).unwrap()
}

/// Sectors that a request is about, and what it asks for.
#[derive(Clone, Copy)]
enum Ask {
    Read(u64, u64),
    Write(u64, u64),
    Append(u64, u64),
    Discard(u64, u64),
    Manage(Op, u64),
    Flush,
    Nowait,
}

type Device = NullBlk<Arc<HeapFrames>>;

struct Row {
    what: &'static str,
    knobs: fn(&mut NullConfig),
    /// What happened before.
    before: fn(&Device),
    asks: &'static [Ask],
    /// Of the last one: its status number (0 is success), its errno and how many sectors are done.
    code: u8,
    errno: i32,
    done: u64,
}

fn nothing(_: &Device) {}

fn plain(_: &mut NullConfig) {}

fn bad(config: &mut NullConfig) {
    config.badblocks.apply("+12-12".parse().unwrap()).unwrap();
}

/// 32 zones of 64 sectors, one of them conventional, one open and two active at most.
fn zoned(config: &mut NullConfig) {
    let mut zones = ZoneConfig::new(MIB, ByteLen::new(32 << 10));
    (zones.nr_conv, zones.max_open, zones.max_active) = (1, 1, 2);
    zones.append_max = ByteLen::new(4096);
    config.zoned = Some(zones);
}

fn offline(device: &Device) {
    device
        .set_zone_condition(Sector::new(64), ZoneFault::Offline)
        .unwrap();
}

fn read_only(device: &Device) {
    device
        .set_zone_condition(Sector::new(64), ZoneFault::ReadOnly)
        .unwrap();
}

const ROWS: &[Row] = &[
    Row {
        what: "a write",
        knobs: plain,
        before: nothing,
        asks: &[Ask::Write(0, 8)],
        code: 0,
        errno: 0,
        done: 8,
    },
    Row {
        what: "a read",
        knobs: plain,
        before: nothing,
        asks: &[Ask::Read(0, 8)],
        code: 0,
        errno: 0,
        done: 8,
    },
    Row {
        what: "a flush",
        knobs: plain,
        before: nothing,
        asks: &[Ask::Flush],
        code: 0,
        errno: 0,
        done: 0,
    },
    Row {
        what: "past the end",
        knobs: plain,
        before: nothing,
        asks: &[Ask::Write(2044, 8)],
        code: 10,
        errno: 5,
        done: 0,
    },
    Row {
        what: "parts of a block",
        knobs: |c| c.bs = ByteLen::new(4096),
        before: nothing,
        asks: &[Ask::Write(1, 8)],
        code: 19,
        errno: 22,
        done: 0,
    },
    Row {
        what: "no discard",
        knobs: plain,
        before: nothing,
        asks: &[Ask::Discard(0, 8)],
        code: 1,
        errno: 95,
        done: 0,
    },
    Row {
        what: "a discard",
        knobs: |c| (c.discard, c.memory_backed) = (true, true),
        before: nothing,
        asks: &[Ask::Discard(0, 8)],
        code: 0,
        errno: 0,
        done: 8,
    },
    Row {
        what: "no zones",
        knobs: plain,
        before: nothing,
        asks: &[Ask::Manage(Op::ZoneReset, 0)],
        code: 1,
        errno: 95,
        done: 0,
    },
    Row {
        what: "no appends",
        knobs: plain,
        before: nothing,
        asks: &[Ask::Append(0, 8)],
        code: 1,
        errno: 95,
        done: 0,
    },
    Row {
        what: "would wait",
        knobs: |c| c.blocking = true,
        before: nothing,
        asks: &[Ask::Nowait],
        code: 1,
        errno: 95,
        done: 0,
    },
    Row {
        what: "a bad sector",
        knobs: bad,
        before: nothing,
        asks: &[Ask::Write(8, 8)],
        code: 10,
        errno: 5,
        done: 0,
    },
    Row {
        what: "a bad sector, in part",
        knobs: |c| (bad(c), c.badblocks_partial_io = true).1,
        before: nothing,
        asks: &[Ask::Read(8, 8)],
        code: 10,
        errno: 5,
        done: 4,
    },
    Row {
        what: "a bad sector, once",
        knobs: |c| (bad(c), c.badblocks_once = true).1,
        before: nothing,
        asks: &[Ask::Write(8, 8), Ask::Write(8, 8)],
        code: 0,
        errno: 0,
        done: 8,
    },
    Row {
        what: "a timeout",
        knobs: |c| c.timeouts = FaultAttr::ALWAYS,
        before: nothing,
        asks: &[Ask::Write(0, 8)],
        code: 2,
        errno: 110,
        done: 0,
    },
    Row {
        what: "turned away at first",
        knobs: |c| c.requeues = "1,100,0,3".parse().unwrap(),
        before: nothing,
        asks: &[Ask::Write(0, 8)],
        code: 0,
        errno: 0,
        done: 8,
    },
    Row {
        what: "throttled",
        knobs: |c| c.mbps = 1,
        before: nothing,
        asks: &[Ask::Write(0, 32), Ask::Write(32, 32)],
        code: 0,
        errno: 0,
        done: 32,
    },
    Row {
        what: "a zone",
        knobs: zoned,
        before: nothing,
        asks: &[Ask::Write(64, 8), Ask::Write(72, 8)],
        code: 0,
        errno: 0,
        done: 8,
    },
    Row {
        what: "not at the write pointer",
        knobs: zoned,
        before: nothing,
        asks: &[Ask::Write(65, 8)],
        code: 10,
        errno: 5,
        done: 0,
    },
    Row {
        what: "past a zone's capacity",
        knobs: |c| {
            zoned(c);
            c.zoned.as_mut().unwrap().zone_capacity = ByteLen::new(2048);
        },
        before: nothing,
        asks: &[Ask::Write(64, 8)],
        code: 10,
        errno: 5,
        done: 0,
    },
    Row {
        what: "a full zone",
        knobs: zoned,
        before: nothing,
        asks: &[Ask::Manage(Op::ZoneFinish, 64), Ask::Append(64, 8)],
        code: 10,
        errno: 5,
        done: 0,
    },
    Row {
        what: "an append",
        knobs: zoned,
        before: nothing,
        asks: &[Ask::Append(64, 8)],
        code: 0,
        errno: 0,
        done: 8,
    },
    Row {
        what: "an append to a conventional zone",
        knobs: zoned,
        before: nothing,
        asks: &[Ask::Append(0, 8)],
        code: 10,
        errno: 5,
        done: 0,
    },
    Row {
        what: "an append away from a zone's start",
        knobs: zoned,
        before: nothing,
        asks: &[Ask::Append(65, 1)],
        code: 10,
        errno: 5,
        done: 0,
    },
    Row {
        what: "a conventional zone",
        knobs: zoned,
        before: nothing,
        asks: &[Ask::Write(7, 8)],
        code: 0,
        errno: 0,
        done: 8,
    },
    Row {
        what: "too many active zones",
        knobs: zoned,
        before: nothing,
        asks: &[Ask::Write(64, 1), Ask::Write(128, 1), Ask::Write(192, 1)],
        code: 15,
        errno: 75,
        done: 0,
    },
    Row {
        what: "too many open zones",
        knobs: zoned,
        before: nothing,
        asks: &[Ask::Manage(Op::ZoneOpen, 64), Ask::Write(128, 1)],
        code: 14,
        errno: 109,
        done: 0,
    },
    Row {
        what: "a reset away from a zone's start",
        knobs: zoned,
        before: nothing,
        asks: &[Ask::Manage(Op::ZoneReset, 65)],
        code: 10,
        errno: 5,
        done: 0,
    },
    Row {
        what: "closing an empty zone",
        knobs: zoned,
        before: nothing,
        asks: &[Ask::Manage(Op::ZoneClose, 64)],
        code: 10,
        errno: 5,
        done: 0,
    },
    Row {
        what: "managing a conventional zone",
        knobs: zoned,
        before: nothing,
        asks: &[Ask::Manage(Op::ZoneFinish, 0)],
        code: 10,
        errno: 5,
        done: 0,
    },
    Row {
        what: "reading an offline zone",
        knobs: zoned,
        before: offline,
        asks: &[Ask::Read(64, 1)],
        code: 10,
        errno: 5,
        done: 0,
    },
    Row {
        what: "resetting an offline zone",
        knobs: zoned,
        before: offline,
        asks: &[Ask::Manage(Op::ZoneReset, 64)],
        code: 10,
        errno: 5,
        done: 0,
    },
    Row {
        what: "resetting all but it",
        knobs: zoned,
        before: offline,
        asks: &[Ask::Manage(Op::ZoneResetAll, 0)],
        code: 0,
        errno: 0,
        done: 0,
    },
    Row {
        what: "reading a read-only zone",
        knobs: zoned,
        before: read_only,
        asks: &[Ask::Read(64, 1)],
        code: 0,
        errno: 0,
        done: 1,
    },
    Row {
        what: "writing a read-only zone",
        knobs: zoned,
        before: read_only,
        asks: &[Ask::Write(64, 1)],
        code: 10,
        errno: 5,
        done: 0,
    },
];

#[test]
fn every_way_to_end_has_the_status_that_null_blk_gives() {
    let modes = [
        CompletionMode::None,
        CompletionMode::Softirq,
        CompletionMode::DEFAULT_TIMER,
    ];
    for row in ROWS {
        for completion in modes {
            let mut config = NullConfig::new(MIB);
            config.completion = completion;
            (row.knobs)(&mut config);
            let (memory, clock) = (frames(8), Arc::new(ManualClock::new()));
            let device = NullBlk::try_new(config, Arc::clone(&memory), clock.clone()).unwrap();
            (row.before)(&device);
            let config = QueueConfig {
                clock: Some(clock.clone()),
                timeout: Some(Duration::from_secs(30)),
                ..QueueConfig::default()
            };
            let queue = RequestQueue::try_new(&device, config).unwrap();
            let mut context = queue.context(QueueId::new(0)).unwrap();
            let mut last = None;
            for ask in row.asks {
                let memory = |sectors: u64| segment(&memory, 0, sectors * 512);
                let bio: Bio = match *ask {
                    Ask::Read(at, len) => Bio::read(Sector::new(at), memory(len)).into(),
                    Ask::Write(at, len) => Bio::write(Sector::new(at), memory(len)).into(),
                    Ask::Append(at, len) => Bio::zone_append(Sector::new(at), memory(len)).into(),
                    Ask::Discard(at, len) => {
                        Bio::discard(Sector::new(at), ByteLen::new(len * 512)).into()
                    }
                    Ask::Manage(op, at) => Bio::manage_zone(op, Sector::new(at)).into(),
                    Ask::Flush => Bio::flush().into(),
                    Ask::Nowait => Bio::write(Sector::new(0), memory(8))
                        .with_flags(BioFlags::NOWAIT)
                        .into(),
                };
                context.submit(bio).unwrap();
                let done = loop {
                    match context.reap() {
                        Some(done) => break done,
                        None => clock.advance(Duration::from_secs(1)),
                    }
                };
                let error = done.result().err();
                let numbers = error.map_or((0, 0), |error| (error.code(), error.errno()));
                last = Some((numbers, done.done().get() / 512));
            }
            let expected = Some(((row.code, row.errno), row.done));
            assert_eq!(last, expected, "{} ({completion:?})", row.what);
        }
    }
}

#[test]
fn no_memory_for_what_is_written_is_no_space() {
    // The store has a limit of its own: `Ram` and the null device share it.
    let error = pageless_block::SparseError::NoMemory {
        resident: FrameCount::new(3),
    };
    assert_eq!(BlkError::from(error).errno(), 28);
}

#[test]
fn appends_of_threads_fill_a_zone_without_a_gap() {
    let (memory, clock) = (frames(2), Arc::new(ManualClock::new()));
    let mut config = NullConfig::new(MIB);
    config.memory_backed = true;
    config.completion = CompletionMode::None;
    zoned(&mut config);
    let device = NullBlk::try_new(config, Arc::clone(&memory), clock).unwrap();
    let queue = &RequestQueue::with_depth(&device, 8).unwrap();
    let places = std::thread::scope(|scope| {
        let threads = [0, 1].map(|id: u64| {
            let memory = &memory;
            scope.spawn(move || {
                let mut context = queue.shared_context(QueueId::new(0)).unwrap();
                let mut places = vec![];
                for _ in 0..32 {
                    let buffer = segment(memory, id * PAGE_SIZE, 512);
                    context
                        .submit(Bio::zone_append(Sector::new(64), buffer))
                        .unwrap();
                    context.drain(|done| places.push(done.written().unwrap().get()));
                }
                places
            })
        });
        let mut places = threads.map(|thread| thread.join().unwrap()).concat();
        places.sort_unstable();
        places
    });
    assert_eq!(places, (64..128).collect::<Vec<_>>());
    let zone = device.report_zones(Sector::new(64), 1)[0];
    assert_eq!(zone.cond, pageless_block::ZoneCond::Full);
}

#[derive(Clone, Debug)]
enum Step {
    Write(u64, u64, u8),
    Read(u64, u64),
    Discard(u64, u64),
    Bad(u64, u64, bool),
}

const SECTORS: u64 = 64;

fn step() -> impl Strategy<Value = Step> {
    let range = || (0..SECTORS, 1..12_u64).prop_map(|(at, len)| (at, len.min(SECTORS - at)));
    prop_oneof![
        3 => (range(), 1..=255_u8).prop_map(|((at, len), byte)| Step::Write(at, len, byte)),
        3 => range().prop_map(|(at, len)| Step::Read(at, len)),
        1 => range().prop_map(|(at, len)| Step::Discard(at, len)),
        1 => (range(), any::<bool>()).prop_map(|((at, len), bad)| Step::Bad(at, len, bad)),
    ]
}

proptest! {
    #[test]
    fn a_device_with_bad_sectors_is_an_array_with_some(
        steps in prop::collection::vec(step(), 1..60),
        (partial, once) in any::<(bool, bool)>(),
        max_sectors in prop_oneof![Just(0), 1..6_u32],
    ) {
        let mut config = NullConfig::new(ByteLen::new(SECTORS * 512));
        (config.memory_backed, config.discard) = (true, true);
        (config.badblocks_partial_io, config.badblocks_once) = (partial, once);
        config.max_sectors = max_sectors;
        let memory = frames(2);
        let clock = Arc::new(ManualClock::new());
        let device = NullBlk::try_new(config, Arc::clone(&memory), clock).unwrap();
        let queue = RequestQueue::with_depth(&device, 32).unwrap();
        let mut context = queue.context(QueueId::new(0)).unwrap();
        let mut plain = [0_u8; SECTORS as usize];
        let mut bad = [false; SECTORS as usize];
        // What happens to a bio that may have been cut: each piece on its own.
        let pieces = |at: u64, len: u64, cut: bool| {
            let most = match max_sectors {
                sectors if sectors > 0 && cut => u64::from(sectors),
                _ => len,
            };
            (at..at + len).step_by(most as usize)
                .map(move |start| (start, most.min(at + len - start)))
        };
        for step in steps {
            let mut run = |bio: Bio| {
                context.submit(bio).unwrap();
                let mut end = None;
                context.drain(|done| end = Some((done.result(), done.done().get() / 512)));
                end.unwrap()
            };
            // Each piece: how many of its sectors are done.
            let mut carried = |at: u64, len: u64, cut: bool| -> Vec<(u64, u64, u64)> {
                pieces(at, len, cut).map(|(at, len)| {
                    let hit = (at..at + len).find(|n| bad[*n as usize]);
                    let Some(hit) = hit else { return (at, len, len) };
                    if once {
                        let run = |n: &u64| bad[*n as usize];
                        let first = (0..=hit).rev().take_while(run).last().unwrap();
                        let count = (first..SECTORS).take_while(run).count();
                        bad[first as usize..][..count].fill(false);
                    }
                    (at, len, if partial { hit - at } else { 0 })
                }).collect()
            };
            let buffer = |len: u64| segment(&memory, 0, len * 512);
            let expected = |carried: &[(u64, u64, u64)]| {
                let failed = carried.iter().position(|(_, len, done)| done < len);
                let done = carried.iter().take(failed.map_or(usize::MAX, |n| n + 1))
                    .map(|(_, _, done)| done).sum::<u64>();
                (failed.map_or(Ok(()), |_| Err(BlkError::Io)), done)
            };
            use pageless_block::FrameAccess;
            match step {
                Step::Write(at, len, byte) => {
                    memory.write_bytes(buffer(len), &vec![byte; len as usize * 512]).unwrap();
                    let carried = carried(at, len, true);
                    prop_assert_eq!(run(Bio::write(Sector::new(at), buffer(len)).into()), expected(&carried));
                    for (at, _, done) in carried {
                        plain[at as usize..][..done as usize].fill(byte);
                    }
                }
                Step::Read(at, len) => {
                    memory.write_bytes(buffer(len), &vec![0; len as usize * 512]).unwrap();
                    let carried = carried(at, len, true);
                    prop_assert_eq!(run(Bio::read(Sector::new(at), buffer(len)).into()), expected(&carried));
                    let mut seen = vec![0; len as usize * 512];
                    memory.read_bytes(buffer(len), &mut seen).unwrap();
                    for (start, _, done) in carried {
                        for n in start..start + done {
                            let sector = &seen[(n - at) as usize * 512..][..512];
                            prop_assert!(sector.iter().all(|byte| *byte == plain[n as usize]));
                        }
                    }
                }
                Step::Discard(at, len) => {
                    let carried = carried(at, len, false);
                    let bio = Bio::discard(Sector::new(at), ByteLen::new(len * 512));
                    prop_assert_eq!(run(bio.into()), expected(&carried));
                    for (at, _, done) in carried {
                        plain[at as usize..][..done as usize].fill(0);
                    }
                }
                Step::Bad(at, len, is) => {
                    let sign = if is { '+' } else { '-' };
                    let edit = format!("{sign}{at}-{}", at + len - 1);
                    device.edit_badblocks(edit.parse().unwrap()).unwrap();
                    bad[at as usize..][..len as usize].fill(is);
                }
            }
        }
    }
}
