//! Hazard: a byte that lands in the wrong place because a bio was cut up. Random bios, whose
//! segments begin and end anywhere, against a device that is a `Vec<u8>`.

extern crate alloc;

mod rig;

use alloc::sync::Arc;

use pageless_block::{
    Bio, BytePos, FrameAccess, Limits, MapPolicy, NullDevice, Op, Pmem, PmemFrames, RamFrames,
    RequestQueue, Sector, submit_sync,
};
use pageless_pfn::{
    ByteLen, FrameCount, PAGE_SIZE, Pfn, PfnFlags, PhysSegment, SgEntry, SgLimits, SgWalk,
};
use proptest::prelude::*;

const DEVICE: u64 = 256 << 10;
const RAM: u64 = 128 << 10;

#[derive(Clone, Debug)]
struct Script {
    op: Op,
    sector: u64,
    /// Where in RAM a segment begins, and its length before it is trimmed.
    segments: Vec<(u64, u64)>,
    sectors: u64,
}

fn script() -> impl Strategy<Value = Script> {
    let op = prop_oneof![
        4 => Just(Op::Read),
        4 => Just(Op::Write),
        1 => Just(Op::Discard),
        1 => Just(Op::WriteZeroes),
    ];
    let segments = proptest::collection::vec((0..RAM, 1..9000_u64), 1..6);
    (op, 0..DEVICE / 512, segments, 1..100_u64).prop_map(|(op, sector, segments, sectors)| Script {
        op,
        sector,
        segments,
        sectors,
    })
}

/// The script's bio, trimmed so that it is well-formed and lies on the device; and the bytes of
/// RAM it is about, in order.
fn build(script: &Script, ram: &RamFrames) -> (Bio, Vec<usize>) {
    let room = DEVICE - script.sector * 512;
    if !script.op.carries_data() {
        let len = ByteLen::new((script.sectors * 512).min(room));
        let bio = match script.op {
            Op::Discard => Bio::discard(Sector::new(script.sector), len),
            _ => Bio::write_zeroes(Sector::new(script.sector), len),
        };
        return (bio.erase(), Vec::new());
    }
    let clipped: Vec<(u64, u64)> = script
        .segments
        .iter()
        .map(|&(at, len)| (at, len.min(RAM - at)))
        .collect();
    let total: u64 = clipped.iter().map(|(_, len)| len).sum();
    let mut left = (total.min(room) / 512) * 512;
    let mut bio = Bio::new(script.op, Sector::new(script.sector));
    let mut places = Vec::new();
    for (at, len) in clipped {
        let len = len.min(left);
        left -= len;
        if len > 0 {
            bio.push(rig::segment(ram, at, len));
            places.extend((at..at + len).map(|n| n as usize));
        }
    }
    (bio, places)
}

/// Runs the scripts on `frames` and on plain vectors, and compares after every step.
fn compare(scripts: &[Script], frames: Arc<PmemFrames>, max: u64, depth: u16) {
    let ram = Arc::new(
        RamFrames::new(rig::pfn(rig::RAM_BASE), FrameCount::new(RAM / PAGE_SIZE)).unwrap(),
    );
    let device = Pmem::new(Arc::clone(&frames), Arc::clone(&ram))
        .with_limits(|limits| {
            let max = ByteLen::new(max);
            (
                limits.max_request,
                limits.max_discard,
                limits.max_write_zeroes,
            ) = (max, max, max);
        })
        .unwrap();
    let everything = rig::segment(&ram, 0, RAM);
    let pattern: Vec<u8> = (0..RAM).map(|n| (n * 7 + n / 251) as u8).collect();
    ram.write_bytes(everything, &pattern).unwrap();
    let whole = frames
        .segment(BytePos::new(0), ByteLen::new(DEVICE), PfnFlags::DEV)
        .unwrap();
    let (mut ram_model, mut device_model) = (pattern, vec![0_u8; DEVICE as usize]);
    let queue = RequestQueue::with_depth(&device, depth.max(1)).unwrap();
    let mut context = queue.context(rig::QUEUE).unwrap();
    let mut splits = 0;
    for script in scripts {
        let (bio, places) = build(script, &ram);
        let at = (script.sector * 512) as usize;
        let len = bio.len().get();
        if len == 0 {
            continue;
        }
        match script.op {
            Op::Read => {
                for (n, &place) in places.iter().enumerate() {
                    ram_model[place] = device_model[at + n];
                }
            }
            Op::Write => {
                for (n, &place) in places.iter().enumerate() {
                    device_model[at + n] = ram_model[place];
                }
            }
            _ => device_model[at..at + len as usize].fill(0),
        }
        splits += len.div_ceil(max) - 1;
        let done = if depth == 0 {
            submit_sync(&device, bio.clone()).unwrap()
        } else {
            context.submit(bio.clone()).unwrap();
            context.reap().unwrap()
        };
        assert_eq!(done.result(), Ok(()));
        assert_eq!(done.done(), bio.len());
        assert_eq!(rig::face(done.bio()), rig::face(&bio));
        assert!(
            rig::bytes_of(&ram, everything) == ram_model,
            "RAM differs after {script:?}"
        );
        assert!(
            rig::bytes_of(&frames, whole) == device_model,
            "device differs after {script:?}"
        );
    }
    if depth != 0 {
        assert_eq!(context.counters().splits, splits);
    }
}

/// A device seen through few, small windows, so that most copies cross some.
fn small_windows() -> Arc<PmemFrames> {
    let policy = MapPolicy {
        direct_limit: ByteLen::ZERO,
        window: ByteLen::new(16384),
        windows: 3,
    };
    let frames = PmemFrames::memfd_with(rig::pfn(rig::PMEM_BASE), ByteLen::new(DEVICE), policy);
    let frames = frames.unwrap();
    assert!(!frames.is_direct());
    Arc::new(frames)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn cut_up_bios_do_what_a_vector_does(
        scripts in proptest::collection::vec(script(), 1..25),
        max in prop_oneof![Just(512_u64), Just(1024), Just(4096), Just(12288), Just(1 << 20)],
        depth in 0..3_u16,
    ) {
        compare(&scripts, rig::memfd(DEVICE), max, depth);
    }

    #[test]
    fn cut_up_bios_do_the_same_through_windows(
        scripts in proptest::collection::vec(script(), 1..25),
        max in prop_oneof![Just(512_u64), Just(4096), Just(1 << 20)],
    ) {
        compare(&scripts, small_windows(), max, 1);
    }
}

#[test]
fn a_bio_may_copy_from_one_part_of_the_device_to_another() {
    for frames in [rig::memfd(DEVICE), small_windows()] {
        let ram = rig::ram(4);
        let device = Pmem::new(Arc::clone(&frames), ram);
        let part = |at, len| {
            frames
                .segment(BytePos::new(at), ByteLen::new(len), PfnFlags::DEV)
                .unwrap()
        };
        let data: Vec<u8> = (0..50_000_u32).map(|n| (n / 3) as u8).collect();
        frames.write_bytes(part(1000, 50_000), &data).unwrap();
        // Source and destination both cross windows, at different places.
        let bio = Bio::write(Sector::new(200), part(1000, 49_664));
        assert_eq!(submit_sync(&device, bio).unwrap().result(), Ok(()));
        assert!(rig::bytes_of(&frames, part(200 * 512, 49_664)) == data[..49_664]);
    }
}

#[test]
fn a_scatter_gather_list_across_tables_is_written_in_its_order() {
    let (device, ram) = rig::pmem(DEVICE);
    let part = |at, len| rig::segment(&ram, at, len);
    let parts = [
        part(40_000, 300),
        part(7, 724),
        part(4096, 2048),
        part(6144, 512),
    ];
    for (n, part) in parts.into_iter().enumerate() {
        ram.write_bytes(part, &vec![n as u8 + 1; part.len().get() as usize])
            .unwrap();
    }
    let tables = [
        [SgEntry::data(parts[0]), SgEntry::chain(rig::pfn(901))],
        [SgEntry::data(parts[1]), SgEntry::chain(rig::pfn(902))],
        [SgEntry::data(parts[2]), SgEntry::last(parts[3])],
    ];
    let table = |at: Pfn| tables.get(at.get() as usize - 900).map(|t| &t[..]);
    let walk = SgWalk::new(&tables[0], table, SgLimits::default());
    let mut bio = Bio::new(Op::Write, Sector::new(5));
    bio.extend(walk.map(Result::unwrap));
    // The last two continue each other: one segment.
    assert_eq!((bio.segments().len(), bio.len().get()), (3, 3584));
    rig::run(&device, bio);
    let stored = device
        .segment(BytePos::new(5 * 512), ByteLen::new(3584), PfnFlags::DEV)
        .unwrap();
    let expected = [vec![1; 300], vec![2; 724], vec![3; 2048], vec![4; 512]].concat();
    assert_eq!(rig::bytes_of(&**device.frames(), stored), expected);
}

#[test]
fn one_segment_longer_than_four_gibibytes_is_split_by_arithmetic() {
    let mut limits = Limits::new(ByteLen::new(6 << 40));
    limits.max_request = ByteLen::new(1 << 30);
    let frame = pageless_pfn::PfnT::new(rig::pfn(rig::PMEM_BASE), PfnFlags::DEV);
    let all = PhysSegment::try_new(frame, Default::default(), ByteLen::new(6 << 40)).unwrap();
    let queue = RequestQueue::with_depth(NullDevice::new(limits), 1).unwrap();
    let mut context = queue.context(rig::QUEUE).unwrap();
    context.submit(Bio::read(Sector::new(0), all)).unwrap();
    assert_eq!(context.reap().unwrap().done().get(), 6 << 40);
    assert_eq!(context.counters().splits, 6 * 1024 - 1);
}

#[test]
fn a_segment_of_a_gibibyte_reaches_the_driver_whole() {
    let shelf = rig::Shelf::with_limits(Limits::new(ByteLen::new(6 << 40)));
    let queue = RequestQueue::with_depth(&shelf, 1).unwrap();
    let mut context = queue.context(rig::QUEUE).unwrap();
    let frame = pageless_pfn::PfnT::new(rig::pfn(rig::PMEM_BASE), PfnFlags::DEV);
    let whole = PhysSegment::try_new(frame, Default::default(), ByteLen::new(1 << 30)).unwrap();
    context.submit(Bio::write(Sector::new(8), whole)).unwrap();
    let segments = shelf.look(0, |request| request.segments().collect::<Vec<_>>());
    assert_eq!(segments, [whole]);
    shelf.succeed(0);
    assert_eq!(context.reap().unwrap().done().get(), 1 << 30);
    assert_eq!(context.counters().splits, 0);
}

#[test]
fn a_bio_is_as_long_as_its_memory_whatever_it_was_said_to_be() {
    let device = NullDevice::new(Limits::new(ByteLen::new(1 << 20)));
    let mut bio = Bio::with_range(Op::Write, Sector::new(0), ByteLen::new(8192));
    bio.push(rig::memory(4096));
    assert_eq!(bio.len(), ByteLen::new(4096));
    let done = submit_sync(&device, bio).unwrap();
    // Not a byte more than there was memory for.
    assert_eq!(done.done(), ByteLen::new(4096));
}

#[test]
fn a_bio_of_a_hundred_thousand_segments_is_cut_into_as_few_pieces_as_there_can_be() {
    const SEGMENTS: u64 = 100_000;
    let mut limits = Limits::new(ByteLen::new(1 << 30));
    limits.max_segments = 128;
    let queue = RequestQueue::with_depth(NullDevice::new(limits), 4).unwrap();
    let mut context = queue.context(rig::QUEUE).unwrap();
    let mut bio = Bio::new(Op::Write, Sector::new(0));
    // Half a frame each, from every second half on, so that no two are neighbours.
    bio.extend((0..SEGMENTS).map(|n| {
        let frame = Pfn::try_new(1 + n).unwrap().into();
        PhysSegment::try_new(frame, Default::default(), ByteLen::new(2048)).unwrap()
    }));
    assert_eq!(bio.segments().len() as u64, SEGMENTS);
    context.submit(bio).unwrap();
    assert_eq!(context.counters().splits, SEGMENTS.div_ceil(128) - 1);
    let done = context.reap().unwrap();
    assert_eq!(done.done(), ByteLen::new(2048 * SEGMENTS));
}
