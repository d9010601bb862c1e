//! Hazard: a knob of the null device that does not do what null_blk's does, and so a test that proves
//! nothing.

extern crate alloc;

use alloc::sync::Arc;
use core::time::Duration;

use pageless_block::{
    BadBlocksEdit, Bio, BioFlags, BlkError, BlockDevice, Clock, Completion, CompletionMode,
    FaultAttr, Features, FrameAccess, HeapFrames, LimitError, ManualClock, Nanos, NullBlk,
    NullConfig, NullConfigError, Op, QueueConfig, QueueId, RequestQueue, Sector, ZoneCond,
    ZoneConfig, ZoneFault, submit_sync,
};
use pageless_pfn::{ByteLen, FrameCount, PAGE_SIZE, Pfn, PhysSegment};

const CAPACITY: ByteLen = ByteLen::new(1 << 20);

fn memory() -> Arc<HeapFrames> {
    let base = Pfn::try_new(0x100).unwrap();
    Arc::new(HeapFrames::new(base, FrameCount::new(32)).unwrap())
}

fn segment(memory: &HeapFrames, offset: u64, len: u64) -> PhysSegment {
    memory.segment(offset, ByteLen::new(len)).unwrap()
}

fn fill(memory: &HeapFrames, segment: PhysSegment, byte: u8) {
    let len = usize::try_from(segment.len().get()).unwrap();
    memory.write_bytes(segment, &vec![byte; len]).unwrap();
}

fn bytes(memory: &HeapFrames, segment: PhysSegment) -> Vec<u8> {
    let mut out = vec![0; usize::try_from(segment.len().get()).unwrap()];
    memory.read_bytes(segment, &mut out).unwrap();
    out
}

struct Rig {
    device: NullBlk<Arc<HeapFrames>>,
    memory: Arc<HeapFrames>,
    clock: Arc<ManualClock>,
}

fn rig(change: impl FnOnce(&mut NullConfig)) -> Rig {
    let mut config = NullConfig::new(CAPACITY);
    config.completion = CompletionMode::None;
    change(&mut config);
    let (memory, clock) = (memory(), Arc::new(ManualClock::new()));
    let device = NullBlk::try_new(config, Arc::clone(&memory), clock.clone()).unwrap();
    Rig {
        device,
        memory,
        clock,
    }
}

impl Rig {
    fn run(&self, bio: impl Into<Bio>) -> Completion {
        submit_sync(&self.device, bio).unwrap()
    }

    fn write(&self, sector: u64, sectors: u64, byte: u8) -> Completion {
        let buffer = segment(&self.memory, 0, sectors * 512);
        fill(&self.memory, buffer, byte);
        self.run(Bio::write(Sector::new(sector), buffer))
    }

    /// The first byte of each sector, and that they are all alike.
    fn read(&self, sector: u64, sectors: u64) -> (Completion, Vec<u8>) {
        let buffer = segment(&self.memory, 0, sectors * 512);
        fill(&self.memory, buffer, 0xaa);
        let completion = self.run(Bio::read(Sector::new(sector), buffer));
        let all = bytes(&self.memory, buffer);
        let first = all.chunks(512).map(|sector| {
            assert!(sector.iter().all(|byte| *byte == sector[0]));
            sector[0]
        });
        (completion, first.collect())
    }
}

fn outcome(completion: &Completion) -> (Result<(), BlkError>, u64) {
    (completion.result(), completion.done().get() / 512)
}

const OK: Result<(), BlkError> = Ok(());
const IO: Result<(), BlkError> = Err(BlkError::Io);

#[test]
fn without_memory_no_bytes_move() {
    let rig = rig(|_| ());
    assert_eq!(outcome(&rig.write(0, 8, 5)), (OK, 8));
    let (completion, seen) = rig.read(0, 8);
    assert_eq!(outcome(&completion), (OK, 8));
    assert_eq!(seen, [0xaa; 8]);
    assert!(rig.device.store().is_none());
}

#[test]
fn with_memory_what_was_written_is_read_and_a_discard_leaves_zeroes_by_the_sector() {
    let rig = rig(|config| {
        config.memory_backed = true;
        config.discard = true;
    });
    assert_eq!(rig.read(0, 8).1, [0; 8]);
    assert_eq!(outcome(&rig.write(3, 8, 5)), (OK, 8));
    rig.run(Bio::discard(Sector::new(4), ByteLen::new(1024)))
        .result()
        .unwrap();
    assert_eq!(rig.read(2, 8).1, [0, 5, 0, 0, 5, 5, 5, 5]);
    rig.run(Bio::discard(Sector::new(0), CAPACITY))
        .result()
        .unwrap();
    assert_eq!(rig.device.store().unwrap().resident(), FrameCount::ZERO);
}

#[test]
fn completions_come_at_once_with_the_next_poll_or_after_their_time() {
    let ends = |completion, expected: [u64; 3]| {
        let rig = rig(|config| config.completion = completion);
        let queue = RequestQueue::with_depth(&rig.device, 8).unwrap();
        let mut context = queue.context(QueueId::new(0)).unwrap();
        for n in 0..3_u64 {
            let bio = Bio::read(Sector::new(n), segment(&rig.memory, 0, 512));
            context.submit(bio.with_token(n)).unwrap();
            rig.clock.advance(Duration::from_nanos(100));
        }
        let kept = rig.device.kept();
        for (n, expected) in expected.into_iter().enumerate() {
            let done = loop {
                if let Some(done) = context.reap() {
                    break done;
                }
            };
            assert_eq!(done.token(), n as u64, "out of order");
            assert_eq!(rig.clock.now(), Nanos::new(expected), "{completion:?}");
        }
        kept
    };
    assert_eq!(ends(CompletionMode::None, [300; 3]), 0);
    assert_eq!(ends(CompletionMode::Softirq, [300; 3]), 3);
    assert_eq!(ends(CompletionMode::Timer(Duration::ZERO), [300; 3]), 3);
    // The clock is moved to where the next one is due, and no further.
    let wait = Duration::from_nanos(1000);
    assert_eq!(ends(CompletionMode::Timer(wait), [1000, 1100, 1200]), 3);
}

#[test]
fn what_is_kept_is_no_more_than_the_hardware_queue_is_deep() {
    let rig = rig(|config| {
        config.hw_queue_depth = 2;
        config.completion = CompletionMode::Softirq;
    });
    let queue = RequestQueue::with_depth(&rig.device, 8).unwrap();
    let mut context = queue.context(QueueId::new(0)).unwrap();
    for n in 0..5 {
        let bio = Bio::read(Sector::new(n), segment(&rig.memory, 0, 512));
        context.submit(bio.with_token(n)).unwrap();
        assert_eq!(rig.device.kept() as u64, (n + 1).min(2));
    }
    let mut order = vec![];
    context.drain(|done| order.push(done.token()));
    assert_eq!(order, [0, 1, 2, 3, 4]);
    assert!(context.counters().requeues > 0);
}

#[test]
fn a_bad_sector_fails_the_whole_request_or_what_comes_from_its_block_on() {
    let bad = |config: &mut NullConfig| {
        config.memory_backed = true;
        config.discard = true;
        config.badblocks.apply("+10-11".parse().unwrap()).unwrap();
    };
    let whole = rig(bad);
    assert_eq!(outcome(&whole.write(8, 8, 1)), (IO, 0));
    assert_eq!(whole.device.store().unwrap().resident(), FrameCount::ZERO);
    assert_eq!(outcome(&whole.write(8, 2, 1)), (OK, 2));
    assert_eq!(outcome(&whole.write(12, 2, 1)), (OK, 2));
    assert_eq!(outcome(&whole.read(11, 1).0), (IO, 0));
    let discard = whole.run(Bio::discard(Sector::new(0), CAPACITY));
    assert_eq!(outcome(&discard), (IO, 0));
    assert_eq!(whole.device.counters().bad, 3);

    let partial = rig(|config| {
        bad(config);
        config.badblocks_partial_io = true;
    });
    assert_eq!(outcome(&partial.write(8, 8, 1)), (IO, 2));
    let (read, seen) = partial.read(6, 8);
    assert_eq!(outcome(&read), (IO, 4));
    assert_eq!(
        seen,
        [0, 0, 1, 1, 0xaa, 0xaa, 0xaa, 0xaa],
        "not a byte more"
    );
    assert_eq!(outcome(&partial.write(11, 8, 1)), (IO, 0));
    // Made good and bad while it runs.
    partial
        .device
        .edit_badblocks(BadBlocksEdit::Clear(
            pageless_block::SectorRange::try_new(Sector::new(10), 2).unwrap(),
        ))
        .unwrap();
    assert_eq!(outcome(&partial.write(8, 8, 1)), (OK, 8));
    partial
        .device
        .edit_badblocks("+9-9".parse().unwrap())
        .unwrap();
    assert_eq!(outcome(&partial.read(8, 8).0), (IO, 1));
}

#[test]
fn partial_requests_end_with_a_whole_block() {
    let rig = rig(|config| {
        config.bs = ByteLen::new(4096);
        config.badblocks_partial_io = true;
        config.badblocks.apply("+13-13".parse().unwrap()).unwrap();
    });
    assert_eq!(outcome(&rig.write(0, 24, 1)), (IO, 8));
    assert_eq!(outcome(&rig.write(8, 8, 1)), (IO, 0));
}

#[test]
fn bad_sectors_that_are_bad_once_are_good_afterwards() {
    let rig = rig(|config| {
        config.badblocks_once = true;
        config.badblocks.apply("+10-11".parse().unwrap()).unwrap();
        config.badblocks.apply("+14-14".parse().unwrap()).unwrap();
    });
    assert_eq!(outcome(&rig.write(8, 8, 1)), (IO, 0));
    assert_eq!(outcome(&rig.write(8, 8, 1)), (IO, 0), "the second range");
    assert_eq!(outcome(&rig.write(8, 8, 1)), (OK, 8));
    assert!(rig.device.badblocks().is_empty());
}

#[test]
fn a_throttled_device_lets_so_many_bytes_pass_and_no_more() {
    // 20971 bytes in 20 ms: five blocks of 4 KiB, and the sixth 20 ms later.
    let rig = rig(|config| config.mbps = 1);
    let queue = RequestQueue::with_depth(&rig.device, 16).unwrap();
    let mut context = queue.context(QueueId::new(0)).unwrap();
    for n in 0..12 {
        let bio = Bio::write(Sector::new(n * 8), segment(&rig.memory, 0, PAGE_SIZE));
        context.submit(bio).unwrap();
    }
    let mut ends = vec![];
    context.drain(|_| ends.push(rig.clock.now().get() / 1_000_000));
    assert_eq!(ends, [0, 0, 0, 0, 0, 20, 20, 20, 20, 20, 40, 40]);
    assert!(rig.device.counters().throttled >= 2);
    // What is about no bytes is not held up.
    assert_eq!(rig.run(Bio::flush()).result(), OK);
}

#[test]
fn a_blocking_device_waits_where_another_is_busy() {
    let rig = rig(|config| {
        config.mbps = 1;
        config.blocking = true;
    });
    let queue = RequestQueue::with_depth(&rig.device, 16).unwrap();
    let mut context = queue.context(QueueId::new(0)).unwrap();
    for n in 0..6 {
        let bio = Bio::write(Sector::new(n * 8), segment(&rig.memory, 0, PAGE_SIZE));
        context.submit(bio).unwrap();
    }
    assert_eq!(rig.clock.now(), Nanos::new(20_000_000));
    context.drain(|done| done.result().unwrap());
    assert_eq!(context.counters().requeues, 0);
    assert_eq!(rig.device.counters().throttled, 1);
    let nowait =
        Bio::write(Sector::new(0), segment(&rig.memory, 0, 512)).with_flags(BioFlags::NOWAIT);
    assert_eq!(rig.run(nowait).result(), Err(BlkError::NotSupported));
}

#[test]
fn a_request_that_is_made_to_time_out_comes_back_by_abort_alone() {
    let rig = rig(|config| config.timeouts = "1,100,0,1".parse().unwrap());
    let config = QueueConfig {
        depth: 8,
        clock: Some(rig.clock.clone()),
        timeout: Some(Duration::from_secs(30)),
        ..QueueConfig::default()
    };
    let queue = RequestQueue::try_new(&rig.device, config).unwrap();
    let mut context = queue.context(QueueId::new(0)).unwrap();
    for n in 0..2 {
        let bio = Bio::read(Sector::new(n), segment(&rig.memory, 0, 512));
        context.submit(bio.with_token(n)).unwrap();
    }
    assert_eq!(rig.device.kept(), 1);
    let done = context.reap().unwrap();
    assert_eq!((done.token(), done.result()), (1, OK));
    rig.clock.advance(Duration::from_secs(29));
    assert!(context.reap().is_none(), "not yet");
    rig.clock.advance(Duration::from_secs(1));
    let done = context.reap().unwrap();
    assert_eq!((done.token(), done.result()), (0, Err(BlkError::Timeout)));
    assert_eq!((rig.device.kept(), rig.device.counters().timeouts), (0, 1));
}

#[test]
fn a_request_that_is_only_slow_is_not_given_back() {
    let rig = rig(|config| config.completion = CompletionMode::Timer(Duration::from_secs(60)));
    let config = QueueConfig {
        clock: Some(rig.clock.clone()),
        timeout: Some(Duration::from_secs(30)),
        ..QueueConfig::default()
    };
    let queue = RequestQueue::try_new(&rig.device, config).unwrap();
    let mut context = queue.context(QueueId::new(0)).unwrap();
    context
        .submit(Bio::read(Sector::new(0), segment(&rig.memory, 0, 512)))
        .unwrap();
    rig.clock.advance(Duration::from_secs(40));
    context.drain(|done| done.result().unwrap());
    assert_eq!(context.counters().timeouts, 0);
}

#[test]
fn requests_that_are_turned_away_come_again_and_succeed() {
    let rig = rig(|config| config.requeues = "1,50,0,-1".parse().unwrap());
    let queue = RequestQueue::with_depth(&rig.device, 8).unwrap();
    let mut context = queue.context(QueueId::new(0)).unwrap();
    let mut order = vec![];
    for n in 0..50 {
        let bio = Bio::read(Sector::new(n), segment(&rig.memory, 0, 512));
        if let Err(rejected) = context.submit(bio.with_token(n)) {
            context.drain(|done| order.push(done.token()));
            context.submit(rejected.bio).unwrap();
        }
    }
    context.drain(|done| order.push(done.token()));
    assert_eq!(order, (0..50).collect::<Vec<_>>());
    let requeues = rig.device.counters().requeues;
    assert!(requeues > 10, "{requeues}");
    assert_eq!(context.counters().requeues, requeues);
}

/// 16 zones of 32 sectors, of which 24 can be written; the first two are conventional.
fn zoned(config: &mut NullConfig) {
    config.memory_backed = true;
    let mut zones = ZoneConfig::new(CAPACITY, ByteLen::new(16 << 10));
    zones.zone_capacity = ByteLen::new(12 << 10);
    zones.nr_conv = 2;
    config.zoned = Some(zones);
}

#[test]
fn zones_are_written_in_order_and_read_as_ones_beyond() {
    let rig = rig(zoned);
    assert_eq!(outcome(&rig.write(64, 3, 7)), (OK, 3));
    assert_eq!(outcome(&rig.write(64, 1, 7)), (IO, 0));
    assert_eq!(rig.read(64, 5).1, [7, 7, 7, 0xff, 0xff]);
    assert_eq!(rig.read(0, 2).1, [0, 0], "a conventional zone");
    let buffer = segment(&rig.memory, 0, 512);
    fill(&rig.memory, buffer, 9);
    let append = rig.run(Bio::zone_append(Sector::new(64), buffer));
    assert_eq!(
        (append.result(), append.written()),
        (OK, Some(Sector::new(67)))
    );
    assert_eq!(rig.read(66, 2).1, [7, 9]);
    let manage = |op, sector| rig.run(Bio::manage_zone(op, Sector::new(sector))).result();
    assert_eq!(manage(Op::ZoneFinish, 64), OK);
    assert_eq!(
        rig.read(66, 3).1,
        [7, 9, 0],
        "below the write pointer of a full zone"
    );
    assert_eq!(manage(Op::ZoneReset, 64), OK);
    assert_eq!(
        rig.device.store().unwrap().resident(),
        FrameCount::ZERO,
        "gone"
    );
    assert_eq!(rig.read(64, 2).1, [0xff, 0xff]);
    assert_eq!(manage(Op::ZoneClose, 64), IO);
    assert_eq!(manage(Op::ZoneOpen, 0), IO);
    assert_eq!(outcome(&rig.write(64, 3, 7)), (OK, 3));
    assert_eq!(manage(Op::ZoneResetAll, 0), OK);
    assert_eq!(
        rig.device.report_zones(Sector::new(64), 1)[0].cond,
        ZoneCond::Empty
    );
    assert_eq!(rig.device.report_zones(Sector::new(0), 99).len(), 64);
}

#[test]
fn the_limits_on_zones_have_their_own_statuses() {
    let rig = rig(|config| {
        zoned(config);
        let zones = config.zoned.as_mut().unwrap();
        (zones.max_open, zones.max_active) = (1, 2);
    });
    assert_eq!(rig.write(64, 1, 1).result(), OK);
    assert_eq!(rig.write(96, 1, 1).result(), OK);
    assert_eq!(
        rig.write(128, 1, 1).result(),
        Err(BlkError::ZoneActiveResource)
    );
    let open = rig.run(Bio::manage_zone(Op::ZoneOpen, Sector::new(64)));
    assert_eq!(open.result(), Err(BlkError::ZoneOpenResource));
}

#[test]
fn zones_that_fail_are_read_only_or_gone_until_they_are_mended() {
    let rig = rig(zoned);
    assert_eq!(outcome(&rig.write(64, 2, 7)), (OK, 2));
    let at = Sector::new(64);
    let set = |fault| rig.device.set_zone_condition(at, fault).unwrap();
    assert_eq!(set(ZoneFault::ReadOnly), ZoneCond::ReadOnly);
    assert_eq!(rig.write(66, 1, 7).result(), IO);
    assert_eq!(rig.read(64, 2).1, [7, 7]);
    assert_eq!(set(ZoneFault::Offline), ZoneCond::Offline);
    assert_eq!(rig.read(64, 2).0.result(), IO);
    assert_eq!(set(ZoneFault::Offline), ZoneCond::Empty);
    assert_eq!(rig.device.store().unwrap().resident(), FrameCount::ZERO);
    assert_eq!(rig.write(64, 1, 7).result(), OK);
    let plain = self::rig(|_| ());
    assert!(
        plain
            .device
            .set_zone_condition(at, ZoneFault::Offline)
            .is_err()
    );
    assert!(plain.device.report_zones(at, 9).is_empty());
}

#[test]
fn a_bad_sector_in_a_zone_moves_the_write_pointer_over_what_was_written() {
    let rig = rig(|config| {
        zoned(config);
        config.badblocks_partial_io = true;
        config.badblocks.apply("+66-66".parse().unwrap()).unwrap();
        config.badblocks.apply("+96-96".parse().unwrap()).unwrap();
        config.badblocks.apply("+130-130".parse().unwrap()).unwrap();
    });
    let zone = |sector| rig.device.report_zones(Sector::new(sector), 1)[0];
    assert_eq!(outcome(&rig.write(64, 4, 7)), (IO, 2));
    assert_eq!(zone(64).wp, Some(Sector::new(66)));
    // Nothing written, nothing opened.
    assert_eq!(outcome(&rig.write(96, 4, 7)), (IO, 0));
    assert_eq!(zone(96).cond, ZoneCond::Empty);
    // All of it must have a place, even if a part of it would be done.
    assert_eq!(outcome(&rig.write(128, 25, 7)), (IO, 0));
    assert_eq!(zone(128).cond, ZoneCond::Empty);
}

#[test]
fn memory_that_is_not_there_leaves_the_write_pointer_where_it_was() {
    let rig = rig(zoned);
    let base = Pfn::try_new(0x100).unwrap();
    let other = HeapFrames::new(base, FrameCount::new(64)).unwrap();
    let mut bio = Bio::write(Sector::new(64), segment(&rig.memory, 0, 512));
    bio.push(segment(&other, 40 * PAGE_SIZE, 512));
    assert_eq!(outcome(&rig.run(bio)), (IO, 0), "nothing of it can be read");
    let zone = rig.device.report_zones(Sector::new(64), 1)[0];
    assert_eq!(zone.wp, Some(Sector::new(64)));
    // Without zones the first segment is done.
    let plain = self::rig(|config| config.memory_backed = true);
    let mut bio = Bio::write(Sector::new(64), segment(&plain.memory, 0, 512));
    bio.push(segment(&other, 40 * PAGE_SIZE, 512));
    assert_eq!(outcome(&plain.run(bio)), (IO, 1));
}

#[test]
fn limits_say_what_the_knobs_say() {
    let plain = rig(|_| ()).device.limits();
    assert!(plain.accepts_pageless());
    assert!(
        !plain
            .features
            .intersects(Features::WRITE_CACHE | Features::FUA | Features::ZONED)
    );
    assert!(plain.max_discard.is_zero());
    let all = rig(|config| {
        zoned(config);
        config.bs = ByteLen::new(4096);
        config.max_sectors = 64;
        config.virt_boundary = true;
        config.write_cache = true;
    })
    .device
    .limits();
    assert_eq!(all.logical_block, ByteLen::new(4096));
    assert_eq!(all.max_request, ByteLen::new(32 << 10));
    assert_eq!(all.virt_boundary, Some(ByteLen::new(4096)));
    assert_eq!(all.chunk, Some(ByteLen::new(16 << 10)));
    assert_eq!(all.zones.unwrap().max_append, ByteLen::new(12 << 10));
    let wanted = Features::WRITE_CACHE | Features::FUA | Features::ZONED;
    assert!(all.features.contains(wanted));
    let without = rig(|config| (config.write_cache, config.fua) = (true, false));
    assert!(!without.device.limits().features.contains(Features::FUA));
}

#[test]
fn a_flush_and_fua_are_taken_where_there_is_a_cache() {
    let rig = rig(|config| config.write_cache = true);
    assert_eq!(rig.run(Bio::flush()).result(), OK);
    let fua = Bio::write(Sector::new(0), segment(&rig.memory, 0, 512)).with_flags(BioFlags::FUA);
    assert_eq!(rig.run(fua).result(), OK);
}

#[test]
fn knobs_that_do_not_go_together_are_refused() {
    let refused = |change: fn(&mut NullConfig)| {
        let mut config = NullConfig::new(CAPACITY);
        change(&mut config);
        let clock = Arc::new(ManualClock::new());
        NullBlk::try_new(config, memory(), clock).unwrap_err()
    };
    use NullConfigError as E;
    assert!(matches!(
        refused(|c| c.submit_queues = 0),
        E::NoQueues { .. }
    ));
    assert!(matches!(
        refused(|c| c.hw_queue_depth = 0),
        E::NoQueues { .. }
    ));
    assert!(matches!(
        refused(|c| c.bs = ByteLen::new(8192)),
        E::Block { .. }
    ));
    let power = refused(|c| c.bs = ByteLen::new(1000));
    assert!(
        matches!(power, E::Limits(LimitError::PowerOfTwo { .. })),
        "{power}"
    );
    assert!(matches!(refused(|c| c.bs = ByteLen::ZERO), E::Limits(_)));
    assert!(matches!(
        refused(|c| c.discard = true),
        E::Discard {
            memory_backed: false,
            ..
        }
    ));
    assert!(matches!(
        refused(|c| (zoned(c), c.discard = true).1),
        E::Discard { zoned: true, .. }
    ));
    assert!(matches!(
        refused(|c| c.timeouts = FaultAttr::percent(101)),
        E::Fault {
            what: "timeouts",
            ..
        }
    ));
    assert!(matches!(
        refused(|c| c.zoned = Some(ZoneConfig::new(CAPACITY, ByteLen::new(3 << 20)))),
        E::Zones(_)
    ));
    assert!(matches!(
        refused(|c| {
            zoned(c);
            c.bs = ByteLen::new(4096);
            c.zoned.as_mut().unwrap().zone_capacity = ByteLen::new(2048);
        }),
        E::ZoneCapacity { .. }
    ));
}
