//! Hazard: a device that stands on others reports the wrong part of a request as done, flushes only
//! some of those below, lets something reach what lies beside it, or fails and delays otherwise
//! than it was told.

extern crate alloc;

mod stacking_rig;

use alloc::sync::Arc;
use core::time::Duration;
use std::sync::Mutex;

use pageless_block::{
    Action, Bio, BioFlags, BlkError, BlockDevice, BytePos, Clock, Completion, CompletionMode,
    Context, Delay, Effect, Event, Fault, Features, Flakey, FrameAccess, Latencies, Latency,
    Limits, Linear, LinearError, ManualClock, Nanos, NullBlk, NullConfig, Op, Partition,
    PartitionError, PowerCut, Probe, QueueConfig, QueueId, RamFrames, Request, RequestQueue,
    Sector, Stripe, StripeError, Submitted, WriteCache, WriteCacheConfig, WriteCacheError,
    ZoneLimits, submit_sync,
};
use pageless_pfn::ByteLen;
use stacking_rig::{Later, SECTOR, Seen, Store, bytes_of, ram, segment};

fn store(ram: &Arc<RamFrames>, sectors: u64) -> Arc<Store> {
    Arc::new(Store::new(sectors * SECTOR, ram))
}

fn caching_store(ram: &Arc<RamFrames>, sectors: u64) -> Arc<Store> {
    let mut limits = Limits::new(ByteLen::new(sectors * SECTOR));
    limits.features |= Features::WRITE_CACHE;
    Arc::new(Store::with_limits(limits, ram))
}

fn sectors(seen: &[Seen]) -> Vec<(u64, u64)> {
    let pair = |one: &Seen| (one.at / SECTOR, one.len / SECTOR);
    seen.iter().map(pair).collect()
}

/// A write of so many sectors, each full of its number.
fn numbered(ram: &RamFrames, at: u64, len: u64) -> Bio {
    let memory = segment(ram, 0, len * SECTOR);
    let bytes: Vec<u8> = (0..len * SECTOR).map(|n| (at + n / SECTOR) as u8).collect();
    ram.write_bytes(memory, &bytes).unwrap();
    Bio::write(Sector::new(at), memory).erase()
}

fn first_bytes(store: &Store) -> Vec<u8> {
    let bytes = store.bytes.lock().unwrap();
    bytes.iter().step_by(SECTOR as usize).copied().collect()
}

#[test]
#[cfg_attr(miri, ignore = "maps memory")]
fn a_request_across_irregular_ends_is_cut_there_and_nowhere_else() {
    let ram = ram(16);
    let members = [store(&ram, 5), store(&ram, 2), store(&ram, 9)];
    let linear = Linear::try_new(members.clone()).unwrap();
    assert_eq!(linear.limits().chunk, None);
    submit_sync(&linear, numbered(&ram, 1, 10))
        .unwrap()
        .result()
        .unwrap();
    let seen = |n: usize| sectors(&members[n].seen_of(Op::Write));
    assert_eq!(seen(0), [(1, 4)]);
    assert_eq!(seen(1), [(0, 2)]);
    assert_eq!(seen(2), [(0, 4)]);
    assert_eq!(first_bytes(&members[0]), [0, 1, 2, 3, 4]);
    assert_eq!(first_bytes(&members[1]), [5, 6]);
    assert_eq!(first_bytes(&members[2]), [7, 8, 9, 10, 0, 0, 0, 0, 0]);
}

#[test]
#[cfg_attr(miri, ignore = "maps memory")]
fn a_regular_end_is_a_chunk_at_which_the_queue_cuts() {
    let ram = ram(1024);
    let members = [store(&ram, 2048), store(&ram, 100)];
    let linear = Linear::try_new(members.clone()).unwrap();
    assert_eq!(linear.limits().chunk, Some(ByteLen::new(1 << 20)));
    let queue = RequestQueue::with_depth(&linear, 4).unwrap();
    let mut context = queue.context(QueueId::new(0)).unwrap();
    context.submit(numbered(&ram, 2040, 16)).unwrap();
    context.drain(|done| done.result().unwrap());
    assert_eq!(context.counters().splits, 1);
    assert_eq!(sectors(&members[0].seen_of(Op::Write)), [(2040, 8)]);
    assert_eq!(sectors(&members[1].seen_of(Op::Write)), [(0, 8)]);
}

#[test]
#[cfg_attr(miri, ignore = "maps memory")]
fn chunks_go_round_the_members_and_discards_with_them() {
    let ram = ram(16);
    let members = [store(&ram, 9), store(&ram, 8), store(&ram, 7)];
    let stripe = Stripe::try_new(ByteLen::new(2 * SECTOR), members.clone()).unwrap();
    // The shortest has three whole chunks.
    assert_eq!(stripe.limits().capacity.get(), 3 * 3 * 2 * SECTOR);
    submit_sync(&stripe, numbered(&ram, 0, 18))
        .unwrap()
        .result()
        .unwrap();
    assert_eq!(first_bytes(&members[0])[..6], [0, 1, 6, 7, 12, 13]);
    assert_eq!(first_bytes(&members[1])[..6], [2, 3, 8, 9, 14, 15]);
    assert_eq!(first_bytes(&members[2])[..6], [4, 5, 10, 11, 16, 17]);
    let discard = Bio::discard(Sector::new(3), ByteLen::new(4 * SECTOR));
    submit_sync(&stripe, discard).unwrap().result().unwrap();
    let seen = |n: usize| sectors(&members[n].seen_of(Op::Discard));
    assert_eq!(
        (seen(0), seen(1), seen(2)),
        (vec![(2, 1)], vec![(1, 1)], vec![(0, 2)])
    );
}

/// Fails what touches one sector, after the sectors before it.
fn bad_sector(device: Arc<Store>, bad: u64, before: u64) -> Flakey<Arc<Store>> {
    let flakey = Flakey::new(device, 0);
    let effect = Effect::FailAfter {
        done: ByteLen::new(before * SECTOR),
        error: BlkError::Medium,
    };
    flakey.inject(Fault::new(effect).within(BytePos::new(bad * SECTOR), ByteLen::new(1)));
    flakey
}

#[test]
#[cfg_attr(miri, ignore = "maps memory")]
fn a_failure_below_says_how_much_was_done_as_the_caller_counts() {
    let ram = ram(32);
    let good = || Flakey::new(store(&ram, 10), 0);
    let result = |device: &dyn BlockDevice, bio: Bio| {
        let done = submit_sync(device, bio).unwrap();
        (done.result(), done.done().get() / SECTOR)
    };
    let failed = |sectors| (Err(BlkError::Medium), sectors);

    // Across members of a concatenation: 10 sectors of the first, 3 of the second.
    let linear = Linear::try_new([good(), bad_sector(store(&ram, 10), 3, 3)]).unwrap();
    assert_eq!(result(&linear, numbered(&ram, 4, 14)), failed(6 + 3));
    assert_eq!(result(&linear, numbered(&ram, 4, 9)), (Ok(()), 9));

    // The second row of the second of two members, one sector into the chunk: 4 + 4 + 4 + 1.
    let chunk = ByteLen::new(4 * SECTOR);
    let stripe = Stripe::try_new(chunk, [good(), bad_sector(store(&ram, 10), 5, 1)]).unwrap();
    assert_eq!(result(&stripe, numbered(&ram, 0, 16)), failed(13));
    let read = |at, len| Bio::read(Sector::new(at), segment(&ram, 0, len * SECTOR)).erase();
    assert_eq!(result(&stripe, read(2, 14)), failed(11));
    assert_eq!(result(&stripe, read(0, 12)), (Ok(()), 12));

    // The same through a part of it.
    let part = Partition::try_new(&stripe, BytePos::new(SECTOR), chunk_of(15)).unwrap();
    assert_eq!(result(&part, read(0, 15)), failed(12));
}

fn chunk_of(sectors: u64) -> ByteLen {
    ByteLen::new(sectors * SECTOR)
}

/// A device below, of whichever kind.
type Below<'a> = Box<dyn BlockDevice + 'a>;

#[test]
#[cfg_attr(miri, ignore = "maps memory")]
fn a_flush_reaches_every_device_below_exactly_once_and_then_is_answered() {
    let ram = ram(1);
    // How many requests each has room for; `None` is one that is done when it returns.
    let rooms = [None, Some(1), Some(8)];
    for kinds in 0..3_usize.pow(4) {
        let stores: Vec<_> = (0..4).map(|_| caching_store(&ram, 16)).collect();
        let member = |n: usize| -> Below<'_> {
            match rooms[kinds / 3_usize.pow(n as u32) % 3] {
                None => Box::new(&stores[n]),
                Some(room) => Box::new(Later::new(Arc::clone(&stores[n]), room, n as u64)),
            }
        };
        let part = Partition::try_new(member(1), BytePos::new(SECTOR), chunk_of(12)).unwrap();
        let row: [Below<'_>; 3] = [member(0), Box::new(part), member(2)];
        let stripe = Stripe::try_new(chunk_of(2), row).unwrap();
        let all: [Below<'_>; 2] = [Box::new(stripe), member(3)];
        let device = Linear::try_new(all).unwrap();
        let queue = RequestQueue::with_depth(&device, 8).unwrap();
        let mut context = queue.context(QueueId::new(0)).unwrap();
        for round in 1..=4 {
            // Something else is on the way to each at the same time, so that there is no room.
            for at in [0, 2, 4, 36] {
                let read = Bio::read(Sector::new(at), segment(&ram, 0, SECTOR));
                context.submit(read).unwrap();
            }
            context.submit(Bio::flush()).unwrap();
            wait(&mut context, |done| done.result().unwrap());
            for store in &stores {
                assert_eq!(store.seen_of(Op::Flush).len(), round, "kinds {kinds}");
            }
        }
    }
}

/// Waits for everything that is out, but not for ever.
fn wait<D: BlockDevice>(context: &mut Context<'_, D>, mut each: impl FnMut(Completion)) {
    let mut idle = 0;
    while context.in_flight() != 0 {
        match context.reap() {
            Some(done) => each(done),
            None => idle += 1,
        }
        assert!(idle < 100_000, "{} never complete", context.in_flight());
    }
}

#[test]
#[cfg_attr(miri, ignore = "maps memory")]
fn a_flush_that_fails_below_fails_above() {
    let ram = ram(1);
    for bad in 0..3 {
        let members: Vec<_> = (0..3)
            .map(|n| {
                let flakey = Flakey::new(caching_store(&ram, 4), 0);
                if n == bad {
                    flakey.inject(
                        Fault::new(Effect::Fail(BlkError::Io))
                            .on(Op::Flush)
                            .times(1),
                    );
                }
                Later::new(flakey, 4, n)
            })
            .collect();
        let device = Stripe::try_new(chunk_of(1), members).unwrap();
        let flush = || submit_sync(&device, Bio::flush()).unwrap().result();
        assert_eq!(flush(), Err(BlkError::Io));
        assert_eq!(flush(), Ok(()));
    }
}

#[test]
#[cfg_attr(miri, ignore = "maps memory")]
fn a_flush_over_two_parts_of_one_device_ends() {
    let ram = ram(1);
    let disk = Arc::new(Later::new(caching_store(&ram, 16), 8, 5));
    let part = |at| Partition::try_new(Arc::clone(&disk), BytePos::new(at * SECTOR), chunk_of(8));
    let device = Linear::try_new([part(8).unwrap(), part(0).unwrap()]).unwrap();
    for round in 1..9 {
        submit_sync(&device, Bio::flush())
            .unwrap()
            .result()
            .unwrap();
        let seen = disk.device().seen_of(Op::Flush).len();
        assert_eq!(seen, 2 * round, "once for each part");
    }
}

#[test]
#[cfg_attr(miri, ignore = "maps memory")]
fn nothing_beside_a_partition_can_be_reached_through_it() {
    let ram = ram(16);
    let disk = store(&ram, 16);
    let part = |start: u64, len: u64| {
        Partition::try_new(Arc::clone(&disk), BytePos::new(start), ByteLen::new(len))
    };
    let middle = part(4 * SECTOR, 8 * SECTOR).unwrap();
    let result = |bio: Bio| submit_sync(&middle, bio).unwrap().result();
    assert_eq!(result(numbered(&ram, 0, 8)), Ok(()));
    assert_eq!(result(numbered(&ram, 1, 8)), Err(BlkError::Io));
    assert_eq!(result(numbered(&ram, 8, 1)), Err(BlkError::Io));
    let everything = Bio::discard(Sector::new(0), chunk_of(8)).erase();
    assert_eq!(result(everything), Ok(()));
    assert_eq!(sectors(&disk.seen_of(Op::Write)), [(4, 8)]);
    assert_eq!(sectors(&disk.seen_of(Op::Discard)), [(4, 8)]);

    let error = |start, len| part(start, len).map(drop).unwrap_err();
    let beyond = |error| matches!(error, PartitionError::Beyond { .. });
    assert!(beyond(error(0, 0)));
    assert!(beyond(error(12 * SECTOR, 5 * SECTOR)));
    assert!(beyond(error(u64::MAX - 511, 512)));
    assert!(matches!(error(0, 100), PartitionError::Length { .. }));
    assert!(matches!(error(100, 512), PartitionError::Limits(_)));
}

#[test]
#[cfg_attr(miri, ignore = "maps memory")]
fn devices_that_do_not_go_together_are_refused() {
    let ram = ram(1);
    let coarse = |len| {
        let mut limits = Limits::new(ByteLen::new(len));
        limits.set_logical_block(ByteLen::new(4096));
        Arc::new(Store::with_limits(limits, &ram))
    };
    let linear = |members: Vec<Arc<Store>>| Linear::try_new(members).map(drop).unwrap_err();
    assert_eq!(linear(vec![]), LinearError::NoMembers);
    let error = linear(vec![store(&ram, 3), coarse(8192)]);
    assert!(matches!(error, LinearError::Member { member: 0, .. }));
    let error = linear(vec![coarse(8192), store(&ram, 0)]);
    assert!(matches!(error, LinearError::Member { member: 1, .. }));
    let huge = Arc::new(pageless_block::NullDevice::new(Limits::new(
        Limits::UNLIMITED,
    )));
    let error = Linear::try_new([Arc::clone(&huge), huge]).map(drop);
    assert_eq!(error.unwrap_err(), LinearError::TooLong);

    let stripe = |chunk, members: Vec<Arc<Store>>| {
        let made = Stripe::try_new(ByteLen::new(chunk), members);
        made.map(drop).unwrap_err()
    };
    assert_eq!(stripe(512, vec![]), StripeError::NoMembers);
    let error = stripe(512, vec![store(&ram, 8), coarse(8192)]);
    assert!(matches!(error, StripeError::Chunk { .. }));
    let error = stripe(4096, vec![store(&ram, 8), store(&ram, 7)]);
    assert!(matches!(error, StripeError::TooShort { .. }));
}

#[derive(Default)]
struct Told(Mutex<Vec<Event>>);

impl Probe for Told {
    fn event(&self, event: &Event) {
        self.0.lock().unwrap().push(*event);
    }
}

#[test]
#[cfg_attr(miri, ignore = "maps memory")]
fn whoever_looks_on_sees_from_where_to_where_each_request_was_sent() {
    let ram = ram(16);
    let told = Arc::new(Told::default());
    let clock: Arc<dyn Clock> = Arc::new(ManualClock::new());
    let members = [store(&ram, 8), store(&ram, 8)];
    let stripe = Stripe::try_new(chunk_of(2), members).unwrap();
    let stripe = stripe.with_probe(told.clone(), Some(clock.clone()));
    let part = Partition::try_new(stripe, BytePos::new(2 * SECTOR), chunk_of(8)).unwrap();
    let device = Linear::try_new([part])
        .unwrap()
        .with_probe(told.clone(), None);
    let device = Partition::try_new(device, BytePos::new(SECTOR), chunk_of(4))
        .unwrap()
        .with_probe(told.clone(), Some(clock));
    submit_sync(&device, numbered(&ram, 0, 2))
        .unwrap()
        .result()
        .unwrap();
    let told = told.0.lock().unwrap();
    assert!(told.iter().all(|event| event.action == Action::Remap));
    let steps: Vec<_> = told
        .iter()
        .map(|event| (event.detail, event.sector.get(), event.len.get() / SECTOR))
        .collect();
    // Sectors 1 and 2 of the concatenation are 3 and 4 of the stripes: the end of one chunk, the
    // start of the next.
    let expected = [
        (0, 1, 1),
        (1, 1, 1),
        (3, 1, 1),
        (1, 2, 1),
        (2, 2, 1),
        (4, 2, 1),
    ];
    assert_eq!(steps, expected);
}

/// Answers appends, with the place they say they went to; takes resets.
struct Zoned(Limits, Mutex<Vec<(Op, u64)>>);

impl Zoned {
    fn new(zones: u64) -> Self {
        let mut limits = Limits::new(ByteLen::new(zones * 8 * SECTOR));
        limits.zones = Some(ZoneLimits {
            size: chunk_of(8),
            max_append: chunk_of(4),
            max_open: 0,
            max_active: 0,
        });
        limits.features |= Features::ZONED;
        Self(limits, Mutex::default())
    }
}

impl BlockDevice for Zoned {
    fn limits(&self) -> Limits {
        self.0
    }

    fn submit(&self, request: Request) -> Submitted {
        let sector = request.sector().get();
        self.1.lock().unwrap().push((request.op(), sector));
        request.run(|request| {
            if request.op() == Op::ZoneAppend {
                request.set_written(Sector::new(sector + 3));
            }
            Ok(())
        })
    }
}

#[test]
#[cfg_attr(miri, ignore = "maps memory")]
fn an_append_is_answered_with_its_place_on_the_device_it_was_sent_to() {
    let ram = ram(1);
    let disk = Later::new(Zoned::new(4), 4, 1);
    let part = Partition::try_new(disk, BytePos::new(8 * SECTOR), chunk_of(24)).unwrap();
    let first = Partition::try_new(
        Later::new(Zoned::new(2), 4, 2),
        BytePos::new(0),
        chunk_of(16),
    );
    let device = Linear::try_new([first.unwrap(), part]).unwrap();
    let append = |zone: u64| {
        let bio = Bio::zone_append(Sector::new(zone * 8), segment(&ram, 0, SECTOR));
        let done = submit_sync(&device, bio).unwrap();
        done.result().unwrap();
        done.written().unwrap().get()
    };
    let places: Vec<u64> = (0..5).map(append).collect();
    assert_eq!(places, [3, 11, 19, 27, 35]);
}

#[test]
#[cfg_attr(miri, ignore = "maps memory")]
fn resetting_all_zones_of_a_part_does_not_reset_those_beside_it() {
    let disk = Arc::new(Zoned::new(4));
    let reset = |device: &dyn BlockDevice| {
        let bio = Bio::manage_zone(Op::ZoneResetAll, Sector::new(0));
        submit_sync(device, bio).unwrap().result()
    };
    let part = Partition::try_new(Arc::clone(&disk), BytePos::new(0), chunk_of(16)).unwrap();
    assert_eq!(reset(&part), Err(BlkError::NotSupported));
    assert!(disk.1.lock().unwrap().is_empty());
    let other = Arc::new(Zoned::new(2));
    let both = Linear::try_new([Arc::clone(&disk), Arc::clone(&other)]).unwrap();
    assert_eq!(reset(&both), Ok(()));
    for one in [disk, other] {
        let seen = one.1.lock().unwrap();
        assert_eq!(seen.len(), 1);
        assert_eq!(seen[0].0, Op::ZoneResetAll);
    }
}

#[test]
#[cfg_attr(miri, ignore = "maps memory")]
fn what_takes_too_long_is_taken_back_from_wherever_it_is() {
    let ram = ram(1);
    let clock = Arc::new(ManualClock::new());
    let slow = Latencies::all(Latency::Fixed(Duration::from_secs(100)));
    // A clock that nobody's waiting moves.
    struct Stubborn(Arc<ManualClock>);
    impl Clock for Stubborn {
        fn now(&self) -> Nanos {
            self.0.now()
        }
    }
    let stubborn = || Arc::new(Stubborn(Arc::clone(&clock)));
    let members = [0, 1].map(|seed| Delay::new(caching_store(&ram, 8), stubborn(), slow, seed));
    let stripe = Stripe::try_new(chunk_of(2), members).unwrap();
    let device = Partition::try_new(&stripe, BytePos::new(0), chunk_of(8)).unwrap();
    let config = QueueConfig {
        clock: Some(clock.clone()),
        timeout: Some(Duration::from_secs(1)),
        ..QueueConfig::default()
    };
    let queue = RequestQueue::try_new(&device, config).unwrap();
    let mut context = queue.context(QueueId::new(0)).unwrap();
    for at in [0, 2, 5] {
        context
            .submit(Bio::read(Sector::new(at), segment(&ram, 0, SECTOR)))
            .unwrap();
    }
    context.submit(Bio::flush()).unwrap();
    assert!(context.reap().is_none());
    clock.advance(Duration::from_secs(2));
    let mut count = 0;
    wait(&mut context, |done| {
        assert_eq!(done.result(), Err(BlkError::Timeout));
        count += 1;
    });
    assert_eq!(count, 4);
    let held: usize = stripe.members().iter().map(Delay::held).sum();
    assert_eq!(held, 0);
}

#[test]
#[cfg_attr(miri, ignore = "maps memory")]
fn requests_go_on_in_the_order_in_which_they_are_due() {
    let ram = ram(1);
    let latencies = [
        Latency::Fixed(Duration::from_micros(10)),
        Latency::Uniform(Duration::from_micros(5), Duration::from_micros(15)),
        Latency::Exponential(Duration::from_micros(10)),
    ];
    for latency in latencies {
        let run = |seed| {
            let clock = Arc::new(ManualClock::new());
            let disk = store(&ram, 64);
            let device = Delay::new(&disk, clock.clone(), Latencies::all(latency), seed);
            let queue = RequestQueue::with_depth(&device, 64).unwrap();
            let mut context = queue.context(QueueId::new(0)).unwrap();
            for at in 0..64 {
                context
                    .submit(Bio::read(Sector::new(at), segment(&ram, 0, SECTOR)))
                    .unwrap();
            }
            assert!(
                disk.seen.lock().unwrap().is_empty(),
                "nothing before its time"
            );
            let (mut last, mut times) = (Nanos::ZERO, Vec::new());
            context.drain(|_| {
                assert!(clock.now() >= last);
                last = clock.now();
                times.push(last.get());
            });
            (sectors(&disk.seen_of(Op::Read)), times)
        };
        let (order, times) = run(1);
        assert_eq!(run(1), (order.clone(), times.clone()), "the same seed");
        let in_order = order.is_sorted();
        let (&least, &most) = (times.first().unwrap(), times.last().unwrap());
        match latency {
            Latency::Fixed(_) => assert!(in_order && least == 10_000 && most == 10_000),
            Latency::Uniform(..) => {
                assert!(!in_order && run(2).0 != order);
                assert!((5_000..=15_000).contains(&least) && (5_000..=15_000).contains(&most));
            }
            _ => assert!(!in_order && least < 10_000 && most > 15_000, "{times:?}"),
        }
    }
}

#[test]
#[cfg_attr(miri, ignore = "maps memory")]
fn faults_happen_where_and_when_they_were_told_to() {
    let ram = ram(16);
    let flakey = Flakey::new(store(&ram, 16), 3);
    let (start, len) = (BytePos::new(4 * SECTOR), chunk_of(4));
    let medium = Fault::new(Effect::Fail(BlkError::Medium));
    flakey.inject(medium.on(Op::Read).within(start, len).after(1).times(2));
    let read = |at, len: u64| {
        let bio = Bio::read(Sector::new(at), segment(&ram, 0, len * SECTOR));
        submit_sync(&flakey, bio).unwrap().result()
    };
    let failed = Err(BlkError::Medium);
    // Beside it; then the first that touches it, the second, a write, the third, the fourth.
    assert_eq!((read(0, 4), read(8, 8)), (Ok(()), Ok(())));
    assert_eq!((read(0, 5), read(7, 1)), (Ok(()), failed));
    let write = submit_sync(&flakey, numbered(&ram, 4, 4)).unwrap();
    assert_eq!(write.result(), Ok(()));
    assert_eq!((read(0, 16), read(5, 1)), (failed, Ok(())));
    let counters = flakey.counters();
    assert_eq!((counters.failed, counters.passed), (2, 5));
}

#[test]
#[cfg_attr(miri, ignore = "maps memory")]
fn the_same_seed_fails_the_same_requests_in_the_same_places() {
    let ram = ram(16);
    let run = |seed| {
        let flakey = Flakey::new(store(&ram, 16), seed);
        flakey.inject(Fault::new(Effect::FailSomewhere(BlkError::Io)).one_in(3));
        let results = (0..200).map(|n| {
            let done = submit_sync(&flakey, numbered(&ram, n % 8, 8)).unwrap();
            (done.result().is_ok(), done.done().get())
        });
        results.collect::<Vec<_>>()
    };
    let one = run(1);
    assert_eq!(one, run(1));
    assert_ne!(one, run(2));
    let failed = one.iter().filter(|(ok, _)| !ok).count();
    assert!(
        (40..100).contains(&failed),
        "{failed} of 200 is not one in three"
    );
    let somewhere: alloc::collections::BTreeSet<u64> = one
        .iter()
        .filter(|(ok, _)| !ok)
        .map(|&(_, done)| done)
        .collect();
    assert_eq!(
        somewhere.len(),
        8,
        "from nothing to all but the last sector"
    );
}

#[test]
#[cfg_attr(miri, ignore = "maps memory")]
fn while_it_is_down_writes_are_lost_and_nobody_is_told() {
    let ram = ram(16);
    let disk = store(&ram, 16);
    let clock = Arc::new(ManualClock::new());
    let flakey = Flakey::new(Arc::clone(&disk), 0).with_clock(clock.clone());
    let (up, down) = (Duration::from_secs(3), Duration::from_secs(1));
    flakey.inject(
        Fault::new(Effect::Drop)
            .on(Op::Write)
            .on(Op::Discard)
            .while_down(up, down),
    );
    for second in 0..16 {
        let write = submit_sync(&flakey, numbered(&ram, second, 1)).unwrap();
        assert_eq!(write.result(), Ok(()));
        clock.advance(Duration::from_secs(1));
    }
    let expected: Vec<u8> = (0..16).map(|n| if n % 4 == 3 { 0 } else { n }).collect();
    assert_eq!(first_bytes(&disk), expected);
    assert_eq!(flakey.counters().dropped, 4);
}

#[test]
#[cfg_attr(miri, ignore = "maps memory")]
fn exactly_one_byte_is_changed_and_never_in_the_callers_memory_of_a_write() {
    let ram = ram(16);
    let disk = store(&ram, 16);
    let staging = segment(&ram, 4096, SECTOR);
    for seed in 0..50 {
        let flakey = Flakey::new(Arc::clone(&disk), seed).with_memory(&*ram, staging);
        flakey.inject(Fault::new(Effect::Corrupt).times(1));
        let differ = |a: &[u8], b: &[u8]| a.iter().zip(b).filter(|(a, b)| a != b).count();
        let write = numbered(&ram, 3, 5);
        let memory = write.segments()[0];
        let meant = bytes_of(&*ram, memory);
        submit_sync(&flakey, write).unwrap().result().unwrap();
        assert_eq!(bytes_of(&*ram, memory), meant);
        let there = disk.bytes.lock().unwrap()[3 * 512..8 * 512].to_vec();
        assert_eq!(differ(&there, &meant), 1);

        flakey.inject(Fault::new(Effect::Corrupt));
        let back = segment(&ram, 8192, 5 * SECTOR);
        let read = Bio::read(Sector::new(3), back);
        submit_sync(&flakey, read).unwrap().result().unwrap();
        assert_eq!(differ(&there, &bytes_of(&*ram, back)), 1);
        assert_eq!(disk.bytes.lock().unwrap()[3 * 512..8 * 512], there);
        assert_eq!(flakey.counters().corrupted, 2);
    }
}

fn cache<D: BlockDevice>(
    device: D,
    ram: &Arc<RamFrames>,
    sectors: u64,
) -> WriteCache<D, Arc<RamFrames>> {
    let config = WriteCacheConfig {
        capacity: chunk_of(sectors),
        ..WriteCacheConfig::default()
    };
    WriteCache::try_new(
        device,
        Arc::clone(ram),
        segment(ram, 1 << 15, 1 << 12),
        config,
    )
    .unwrap()
}

#[test]
#[cfg_attr(miri, ignore = "maps memory")]
fn a_full_cache_writes_back_what_it_has_had_for_longest() {
    let ram = ram(16);
    let disk = store(&ram, 64);
    let device = cache(Arc::clone(&disk), &ram, 4);
    let write = |at| {
        let done = submit_sync(&device, numbered(&ram, at, 1)).unwrap();
        done.result().unwrap();
    };
    (1..=4).for_each(write);
    assert!(disk.seen_of(Op::Write).is_empty());
    write(1); // As new.
    write(9);
    write(10);
    assert_eq!(sectors(&disk.seen_of(Op::Write)), [(2, 1), (3, 1)]);
    assert_eq!(device.dirty(), chunk_of(4));
    // Neighbours go down together.
    submit_sync(&device, Bio::flush())
        .unwrap()
        .result()
        .unwrap();
    assert_eq!(
        sectors(&disk.seen_of(Op::Write))[2..],
        [(1, 1), (4, 1), (9, 2)]
    );
    assert!(device.dirty().is_zero());
    let lost = device.power_cut(PowerCut::AllLost);
    assert_eq!((lost.lost, lost.reached), (0, 0));
}

#[test]
#[cfg_attr(miri, ignore = "maps memory")]
fn what_the_cache_has_is_read_from_it_also_where_the_device_cannot_be_read() {
    let ram = ram(16);
    let flakey = bad_sector(store(&ram, 16), 5, 0);
    let device = cache(flakey, &ram, 64);
    let done = submit_sync(&device, numbered(&ram, 4, 2)).unwrap();
    done.result().unwrap();
    let back = segment(&ram, 8192, 6 * SECTOR);
    let read = submit_sync(&device, Bio::read(Sector::new(2), back)).unwrap();
    assert_eq!(read.result(), Ok(()));
    let firsts: Vec<u8> = bytes_of(&*ram, back).into_iter().step_by(512).collect();
    assert_eq!(firsts, [0, 0, 4, 5, 0, 0]);
    // And what it cannot write back it keeps, and says so.
    let flush = || submit_sync(&device, Bio::flush()).unwrap().result();
    assert_eq!(flush(), Err(BlkError::Medium));
    device.device().mend();
    assert_eq!(flush(), Ok(()));
    assert!(device.dirty().is_zero());
}

#[test]
#[cfg_attr(miri, ignore = "maps memory")]
fn writing_back_does_not_wait_for_the_room_that_reads_take() {
    let ram = ram(64);
    for mbps in [0, 1] {
        let clock = Arc::new(ManualClock::new());
        let mut config = NullConfig::new(chunk_of(256));
        config.hw_queue_depth = 2;
        config.completion = CompletionMode::Timer(Duration::from_micros(10));
        config.memory_backed = true;
        config.mbps = mbps;
        let disk = NullBlk::try_new(config, Arc::clone(&ram), clock).unwrap();
        let device = cache(disk, &ram, 3);
        let queue = RequestQueue::with_depth(&device, 16).unwrap();
        let mut context = queue.context(QueueId::new(0)).unwrap();
        for round in 0..50 {
            // The device is full, and stays so for as long as nobody polls for these.
            for at in 0..4 {
                let read = Bio::read(Sector::new(200 + at), segment(&ram, 0, SECTOR));
                context.submit(read).unwrap();
            }
            let write = numbered(&ram, round, 8).with_flags(BioFlags::FUA);
            context.submit(write).unwrap();
            wait(&mut context, |done| done.result().unwrap());
        }
        assert!(device.dirty().is_zero());
    }
}

#[test]
#[cfg_attr(miri, ignore = "maps memory")]
fn a_cache_that_could_not_work_is_refused() {
    let ram = ram(16);
    let staging = segment(&ram, 0, SECTOR);
    let error = |limits, capacity, staging| {
        let device = pageless_block::NullDevice::new(limits);
        let config = WriteCacheConfig {
            capacity,
            ..WriteCacheConfig::default()
        };
        let made = WriteCache::try_new(device, &*ram, staging, config);
        made.map(drop).unwrap_err()
    };
    let plain = Limits::new(chunk_of(8));
    assert_eq!(
        error(Zoned::new(1).0, SECTOR_LEN, staging),
        WriteCacheError::Zoned
    );
    let mut picky = plain;
    picky.dma_alignment = ByteLen::new(4096);
    let refused = error(picky, SECTOR_LEN, staging);
    assert!(matches!(refused, WriteCacheError::Alignment { .. }));
    let refused = error(plain, ByteLen::new(511), staging);
    assert!(matches!(
        refused,
        WriteCacheError::NoBlock {
            what: "capacity",
            ..
        }
    ));
    let refused = error(plain, SECTOR_LEN, segment(&ram, 0, 100));
    assert!(matches!(
        refused,
        WriteCacheError::NoBlock {
            what: "staging",
            ..
        }
    ));
}

const SECTOR_LEN: ByteLen = ByteLen::new(SECTOR);

#[cfg(feature = "failpoints")]
#[test]
fn without_memory_for_a_block_the_write_says_how_far_it_got() {
    use pageless_block::Failpoint;
    let ram = ram(16);
    let device = cache(store(&ram, 16), &ram, 64);
    Failpoint::CacheAlloc.arm(3, 1);
    let done = submit_sync(&device, numbered(&ram, 1, 8)).unwrap();
    assert_eq!(done.result(), Err(BlkError::Resource));
    assert_eq!(done.done(), chunk_of(3));
    assert_eq!(device.dirty(), chunk_of(3));
    assert_eq!(Failpoint::CacheAlloc.disarm(), (4, 1));
}
