//! Hazard: a bio that makes no sense, or does not fit the device, and is carried out anyway, in
//! part, or not at all and reported as done.

extern crate alloc;

mod rig;

use alloc::sync::Arc;

use pageless_block::{
    Action, Bio, BlkError, EventCounts, Features, Limits, NullDevice, Op, Probe, QueueConfig,
    RejectReason, RequestQueue, Sector, SubmitError, submit_sync,
};
use pageless_pfn::{ByteLen, FrameOffset, Pfn, PfnFlags, PfnT, PhysSegment};

/// A device of this size that does whatever is asked.
fn limits(capacity: u64) -> Limits {
    let mut limits = Limits::new(ByteLen::new(capacity));
    limits.max_discard = Limits::UNLIMITED;
    limits.max_write_zeroes = Limits::UNLIMITED;
    limits
}

/// What both ways of submitting say to a malformed bio, having checked that they agree.
fn reason(bio: impl Into<Bio>) -> RejectReason {
    let bio = bio.into();
    let device = NullDevice::new(limits(1 << 30));
    let sent = rig::face(&bio);
    let SubmitError::Rejected(sync) = submit_sync(&device, bio.clone()).unwrap_err() else {
        panic!("the device's limits were refused");
    };
    assert_eq!(rig::face(&sync.bio), sent);
    let queue = RequestQueue::with_depth(&device, 1).unwrap();
    let mut context = queue.context(rig::QUEUE).unwrap();
    let queued = context.submit(bio).unwrap_err();
    assert_eq!(rig::face(&queued.bio), sent);
    assert_eq!(queued.reason, sync.reason);
    assert_eq!((context.in_flight(), context.counters().rejected), (0, 1));
    queued.reason
}

/// How a well-formed bio fails on a device, having checked that both ways of submitting agree.
fn failure(limits: Limits, bio: impl Into<Bio>) -> BlkError {
    let bio = bio.into();
    let device = NullDevice::new(limits);
    let sync = submit_sync(&device, bio.clone()).unwrap();
    let queue = RequestQueue::with_depth(&device, 1).unwrap();
    let mut context = queue.context(rig::QUEUE).unwrap();
    context.submit(bio).unwrap();
    let queued = context.reap().unwrap();
    assert_eq!(rig::face(queued.bio()), rig::face(sync.bio()));
    assert_eq!(
        (queued.result(), queued.done()),
        (sync.result(), sync.done())
    );
    assert_eq!(sync.done(), ByteLen::ZERO);
    sync.result().unwrap_err()
}

fn frames(frame: PfnT, len: u64) -> PhysSegment {
    PhysSegment::try_new(frame, FrameOffset::ZERO, ByteLen::new(len)).unwrap()
}

fn memory(len: u64) -> PhysSegment {
    frames(Pfn::try_new(1).unwrap().into(), len)
}

#[test]
fn no_bytes_are_refused_for_everything_with_a_range_but_a_flush() {
    for op in Op::ALL.into_iter().filter(|op| op.has_range()) {
        assert_eq!(
            reason(Bio::new(op, Sector::new(0))),
            RejectReason::NoBytes { op }
        );
    }
    let device = NullDevice::new(limits(1 << 30));
    assert_eq!(submit_sync(&device, Bio::flush()).unwrap().result(), Ok(()));
}

#[test]
fn memory_where_none_moves_is_refused() {
    for op in Op::ALL.into_iter().filter(|op| !op.carries_data()) {
        let mut bio = Bio::new(op, Sector::new(0));
        bio.push(memory(512));
        let len = ByteLen::new(512);
        assert_eq!(
            reason(bio),
            RejectReason::UnexpectedData {
                op,
                len,
                segments: 1
            }
        );
    }
}

#[test]
fn a_length_without_memory_is_refused_where_bytes_move_and_where_there_is_no_range() {
    for op in [
        Op::Read,
        Op::Write,
        Op::ZoneAppend,
        Op::Flush,
        Op::ZoneReset,
    ] {
        let len = ByteLen::new(512);
        assert_eq!(
            reason(Bio::with_range(op, Sector::new(0), len)),
            RejectReason::UnexpectedData {
                op,
                len,
                segments: 0
            }
        );
    }
}

#[test]
fn parts_of_sectors_are_refused() {
    for len in [1, 511, 513, 4097] {
        let len = ByteLen::new(len);
        assert_eq!(
            reason(Bio::discard(Sector::new(0), len)),
            RejectReason::PartialSector { len }
        );
        let read = Bio::read(Sector::new(0), memory(len.get()));
        assert_eq!(reason(read), RejectReason::PartialSector { len });
    }
}

#[test]
fn positions_that_do_not_fit_in_64_bits_of_bytes_are_refused() {
    let len = ByteLen::new(512);
    for sector in [
        Sector::new(u64::MAX),
        Sector::new(1 << 55),
        Sector::new((1 << 55) - 1),
    ] {
        let expected = RejectReason::PastAddressSpace { sector, len };
        assert_eq!(reason(Bio::discard(sector, len)), expected);
    }
}

#[test]
fn lengths_that_add_up_to_more_than_64_bits_are_refused() {
    let mut bio = Bio::new(Op::Read, Sector::new(0));
    for pfn in [0, 1 << 20, 2 << 20] {
        bio.push(frames(
            Pfn::try_new(pfn).unwrap().into(),
            u64::MAX - (3 << 32),
        ));
    }
    assert!(matches!(reason(bio), RejectReason::PartialSector { .. }));
}

#[test]
fn past_the_end_is_an_io_error_also_by_one_sector() {
    let limits = limits(1 << 20);
    let end = (1 << 20) / 512;
    for (sector, len) in [
        (end, 512),
        (end - 1, 1024),
        (0, (1 << 20) + 512),
        (1 << 54, 512),
    ] {
        let bio = Bio::discard(Sector::new(sector), ByteLen::new(len));
        assert_eq!(failure(limits, bio), BlkError::Io, "{sector}+{len}");
    }
    let device = NullDevice::new(limits);
    let last = Bio::discard(Sector::new(end - 1), ByteLen::new(512));
    assert_eq!(submit_sync(&device, last).unwrap().result(), Ok(()));
}

#[test]
#[cfg_attr(miri, ignore = "needs a memfd")]
fn past_the_end_nothing_is_done() {
    let (device, ram) = rig::pmem(1 << 20);
    let buffer = rig::segment(&ram, 0, 8192);
    pageless_block::FrameAccess::write_bytes(&ram, buffer, &[7; 8192]).unwrap();
    let over = Bio::write(Sector::new(2048 - 8), buffer);
    assert_eq!(
        submit_sync(&device, over).unwrap().result(),
        Err(BlkError::Io)
    );
    let last = device
        .segment(
            pageless_block::BytePos::new((1 << 20) - 4096),
            ByteLen::new(4096),
            PfnFlags::DEV,
        )
        .unwrap();
    assert_eq!(rig::bytes_of(&**device.frames(), last), [0; 4096]);
}

#[test]
fn half_a_logical_block_is_invalid() {
    let mut limits = limits(1 << 20);
    limits.set_logical_block(ByteLen::new(4096));
    for (sector, len) in [(1, 4096), (0, 512), (8, 4096 + 512)] {
        let bio = Bio::discard(Sector::new(sector), ByteLen::new(len));
        assert_eq!(failure(limits, bio), BlkError::Invalid, "{sector}+{len}");
    }
}

#[test]
fn a_device_that_insists_on_descriptors_refuses_frames_that_have_none() {
    let mut limits = limits(1 << 20);
    limits.features -= Features::PAGELESS;
    let pfn = Pfn::try_new(9).unwrap();
    let pageless = Bio::read(Sector::new(0), frames(PfnT::new(pfn, PfnFlags::DEV), 512));
    assert_eq!(failure(limits, pageless), BlkError::NotSupported);
    let paged = frames(PfnT::new(pfn, PfnFlags::DEV | PfnFlags::MAP), 512);
    let device = NullDevice::new(limits);
    assert_eq!(
        submit_sync(&device, Bio::read(Sector::new(0), paged))
            .unwrap()
            .result(),
        Ok(())
    );
}

#[test]
#[cfg_attr(miri, ignore = "needs a memfd")]
fn frames_that_nobody_knows_are_an_io_error() {
    let (device, _ram) = rig::pmem(1 << 20);
    let bio = Bio::read(
        Sector::new(0),
        frames(Pfn::try_new(1 << 50).unwrap().into(), 512),
    );
    assert_eq!(
        submit_sync(&device, bio).unwrap().result(),
        Err(BlkError::Io)
    );
    // The first frame is known and a later one is not.
    let last = Pfn::try_new(rig::RAM_BASE + 255).unwrap();
    let bio = Bio::read(Sector::new(0), frames(last.into(), 8192));
    assert_eq!(
        submit_sync(&device, bio).unwrap().result(),
        Err(BlkError::Io)
    );
}

/// Who is turned away and comes again would be there twice otherwise.
#[test]
fn nobody_who_looks_on_is_told_of_a_bio_that_was_not_taken_in() {
    let counts = Arc::new(EventCounts::new());
    let config = QueueConfig {
        depth: 1,
        probe: Some(Arc::clone(&counts) as Arc<dyn Probe>),
        ..QueueConfig::default()
    };
    let shelf = rig::Shelf::new();
    let queue = RequestQueue::try_new(&shelf, config).unwrap();
    let mut first = queue.shared_context(rig::QUEUE).unwrap();
    let mut second = queue.shared_context(rig::QUEUE).unwrap();
    first.submit(rig::sector(0)).unwrap();
    // The tag is taken; then the queue is frozen, which also keeps one out that would have been cut, or joined another.
    second.submit(rig::sector(1)).unwrap_err();
    let frozen = queue.freeze();
    let long = Bio::discard(Sector::new(0), ByteLen::new(1 << 20));
    second.submit(long).unwrap_err();
    second.plug().submit(rig::sector(1)).unwrap_err();
    assert_eq!(counts.get(Action::Queue), 1);
    drop(frozen);
    shelf.succeed(0);
    first.drain(|done| assert_eq!(done.result(), Ok(())));
    // One that is held back, one that finds no place, and one that the device does not have.
    let mut plug = second.plug();
    plug.submit(rig::sector(1)).unwrap();
    plug.submit(rig::sector(2)).unwrap_err();
    drop(plug);
    first.submit(rig::sector(1 << 40)).unwrap();
    assert_eq!(counts.get(Action::Queue), 3);
    shelf.succeed(0);
    second.drain(|done| assert_eq!(done.result(), Ok(())));
    first.drain(|done| assert_eq!(done.result(), Err(BlkError::Io)));
}
