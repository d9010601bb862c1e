//! Whatever fits a stacked device fits the devices below, at its place there.

use alloc::vec::Vec;

use pageless_pfn::PhysSegment;
use proptest::prelude::*;

use super::*;
use crate::flags::BioFlags;
use crate::limits::model::{some_limits, some_memory, unlimited};
use crate::limits::split::{Cut, Cutter, Shape};
use crate::op::Op;

const START: BytePos = BytePos::new(0);

fn bytes(len: u64) -> ByteLen {
    ByteLen::new(len)
}

fn with(features: Features) -> Limits {
    let mut limits = unlimited();
    limits.features = features;
    limits
}

fn both(a: &Limits, b: &Limits) -> Result<Limits, StackError> {
    Limits::over(ByteLen::new(1 << 30), a, START)?.stack(b, START)
}

#[test]
fn one_part_from_its_start_on_promises_what_the_device_does() {
    let mut disk = unlimited();
    disk.features |= Features::WRITE_CACHE | Features::FUA | Features::NOWAIT;
    disk.max_discard = Limits::UNLIMITED;
    disk.chunk = Some(bytes(3 * 512));
    disk.max_request = bytes(10 * 512);
    let part = Limits::over(bytes(1 << 20), &disk, BytePos::new(6 * 512)).unwrap();
    let mut expected = disk;
    expected.capacity = bytes(1 << 20);
    assert_eq!(part, expected);
}

#[test]
fn a_part_begins_with_a_block_and_with_a_zone() {
    let mut disk = unlimited();
    disk.logical_block = bytes(4096);
    disk.physical_block = bytes(4096);
    disk.discard_granularity = bytes(4096);
    assert_eq!(
        Limits::over(bytes(1 << 20), &disk, BytePos::new(512)),
        Err(StackError::Misaligned {
            start: BytePos::new(512),
            what: "logical block",
            len: bytes(4096)
        })
    );
    let mut zoned = unlimited();
    zoned.features |= Features::ZONED;
    zoned.zones = Some(ZoneLimits {
        size: bytes(1 << 20),
        max_append: bytes(4096),
        max_open: 0,
        max_active: 7,
    });
    assert!(Limits::over(bytes(1 << 20), &zoned, BytePos::new(512)).is_err());
    assert!(Limits::over(bytes(1 << 20), &zoned, BytePos::new(1 << 20)).is_ok());
    // Zones beside none, or beside others.
    assert!(both(&zoned, &unlimited()).is_err());
    assert!(both(&unlimited(), &zoned).is_err());
    let mut other = zoned;
    other.zones.as_mut().unwrap().max_open = 3;
    other.zones.as_mut().unwrap().max_active = 5;
    let zones = both(&zoned, &other).unwrap().zones.unwrap();
    assert_eq!((zones.max_open, zones.max_active), (3, 5));
    other.zones.as_mut().unwrap().size = bytes(2 << 20);
    assert_eq!(
        both(&zoned, &other),
        Err(StackError::Zones {
            one: bytes(1 << 20),
            other: bytes(2 << 20)
        })
    );
}

#[test]
fn what_one_part_lacks_the_whole_lacks() {
    for feature in IF_ALL {
        let (yes, no) = (with(feature), with(Features::empty()));
        assert_eq!(both(&yes, &yes).unwrap().features, feature);
        assert_eq!(both(&yes, &no).unwrap().features, Features::empty());
        assert_eq!(both(&no, &yes).unwrap().features, Features::empty());
    }
    let mut discards = unlimited();
    discards.max_discard = bytes(1 << 20);
    assert_eq!(
        both(&discards, &discards).unwrap().max_discard,
        bytes(1 << 20)
    );
    assert_eq!(
        both(&discards, &unlimited()).unwrap().max_discard,
        ByteLen::ZERO
    );
}

#[test]
fn what_one_part_has_the_whole_has() {
    for feature in IF_ANY {
        let (yes, no) = (with(feature), with(Features::empty()));
        assert_eq!(both(&yes, &no).unwrap().features, feature);
        assert_eq!(both(&no, &yes).unwrap().features, feature);
    }
}

#[test]
fn fua_is_promised_where_each_part_is_durable_by_itself() {
    let cached = with(Features::WRITE_CACHE);
    let fua = with(Features::WRITE_CACHE | Features::FUA);
    let none = with(Features::empty());
    let promised = |a, b| both(a, b).unwrap().features.contains(Features::FUA);
    assert!(promised(&fua, &fua));
    assert!(promised(&fua, &none));
    assert!(promised(&none, &fua));
    assert!(!promised(&fua, &cached));
    assert!(!promised(&cached, &none));
    assert!(!promised(&none, &none));
}

#[test]
fn every_feature_is_stacked_in_some_way() {
    let stacked = IF_ALL | IF_ANY | Features::FUA | Features::ZONED;
    assert_eq!(stacked, Features::all());
}

#[test]
fn coarser_blocks_may_leave_nothing_of_an_operation() {
    let mut fine = unlimited();
    fine.max_discard = bytes(1024);
    let mut coarse = unlimited();
    coarse.logical_block = bytes(4096);
    coarse.physical_block = bytes(4096);
    coarse.discard_granularity = bytes(4096);
    coarse.max_discard = bytes(1 << 20);
    assert_eq!(both(&fine, &coarse).unwrap().max_discard, ByteLen::ZERO);
    // And nothing of reads and writes.
    fine.max_request = bytes(2048);
    assert!(matches!(
        both(&fine, &coarse),
        Err(StackError::Limits(LimitError::MaxRequest { .. }))
    ));
    // Chunks that hold no whole number of the other's blocks.
    fine.max_request = Limits::UNLIMITED;
    fine.chunk = Some(bytes(3 * 512));
    assert!(matches!(
        both(&fine, &coarse),
        Err(StackError::Limits(LimitError::Blocks { .. }))
    ));
}

#[test]
fn atomic_writes_stay_whole_on_every_part() {
    let mut disk = unlimited();
    disk.atomic = Some(AtomicLimits {
        unit_min: bytes(4096),
        unit_max: bytes(64 << 10),
        boundary: Some(bytes(128 << 10)),
    });
    let start = |start| {
        Limits::over(bytes(1 << 30), &disk, BytePos::new(start))
            .unwrap()
            .atomic
    };
    assert_eq!(start(1 << 20), disk.atomic);
    // A unit above is one below only if the start is a multiple of it.
    let third = start(3 * 8192).unwrap();
    assert_eq!((third.unit_min, third.unit_max), (bytes(4096), bytes(8192)));
    assert_eq!(start(63 * 512), None);
    assert_eq!(both(&disk, &unlimited()).unwrap().atomic, None);
    // A chunk tears what is longer.
    let mut chunks = disk;
    chunks.chunk = Some(bytes(3 * 16384));
    let whole = both(&disk, &chunks).unwrap().atomic.unwrap();
    assert_eq!(whole.unit_max, bytes(16384));
}

#[test]
fn preferences_are_met_together_or_dropped() {
    let (mut a, mut b) = (unlimited(), unlimited());
    (a.io_opt, b.io_opt) = (bytes(3 * 512), bytes(1024));
    assert_eq!(both(&a, &b).unwrap().io_opt, bytes(3 * 1024));
    b.io_opt = ByteLen::ZERO;
    assert_eq!(both(&a, &b).unwrap().io_opt, bytes(3 * 512));
    (a.io_opt, b.io_opt) = (bytes((1 << 62) + 512), bytes((1 << 62) - 512));
    assert_eq!(both(&a, &b).unwrap().io_opt, ByteLen::ZERO);
}

/// As the model's limits, with operations that carry no data and atomic writes.
fn some_disk() -> impl Strategy<Value = Limits> {
    (
        some_limits(),
        proptest::array::uniform3(0..8192_u64),
        0..4_u32,
        proptest::option::of((0..3_u32, 0..3_u32, proptest::option::of(10..14_u32))),
        any::<u32>(),
    )
        .prop_map(|(mut limits, maxima, granularity, atomic, features)| {
            let block = limits.logical_block.get();
            let [discard, erase, zeroes] = maxima.map(|max| {
                if max < block {
                    ByteLen::ZERO
                } else {
                    bytes(max)
                }
            });
            limits.max_discard = discard;
            limits.max_secure_erase = erase;
            limits.max_write_zeroes = zeroes;
            limits.discard_granularity = bytes(block << granularity);
            limits.atomic = atomic.and_then(|(min, more, boundary)| {
                let unit_min = bytes(block << min);
                let unit_max = bytes(block << (min + more));
                (unit_max <= limits.max_request).then_some(AtomicLimits {
                    unit_min,
                    unit_max,
                    boundary: boundary.map(|power| bytes(1 << power)),
                })
            });
            let keep = Features::ZONED;
            limits.features =
                (limits.features & keep) | (Features::from_bits_truncate(features) - keep);
            limits.validate().unwrap();
            limits
        })
}

/// A bio of whole blocks.
fn some_bio(
    limits: &Limits,
) -> impl Strategy<Value = (Op, BioFlags, u64, Vec<PhysSegment>)> + use<> {
    let block = limits.logical_block.get();
    (
        prop_oneof![
            2 => Just((Op::Read, BioFlags::empty())),
            2 => Just((Op::Write, BioFlags::empty())),
            4 => Just((Op::Write, BioFlags::ATOMIC)),
            1 => Just((Op::ZoneAppend, BioFlags::empty())),
            1 => Just((Op::Discard, BioFlags::empty())),
            1 => Just((Op::SecureErase, BioFlags::empty())),
            1 => Just((Op::WriteZeroes, BioFlags::empty())),
        ],
        (0..40_u64).prop_map(move |blocks| blocks * block),
        some_memory(limits),
    )
        .prop_map(|((op, flags), position, mut memory)| {
            if !flags.contains(BioFlags::ATOMIC) {
                return (op, flags, position, memory);
            }
            // One that has a chance: of a power of two, at a multiple of it.
            let first = memory.swap_remove(0);
            let len = 1 << first.len().get().ilog2();
            let memory = first.slice(ByteLen::ZERO, bytes(len)).into_iter().collect();
            (op, flags, position / len * len, memory)
        })
}

/// A stacked device, the two below, and where its parts begin on them.
fn some_stack() -> impl Strategy<Value = (Limits, [(Limits, u64); 2])> {
    let start = || prop_oneof![Just(0), (0..64_u64).prop_map(|at| at * 512), Just(1 << 20)];
    (some_disk(), start(), some_disk(), start(), any::<bool>()).prop_filter_map(
        "these cannot be stacked",
        |(a, a_start, mut b, b_start, alike)| {
            if alike {
                (b.zones, b.features) = (a.zones, a.features);
            }
            let stacked = Limits::over(bytes(1 << 40), &a, BytePos::new(a_start))
                .and_then(|first| first.stack(&b, BytePos::new(b_start)))
                .ok()?;
            Some((stacked, [(a, a_start), (b, b_start)]))
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 600,
        max_local_rejects: 1_000_000,
        ..ProptestConfig::default()
    })]

    #[test]
    fn what_fits_above_fits_below(
        (stacked, below, (op, flags, position, memory)) in some_stack()
            .prop_flat_map(|(stacked, below)| {
                let bio = some_bio(&stacked);
                (Just(stacked), Just(below), bio)
            })
    ) {
        let cutter = Cutter::new(&stacked);
        let (mut position, mut memory) = (position, memory);
        loop {
            let len: u64 = memory.iter().map(|one| one.len().get()).sum();
            let cut = cutter.cut(&Shape {
                op, flags, position: BytePos::new(position), len: bytes(len), segments: &memory,
            });
            let fits = match cut {
                Cut::Fits => len,
                Cut::After(some) => some.get(),
                Cut::Refused(_) => break,
            };
            let (mut piece, mut rest, mut left) = (Vec::new(), Vec::new(), fits);
            for &one in &memory {
                match one.split_at(bytes(left)) {
                    Some((head, tail)) => {
                        piece.push(head);
                        rest.push(tail);
                        left = 0;
                    }
                    None if left == 0 => rest.push(one),
                    None => {
                        left -= one.len().get();
                        piece.push(one);
                    }
                }
            }
            for (limits, start) in &below {
                let there = limits.cut(&Shape {
                    op,
                    flags,
                    position: BytePos::new(position + start),
                    len: bytes(fits),
                    segments: &piece,
                });
                prop_assert_eq!(there, Cut::Fits, "{} bytes at {} + {}", fits, position, start);
            }
            if fits == len {
                break;
            }
            position += fits;
            memory = rest;
        }
    }

    #[test]
    fn stacking_the_same_twice_changes_nothing((stacked, below) in some_stack()) {
        let (limits, start) = below[1];
        let again = stacked.stack(&limits, BytePos::new(start)).unwrap();
        prop_assert_eq!(again, stacked);
    }
}
