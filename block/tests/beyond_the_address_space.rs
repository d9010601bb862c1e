//! Hazard: a device that is larger than what a process can map, and bytes that are reached through
//! a window which has been given to another part of it.

extern crate alloc;

mod rig;

use alloc::sync::Arc;

use pageless_block::{AccessError, Bio, BytePos, FrameAccess, MapPolicy, Pmem, PmemFrames, Sector};
use pageless_pfn::{ByteLen, PfnFlags};
use proptest::prelude::*;

const PIB: u64 = 1 << 50;
const TIB: u64 = 1 << 40;

#[test]
fn a_pebibyte_is_readable_and_writable_at_both_ends_and_across_windows() {
    let ram = rig::ram(16);
    let device = Pmem::new(rig::memfd(PIB), Arc::clone(&ram));
    assert!(!device.frames().is_direct());
    let (out, back) = (rig::segment(&ram, 0, 8192), rig::segment(&ram, 16384, 8192));
    let places = [
        0,
        PIB - 8192,
        TIB - 4096,
        33 * TIB,
        65 * TIB - 512,
        512 * TIB,
        TIB,
    ];
    for round in 0..2_u8 {
        for (n, &at) in places.iter().enumerate() {
            let data: Vec<u8> = (0..8192_u32)
                .map(|i| (i / 3) as u8 ^ n as u8 ^ round)
                .collect();
            ram.write_bytes(out, &data).unwrap();
            let bio = Bio::write(Sector::new(at / 512), out);
            rig::run(&device, bio);
        }
        // The last one overlaps the second half of an earlier one; all others stand.
        for (n, &at) in places.iter().enumerate() {
            let bio = Bio::read(Sector::new(at / 512), back);
            rig::run(&device, bio);
            let data: Vec<u8> = (0..8192_u32)
                .map(|i| (i / 3) as u8 ^ n as u8 ^ round)
                .collect();
            let read = rig::bytes_of(&ram, back);
            if at == TIB - 4096 {
                assert!(read[..4096] == data[..4096]);
            } else {
                assert!(read == data, "at {at:#x}");
            }
        }
    }
}

#[test]
fn untouched_bytes_of_a_pebibyte_read_as_zeroes() {
    let (device, ram) = rig::pmem(PIB);
    let buffer = rig::segment(&ram, 0, 4096);
    ram.write_bytes(buffer, &[9; 4096]).unwrap();
    let bio = Bio::read(Sector::new((777 * TIB + 12345 * 512) / 512), buffer);
    rig::run(&device, bio);
    assert_eq!(rig::bytes_of(&ram, buffer), [0; 4096]);
}

#[test]
fn thirty_two_tebibytes_are_mapped_whole_and_a_frame_more_is_not() {
    assert!(rig::memfd(32 * TIB).is_direct());
    assert!(!rig::memfd(32 * TIB + 4096).is_direct());
}

#[test]
fn segments_that_leave_the_device_are_not_backed() {
    for frames in [rig::memfd(1 << 20), rig::memfd(PIB)] {
        let bytes = frames.len().get();
        let count = frames.range().count().get();
        let at = |pfn, len| {
            let frame = pageless_pfn::PfnT::new(rig::pfn(pfn), PfnFlags::DEV);
            pageless_pfn::PhysSegment::try_new(frame, Default::default(), ByteLen::new(len))
                .unwrap()
        };
        let reach = |segment| frames.with(segment, |_| ());
        assert_eq!(reach(at(rig::PMEM_BASE, bytes)), Ok(()));
        assert_eq!(reach(at(rig::PMEM_BASE + count - 1, 4096)), Ok(()));
        for (pfn, len) in [
            (rig::PMEM_BASE + count, 1),
            (rig::PMEM_BASE - 1, 1),
            (rig::PMEM_BASE - 1, 8192),
            (0, 1),
        ] {
            let missing = Err(AccessError::NotBacked { pfn: rig::pfn(pfn) });
            assert_eq!(reach(at(pfn, len)), missing, "{pfn:#x}+{len}");
        }
        // One that runs over the end reaches what is there, and no byte more.
        let last = at(rig::PMEM_BASE + count - 1, 4097);
        assert_eq!(frames.with(last, |span| span.len()), Ok(4096));
        let mut out = [0; 4097];
        let beyond = rig::pfn(rig::PMEM_BASE + count);
        assert_eq!(
            frames.read_bytes(last, &mut out),
            Err(AccessError::NotBacked { pfn: beyond })
        );
    }
}

fn small(windows: u16) -> PmemFrames {
    let policy = MapPolicy {
        direct_limit: ByteLen::ZERO,
        window: ByteLen::new(4096),
        windows,
    };
    PmemFrames::memfd_with(rig::pfn(rig::PMEM_BASE), ByteLen::new(64 * 4096), policy).unwrap()
}

#[test]
fn when_every_window_is_in_use_the_answer_is_an_error_and_not_a_wait() {
    let frames = small(2);
    let at = |page: u64| {
        frames
            .segment(BytePos::new(page * 4096), ByteLen::new(8), PfnFlags::DEV)
            .unwrap()
    };
    frames
        .with(at(0), |_first| {
            frames.with(at(1), |_second| {
                // Those in use can be entered again; a third one is not to be had.
                assert_eq!(frames.with(at(0), |_| ()), Ok(()));
                let pfn = rig::pfn(rig::PMEM_BASE + 2);
                let none = Err(AccessError::NoWindow { pfn, windows: 2 });
                assert_eq!(frames.with(at(2), |_| ()), none);
            })
        })
        .unwrap()
        .unwrap();
    assert_eq!(frames.with(at(2), |_| ()), Ok(()));
}

#[test]
fn a_panic_inside_a_window_gives_it_back() {
    let frames = small(1);
    let at = |page: u64| {
        frames
            .segment(BytePos::new(page * 4096), ByteLen::new(8), PfnFlags::DEV)
            .unwrap()
    };
    let panic = std::panic::catch_unwind(core::panic::AssertUnwindSafe(|| {
        frames.with(at(0), |_| panic!("in the window"))
    }));
    assert!(panic.is_err());
    assert_eq!(frames.with(at(1), |_| ()), Ok(()));
}

#[test]
fn threads_that_push_each_others_windows_away_read_what_they_wrote() {
    let frames = small(4);
    std::thread::scope(|threads| {
        for thread in 0..4_u64 {
            let frames = &frames;
            threads.spawn(move || {
                let mut seen = [0_u8; 8];
                for n in 0..4000_u64 {
                    // Pages of one thread only, all of which share the four windows.
                    let page = (n * 29 % 16) * 4 + thread;
                    let at = BytePos::new(page * 4096 + thread * 8);
                    let segment = frames.segment(at, ByteLen::new(8), PfnFlags::DEV).unwrap();
                    let value = (n << 8 | thread).to_le_bytes();
                    frames.write_bytes(segment, &value).unwrap();
                    frames.read_bytes(segment, &mut seen).unwrap();
                    assert_eq!(seen, value);
                }
            });
        }
    });
}

proptest! {
    #[test]
    fn windows_hold_the_part_they_say(
        steps in proptest::collection::vec((0..64_u64 * 4096 - 10_000, 1..10_000_usize, any::<u8>()), 1..40),
        windows in 1..5_u16,
    ) {
        let frames = small(windows);
        let mut model = vec![0_u8; 64 * 4096];
        for (at, len, value) in steps {
            let segment =
                frames.segment(BytePos::new(at), ByteLen::new(len as u64), PfnFlags::DEV).unwrap();
            frames.write_bytes(segment, &vec![value; len]).unwrap();
            model[at as usize..at as usize + len].fill(value);
        }
        let whole = frames.segment(BytePos::new(0), frames.len(), PfnFlags::DEV).unwrap();
        prop_assert!(rig::bytes_of(&frames, whole) == model);
    }
}
