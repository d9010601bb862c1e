//! Hazard: a store that takes memory for what was never written, keeps what was discarded, or reads
//! back anything but what was written last.

use std::thread;

use pageless_block::{
    AccessError, BlkError, BytePos, FrameAccess, HeapError, HeapFrames, SparseError, SparseFrames,
};
use pageless_pfn::{ByteLen, FrameCount, PAGE_SIZE, Pfn, PhysSegment};
use proptest::prelude::*;

fn heap(frames: u64) -> HeapFrames {
    HeapFrames::new(Pfn::try_new(0x100).unwrap(), FrameCount::new(frames)).unwrap()
}

fn write(store: &SparseFrames, ram: &HeapFrames, at: u64, data: &[u8]) -> Result<(), SparseError> {
    let buffer = ram.segment(0, ByteLen::new(data.len() as u64)).unwrap();
    ram.write_bytes(buffer, data).unwrap();
    store.write(BytePos::new(at), ram, buffer)
}

fn read(store: &SparseFrames, ram: &HeapFrames, at: u64, len: usize) -> Vec<u8> {
    let buffer = ram.segment(0, ByteLen::new(len as u64)).unwrap();
    ram.write_bytes(buffer, &vec![0xaa; len]).unwrap();
    store.read(BytePos::new(at), ram, buffer).unwrap();
    let mut out = vec![0; len];
    ram.read_bytes(buffer, &mut out).unwrap();
    out
}

#[test]
fn frames_come_with_the_first_write_and_go_with_a_discard_of_all_of_them() {
    let (store, ram) = (SparseFrames::new(ByteLen::new(1 << 50)), heap(4));
    assert_eq!(read(&store, &ram, 5 << 40, 5000), [0; 5000]);
    assert_eq!(store.resident(), FrameCount::ZERO, "a read takes none");
    let at = (5 << 40) + 4000;
    write(&store, &ram, at, &[7; 5000]).unwrap();
    assert_eq!(store.resident(), FrameCount::new(3));
    // All but the outermost bytes: only the middle one goes.
    store
        .discard(BytePos::new((5 << 40) + 1), ByteLen::new(3 * PAGE_SIZE - 2))
        .unwrap();
    assert_eq!(store.resident(), FrameCount::new(2));
    let back = read(&store, &ram, at, 5000);
    assert!(
        back[..96].iter().all(|byte| *byte == 7),
        "what lies in part of a frame stays"
    );
    assert!(back[96..96 + 4096].iter().all(|byte| *byte == 0));
    assert!(back[96 + 4096..].iter().all(|byte| *byte == 7));
    store
        .discard(BytePos::new(0), ByteLen::new(1 << 50))
        .unwrap();
    assert_eq!(store.resident(), FrameCount::ZERO);
    store.self_check().unwrap();
}

#[test]
fn zeroes_are_written_to_the_last_byte_and_free_what_they_cover() {
    let (store, ram) = (SparseFrames::new(ByteLen::new(1 << 20)), heap(4));
    write(&store, &ram, 0, &[9; 4 * 4096]).unwrap();
    store
        .zero(BytePos::new(100), ByteLen::new(3 * 4096))
        .unwrap();
    assert_eq!(store.resident(), FrameCount::new(2));
    let back = read(&store, &ram, 0, 4 * 4096);
    for (n, byte) in back.iter().enumerate() {
        let zeroed = (100..100 + 3 * 4096).contains(&n);
        assert_eq!(*byte, if zeroed { 0 } else { 9 }, "byte {n}");
    }
    // Within one frame.
    store.zero(BytePos::new(10), ByteLen::new(5)).unwrap();
    assert_eq!(read(&store, &ram, 8, 8), [9, 9, 0, 0, 0, 0, 0, 9]);
    store.zero(BytePos::new(3), ByteLen::ZERO).unwrap();
    assert_eq!(store.resident(), FrameCount::new(2));
    store.self_check().unwrap();
}

#[test]
fn a_device_that_ends_within_a_frame_gives_that_one_back_too() {
    let (store, ram) = (SparseFrames::new(ByteLen::new(5000)), heap(2));
    write(&store, &ram, 4500, &[3; 500]).unwrap();
    assert_eq!(store.resident(), FrameCount::new(1));
    store
        .discard(BytePos::new(4096), ByteLen::new(904))
        .unwrap();
    assert_eq!(store.resident(), FrameCount::ZERO);
    let past = SparseError::PastEnd {
        at: BytePos::new(4501),
        len: ByteLen::new(500),
        capacity: ByteLen::new(5000),
    };
    assert_eq!(write(&store, &ram, 4501, &[3; 500]), Err(past));
    assert_eq!(
        store.discard(BytePos::new(4501), ByteLen::new(500)),
        Err(past)
    );
    assert_eq!(store.zero(BytePos::new(4501), ByteLen::new(500)), Err(past));
    assert_eq!(BlkError::from(past), BlkError::Io);
    assert_eq!(store.resident(), FrameCount::ZERO);
}

#[test]
fn a_full_store_says_so_and_still_takes_what_needs_no_frame() {
    let limit = FrameCount::new(2);
    let (store, ram) = (
        SparseFrames::with_limit(ByteLen::new(1 << 30), limit),
        heap(4),
    );
    write(&store, &ram, 0, &[1; 8192]).unwrap();
    let full = SparseError::Full { resident: limit };
    assert_eq!(write(&store, &ram, 1 << 20, &[1]), Err(full));
    assert_eq!(BlkError::from(full), BlkError::NoSpace);
    assert_eq!(store.resident(), limit, "a refusal is not counted");
    write(&store, &ram, 4000, &[2; 200]).unwrap();
    // Half of it fits.
    store
        .discard(BytePos::new(4096), ByteLen::new(4096))
        .unwrap();
    assert_eq!(write(&store, &ram, 4096, &[4; 8192]), Err(full));
    assert_eq!(
        read(&store, &ram, 4096, 8192),
        [[4; 4096], [0; 4096]].concat()
    );
    store.self_check().unwrap();
}

#[test]
fn memory_that_is_not_there_is_an_error_and_not_a_crash() {
    let store = SparseFrames::new(ByteLen::new(1 << 20));
    let (ram, other) = (heap(2), heap(4));
    let beyond = other.segment(4096, ByteLen::new(8192)).unwrap();
    let refused = AccessError::NotBacked {
        pfn: Pfn::try_new(0x102).unwrap(),
    };
    assert_eq!(
        store.write(BytePos::new(0), &ram, beyond),
        Err(refused.into())
    );
    assert_eq!(
        store.read(BytePos::new(0), &ram, beyond),
        Err(refused.into())
    );
    store.self_check().unwrap();

    let far = HeapFrames::new(Pfn::MAX, FrameCount::new(2));
    assert!(matches!(far, Err(HeapError::Range(_))), "{far:?}");
    let count = FrameCount::new(1 << 51);
    let huge = HeapFrames::new(Pfn::MIN, count).unwrap_err();
    assert_eq!(huge, HeapError::Memory { count });
    let none = heap(0);
    assert!(none.segment(0, ByteLen::new(1)).is_none());
    let first: PhysSegment = ram.segment(0, ByteLen::new(1)).unwrap();
    assert!(none.with(first, |_| ()).is_err());
    assert!(ram.segment(8191, ByteLen::new(2)).is_none());
}

#[test]
fn a_segment_may_run_from_one_provider_into_the_next() {
    let store = SparseFrames::new(ByteLen::new(1 << 20));
    let (low, whole) = (heap(2), heap(4));
    let high = HeapFrames::new(Pfn::try_new(0x102).unwrap(), FrameCount::new(2)).unwrap();
    let both = (&low, &high);
    let buffer = whole
        .segment(100, ByteLen::new(4 * PAGE_SIZE - 200))
        .unwrap();
    let data: Vec<u8> = (0..buffer.len().get()).map(|n| (n % 251) as u8).collect();
    both.write_bytes(buffer, &data).unwrap();
    store.write(BytePos::new(77), &both, buffer).unwrap();
    both.zero_bytes(buffer).unwrap();
    store.read(BytePos::new(77), &both, buffer).unwrap();
    let mut back = vec![0; data.len()];
    both.read_bytes(buffer, &mut back).unwrap();
    assert!(back == data);
}

#[test]
fn threads_see_whole_frames_and_the_count_stays_right() {
    let store = &SparseFrames::new(ByteLen::new(1 << 20));
    let rounds = if cfg!(miri) { 5 } else { 500 };
    thread::scope(|scope| {
        for id in 1..=3_u8 {
            scope.spawn(move || {
                let ram = heap(2);
                for n in 0..rounds {
                    let at = (n * u64::from(id) % 8) * 4096;
                    match n % 5 {
                        0 => store.discard(BytePos::new(at), ByteLen::new(8192)).unwrap(),
                        1 => {
                            let back = read(store, &ram, at, 4096);
                            assert!(back.iter().all(|byte| *byte == back[0]), "torn");
                        }
                        _ => write(store, &ram, at, &[id; 4096]).unwrap(),
                    }
                }
            });
        }
    });
    store.self_check().unwrap();
}

#[derive(Clone, Debug)]
enum Step {
    Write(u64, u64, u8),
    Read(u64, u64),
    Zero(u64, u64),
    Discard(u64, u64),
}

/// Bytes of the device: not a multiple of a frame.
const BYTES: u64 = 12 * PAGE_SIZE + 512;

fn step() -> impl Strategy<Value = Step> {
    let range = (0..BYTES, 1..3 * PAGE_SIZE).prop_map(|(at, len)| (at, len.min(BYTES - at)));
    let frames = (0..12_u64, 1..4_u64).prop_map(|(n, count)| {
        let at = n * PAGE_SIZE;
        (at, (count * PAGE_SIZE).min(BYTES - at))
    });
    let range = prop_oneof![range, frames];
    prop_oneof![
        (range.clone(), 1..=255_u8).prop_map(|((at, len), byte)| Step::Write(at, len, byte)),
        range.clone().prop_map(|(at, len)| Step::Read(at, len)),
        range.clone().prop_map(|(at, len)| Step::Zero(at, len)),
        range.prop_map(|(at, len)| Step::Discard(at, len)),
    ]
}

proptest! {
    #[test]
    fn a_sparse_store_is_what_a_plain_array_is(
        steps in prop::collection::vec(step(), 1..if cfg!(miri) { 8 } else { 40 }),
    ) {
        let (store, ram) = (SparseFrames::new(ByteLen::new(BYTES)), heap(4));
        let mut plain = vec![0; BYTES as usize];
        let mut there = [false; 13];
        for step in steps {
            match step {
                Step::Write(at, len, byte) => {
                    let data: Vec<u8> = (0..len).map(|n| byte.wrapping_add(n as u8)).collect();
                    write(&store, &ram, at, &data).unwrap();
                    plain[at as usize..][..data.len()].copy_from_slice(&data);
                    there[(at / PAGE_SIZE) as usize..=((at + len - 1) / PAGE_SIZE) as usize].fill(true);
                }
                Step::Read(at, len) => {
                    let back = read(&store, &ram, at, len as usize);
                    prop_assert!(back == plain[at as usize..][..len as usize], "{step:?}");
                }
                Step::Zero(at, len) | Step::Discard(at, len) => {
                    let (first, mut last) = (at.div_ceil(PAGE_SIZE), (at + len) / PAGE_SIZE);
                    if at + len == BYTES {
                        last = 13;
                    }
                    for n in first..last {
                        there[n as usize] = false;
                        let end = ((n + 1) * PAGE_SIZE).min(BYTES) as usize;
                        plain[(n * PAGE_SIZE) as usize..end].fill(0);
                    }
                    if let Step::Zero(..) = step {
                        store.zero(BytePos::new(at), ByteLen::new(len)).unwrap();
                        plain[at as usize..][..len as usize].fill(0);
                    } else {
                        store.discard(BytePos::new(at), ByteLen::new(len)).unwrap();
                    }
                }
            }
            store.self_check().map_err(TestCaseError::fail)?;
            let count = there.iter().filter(|there| **there).count() as u64;
            prop_assert_eq!(store.resident(), FrameCount::new(count), "{:?}", step);
        }
        for (n, chunk) in plain.chunks(PAGE_SIZE as usize).enumerate() {
            prop_assert!(read(&store, &ram, n as u64 * PAGE_SIZE, chunk.len()) == chunk);
        }
    }
}
