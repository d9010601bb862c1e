//! Cutting against a naive model: memory atom by atom, every set of segments tried.

use alloc::vec::Vec;

use pageless_pfn::{ByteLen, PfnFlags, PhysAddr, PhysSegment};
use proptest::prelude::*;

use super::*;
use crate::limits::model::{
    ATOM, atoms, fewest_segments, legal, one_segment, segment, some_bio, unlimited,
};
use crate::limits::segments::device_segments;
use crate::limits::{AtomicLimits, Features, ZoneLimits};

fn plain(addr: u64, len: u64) -> PhysSegment {
    segment(addr, len, PfnFlags::empty())
}

fn shape(op: Op, position: u64, segments: &[PhysSegment]) -> Shape<'_> {
    let len = segments.iter().map(|one| one.len().get()).sum();
    Shape {
        op,
        flags: BioFlags::empty(),
        position: BytePos::new(position),
        len: ByteLen::new(len),
        segments,
    }
}

fn range(op: Op, position: u64, len: u64) -> Shape<'static> {
    Shape {
        len: ByteLen::new(len),
        ..shape(op, position, &[])
    }
}

fn after(bytes: u64) -> Cut {
    Cut::After(ByteLen::new(bytes))
}

const REFUSED: Cut = Cut::Refused(BlkError::Invalid);

#[test]
fn a_gibibyte_in_one_segment_is_one_piece() {
    let memory = [plain(0x1234_5000, 1 << 30)];
    assert_eq!(unlimited().cut(&shape(Op::Write, 512, &memory)), Cut::Fits);
}

#[test]
fn the_common_case_needs_no_second_look() {
    let memory = [plain(0x1000, 4096)];
    let mut limits = unlimited();
    limits.max_request = ByteLen::new(1 << 20);
    limits.max_segment = ByteLen::new(64 << 10);
    limits.segment_boundary = Some(ByteLen::new(1 << 32));
    limits.chunk = Some(ByteLen::new(128 << 10));
    limits.dma_alignment = ByteLen::new(512);
    let cutter = Cutter::new(&limits);
    assert!(cutter.fits_plainly(&shape(Op::Read, 4096, &memory)));
    assert!(cutter.fits_plainly(&shape(Op::Write, (128 << 10) - 4096, &memory)));
    assert!(!cutter.fits_plainly(&shape(Op::Write, (128 << 10) - 512, &memory)));
    assert!(!cutter.fits_plainly(&shape(Op::Discard, 4096, &memory)));
}

#[test]
fn a_long_request_is_cut_at_whole_blocks() {
    let mut limits = unlimited();
    limits.logical_block = ByteLen::new(4096);
    limits.max_request = ByteLen::new(10_000);
    let memory = [plain(0, 5 * 4096)];
    assert_eq!(limits.cut(&shape(Op::Read, 0, &memory)), after(8192));
}

#[test]
fn a_long_segment_counts_as_several() {
    let mut limits = unlimited();
    limits.max_segment = ByteLen::new(4096);
    limits.max_segments = 3;
    let memory = [plain(0x800, 5 * 4096)];
    assert_eq!(limits.cut(&shape(Op::Read, 0, &memory)), after(3 * 4096));
    // The boundary makes the first of them shorter.
    limits.segment_boundary = Some(ByteLen::new(4096));
    assert_eq!(limits.cut(&shape(Op::Read, 0, &memory)), after(0x2800));
}

#[test]
fn neighbours_with_equal_flags_count_as_one_segment() {
    let mut limits = unlimited();
    limits.max_segments = 1;
    let together = [plain(0x1000, 512), plain(0x1200, 512)];
    assert_eq!(limits.cut(&shape(Op::Read, 0, &together)), Cut::Fits);
    let apart = [plain(0x1000, 512), segment(0x1200, 512, PfnFlags::DEV)];
    assert_eq!(limits.cut(&shape(Op::Read, 0, &apart)), after(512));
}

#[test]
fn a_gap_in_the_device_s_view_ends_a_piece() {
    let mut limits = unlimited();
    limits.virt_boundary = Some(ByteLen::new(4096));
    let memory = [
        plain(0x1800, 0x800),
        plain(0x5000, 0x1000),
        plain(0x9000, 0x200),
        plain(0xb000, 0x200),
    ];
    assert_eq!(limits.cut(&shape(Op::Read, 0, &memory)), after(0x1a00));
}

#[test]
fn the_last_segment_of_a_piece_may_end_anywhere() {
    let mut limits = unlimited();
    limits.virt_boundary = Some(ByteLen::new(4096));
    limits.max_segment = ByteLen::new(4096);
    let memory = [plain(0x1800, 0x3000)];
    // Were there another one, the first would end at the boundary, after 2 KiB.
    limits.max_segments = 1;
    assert_eq!(limits.cut(&shape(Op::Read, 0, &memory)), after(0x1000));
    limits.max_segments = 2;
    assert_eq!(limits.cut(&shape(Op::Read, 0, &memory)), after(0x1800));
}

#[test]
fn chunks_are_not_straddled_and_need_not_be_powers_of_two() {
    let mut limits = unlimited();
    limits.chunk = Some(ByteLen::new(3 * 512));
    let memory = [plain(0, 4096)];
    assert_eq!(limits.cut(&shape(Op::Read, 1024, &memory)), after(512));
    assert_eq!(
        limits.cut(&range(Op::Discard, 0, 512)),
        Cut::Refused(BlkError::NotSupported)
    );
    limits.max_write_zeroes = Limits::UNLIMITED;
    assert_eq!(
        limits.cut(&range(Op::WriteZeroes, 512, 1 << 30)),
        after(1024)
    );
}

fn zoned() -> Limits {
    let mut limits = unlimited();
    limits.features |= Features::ZONED;
    limits.zones = Some(ZoneLimits {
        size: ByteLen::new(1 << 20),
        max_append: ByteLen::new(8192),
        max_open: 0,
        max_active: 0,
    });
    limits
}

#[test]
fn writes_stay_in_their_zone_and_reads_need_not() {
    let memory = [plain(0, 4096)];
    let position = (1 << 20) - 1024;
    assert_eq!(
        zoned().cut(&shape(Op::Write, position, &memory)),
        after(1024)
    );
    assert_eq!(zoned().cut(&shape(Op::Read, position, &memory)), Cut::Fits);
}

#[test]
fn an_append_goes_as_a_whole_or_not_at_all() {
    let memory = [plain(0, 8192)];
    assert_eq!(zoned().cut(&shape(Op::ZoneAppend, 0, &memory)), Cut::Fits);
    let long = [plain(0, 8192 + 512)];
    assert_eq!(zoned().cut(&shape(Op::ZoneAppend, 0, &long)), REFUSED);
    let mut limits = zoned();
    limits.max_segment = ByteLen::new(4096);
    limits.max_segments = 1;
    assert_eq!(limits.cut(&shape(Op::ZoneAppend, 0, &memory)), REFUSED);
    assert_eq!(
        unlimited().cut(&shape(Op::ZoneAppend, 0, &memory)),
        Cut::Refused(BlkError::NotSupported)
    );
}

#[test]
fn what_must_not_wait_is_not_cut() {
    let mut limits = unlimited();
    limits.max_request = ByteLen::new(4096);
    let memory = [plain(0, 8192)];
    let mut bio = shape(Op::Read, 0, &memory);
    bio.flags = BioFlags::NOWAIT;
    assert_eq!(limits.cut(&bio), Cut::Refused(BlkError::Again));
    let short = [plain(0, 4096)];
    bio = shape(Op::Read, 0, &short);
    bio.flags = BioFlags::NOWAIT;
    assert_eq!(limits.cut(&bio), Cut::Fits);
}

#[test]
fn atomic_writes_are_whole_or_refused() {
    let memory = [plain(0, 8192)];
    let atomic = |limits: &Limits, position, memory: &[PhysSegment]| {
        let mut bio = shape(Op::Write, position, memory);
        bio.flags = BioFlags::ATOMIC;
        limits.cut(&bio)
    };
    let mut limits = unlimited();
    assert_eq!(
        atomic(&limits, 0, &memory),
        Cut::Refused(BlkError::NotSupported)
    );
    limits.atomic = Some(AtomicLimits {
        unit_min: ByteLen::new(4096),
        unit_max: ByteLen::new(16384),
        boundary: None,
    });
    assert_eq!(atomic(&limits, 8192, &memory), Cut::Fits);
    // Not aligned to its length, too short, too long, not a power of two.
    assert_eq!(atomic(&limits, 4096, &memory), REFUSED);
    assert_eq!(atomic(&limits, 0, &[plain(0, 2048)]), REFUSED);
    assert_eq!(atomic(&limits, 0, &[plain(0, 32768)]), REFUSED);
    assert_eq!(atomic(&limits, 0, &[plain(0, 12288)]), REFUSED);
    // Straddles, and in two segments where one is allowed.
    let mut bounded = limits;
    bounded.atomic.as_mut().unwrap().boundary = Some(ByteLen::new(4096));
    assert_eq!(atomic(&bounded, 8192, &memory), REFUSED);
    limits.max_segments = 1;
    let apart = [plain(0, 4096), plain(0x10000, 4096)];
    assert_eq!(atomic(&limits, 0, &apart), REFUSED);
}

#[test]
fn misaligned_memory_is_refused_before_anything_happens() {
    let mut limits = unlimited();
    limits.max_request = ByteLen::new(4096);
    limits.dma_alignment = ByteLen::new(512);
    let memory = [plain(0, 8192), plain(0x10100, 512)];
    assert_eq!(limits.cut(&shape(Op::Read, 0, &memory)), REFUSED);
    // Aligned together.
    let halves = [plain(0, 256), plain(256, 256)];
    assert_eq!(limits.cut(&shape(Op::Read, 0, &halves)), Cut::Fits);
}

#[test]
fn a_block_in_too_many_pieces_is_refused() {
    let mut limits = unlimited();
    limits.max_segments = 2;
    let memory = [plain(0, 128), plain(0x1000, 128), plain(0x2000, 256)];
    assert_eq!(limits.cut(&shape(Op::Read, 0, &memory)), REFUSED);
}

#[test]
fn discards_end_at_whole_granules_when_they_can() {
    let mut limits = unlimited();
    limits.max_discard = ByteLen::new(10 << 10);
    limits.discard_granularity = ByteLen::new(4096);
    assert_eq!(limits.cut(&range(Op::Discard, 512, 10 << 10)), Cut::Fits);
    assert_eq!(
        limits.cut(&range(Op::Discard, 512, 20 << 10)),
        after(8192 - 512)
    );
    // No granule ends within the longest discard.
    limits.max_discard = ByteLen::new(2048);
    assert_eq!(limits.cut(&range(Op::Discard, 512, 4096)), after(2048));
    limits.max_secure_erase = ByteLen::new(3000);
    assert_eq!(limits.cut(&range(Op::SecureErase, 512, 4096)), after(2560));
}

#[test]
fn what_has_no_range_fits() {
    for op in Op::ALL {
        if !op.has_range() {
            assert_eq!(unlimited().cut(&range(op, 0, 0)), Cut::Fits, "{op}");
        }
    }
}

#[test]
fn the_last_bytes_there_are_can_be_cut() {
    let mut limits = unlimited();
    limits.max_segment = ByteLen::new(4096);
    limits.segment_boundary = Some(ByteLen::new(1 << 20));
    limits.virt_boundary = Some(ByteLen::new(4096));
    let end = PhysAddr::new(pageless_pfn::Pfn::MAX.phys().get() + 4095).get();
    let memory = [plain(end - 8191, 8192)];
    assert_eq!(limits.cut(&shape(Op::Read, 0, &memory)), Cut::Fits);
    limits.max_segments = 1;
    assert_eq!(limits.cut(&shape(Op::Read, 0, &memory)), after(4096));
}

/// What is left of `segments` after `bytes`.
fn rest(segments: &[PhysSegment], mut bytes: u64) -> Vec<PhysSegment> {
    let mut rest = Vec::new();
    for &one in segments {
        let len = one.len().get();
        if bytes >= len {
            bytes -= len;
        } else {
            rest.push(
                one.slice(ByteLen::new(bytes), ByteLen::new(len - bytes))
                    .unwrap(),
            );
            bytes = 0;
        }
    }
    rest
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn pieces_are_legal_and_as_long_as_they_can_be((limits, op, position, memory) in some_bio()) {
        let cutter = Cutter::new(&limits);
        let all = atoms(&memory);
        let block = (limits.logical_block.get() / ATOM) as usize;
        let at = |atom: usize| position + atom as u64 * ATOM;

        let (mut left, mut start, mut pieces) = (memory, 0, Vec::new());
        let refused = loop {
            let bio = shape(op, at(start), &left);
            let len = match cutter.cut(&bio) {
                Cut::Fits => bio.len.get(),
                Cut::After(len) => {
                    prop_assert!(!len.is_zero() && len < bio.len);
                    len.get()
                }
                Cut::Refused(error) => {
                    prop_assert_eq!(error, BlkError::Invalid);
                    break true;
                }
            };
            let end = start + (len / ATOM) as usize;
            prop_assert_eq!(len % ATOM, 0);
            prop_assert!(legal(cutter.limits(), op, at(start), &all[start..end]), "illegal: {start}..{end}");
            for longer in (end + 1..=all.len()).filter(|longer| (longer - start) % block == 0) {
                // What is longer must not only be legal but leave the rest in aligned memory.
                let rest_aligned = longer == all.len()
                    || all[longer].0.is_multiple_of(limits.dma_alignment.get());
                prop_assert!(
                    !legal(&limits, op, at(start), &all[start..longer]) || !rest_aligned,
                    "{start}..{end} could have gone on to {longer}"
                );
            }
            pieces.push((start, end));
            if cutter.cut(&bio) == Cut::Fits {
                break false;
            }
            left = rest(&left, len);
            start = end;
        };

        let mut reachable = alloc::vec![false; all.len() + 1];
        reachable[0] = true;
        for end in (0..=all.len()).step_by(block).skip(1) {
            reachable[end] = (0..end)
                .step_by(block)
                .any(|from| reachable[from] && legal(&limits, op, at(from), &all[from..end]));
        }
        prop_assert_eq!(!refused, reachable[all.len()], "pieces {:?}", pieces);
    }

    #[test]
    fn device_segments_are_as_few_as_there_can_be((limits, op, position, memory) in some_bio()) {
        let cutter = Cutter::new(&limits);
        if cutter.cut(&shape(op, position, &memory)) == Cut::Fits {
            let seen: Vec<_> = device_segments(&limits, memory.iter().copied()).collect();
            for one in &seen {
                prop_assert!(one_segment(&limits, &atoms(&[*one])));
            }
            prop_assert_eq!(atoms(&seen), atoms(&memory));
            let fewest = fewest_segments(&limits, &atoms(&memory));
            prop_assert_eq!(Some(seen.len() as u32), fewest);
        } else {
            // Whatever they are, all bytes are there.
            let seen: Vec<_> = device_segments(&limits, memory.iter().copied()).collect();
            prop_assert_eq!(atoms_by_len(&seen), atoms_by_len(&memory));
        }
    }

    #[test]
    fn a_plain_fit_is_a_fit((limits, op, position, memory) in some_bio()) {
        let cutter = Cutter::new(&limits);
        let bio = shape(op, position, &memory);
        if cutter.fits_segment_by_segment(&bio) {
            prop_assert_eq!(cutter.cut_at_limits(&bio), Cut::Fits);
        }
        for one in memory {
            let len = one.len().get();
            let len = len - len % limits.logical_block.get();
            let Some(one) = one.slice(ByteLen::ZERO, ByteLen::new(len)) else { continue };
            let memory = [one];
            let bio = shape(op, position, &memory);
            if cutter.fits_plainly(&bio) {
                prop_assert_eq!(cutter.cut_at_limits(&bio), Cut::Fits);
            }
        }
    }

    #[test]
    fn ranges_add_up(
        position in 0..64_u64,
        len in 1..200_u64,
        max in 512..20_000_u64,
        granularity in 0..5_u32,
        chunk in proptest::option::of(1..30_u64),
        op in prop_oneof![Just(Op::Discard), Just(Op::SecureErase), Just(Op::WriteZeroes)],
    ) {
        let mut limits = unlimited();
        limits.max_discard = ByteLen::new(max);
        limits.max_secure_erase = ByteLen::new(max);
        limits.max_write_zeroes = ByteLen::new(max);
        let granularity = 512 << granularity;
        limits.discard_granularity = ByteLen::new(granularity);
        limits.chunk = chunk.map(|chunk| ByteLen::new(chunk * 512));
        limits.validate().unwrap();
        let (mut position, mut left) = (position * 512, len * 512);
        loop {
            let cut = limits.cut(&range(op, position, left));
            let len = match cut {
                Cut::Fits => left,
                Cut::After(len) => len.get(),
                Cut::Refused(error) => panic!("{error}"),
            };
            prop_assert!(len != 0 && len <= left && len <= max && len % 512 == 0);
            let end = position + len;
            let chunk_of = |at: u64| chunk.map(|chunk| at / (chunk * 512));
            prop_assert_eq!(chunk_of(position), chunk_of(end - 1));
            let at_chunk = chunk.is_some_and(|chunk| end % (chunk * 512) == 0);
            if len < left && !at_chunk {
                if op == Op::Discard {
                    // At the last granule that it reaches.
                    let reaches = (position + max) / granularity * granularity;
                    let whole = if reaches > position { end == reaches } else { len + 512 > max };
                    prop_assert!(whole);
                } else {
                    prop_assert!(len + 512 > max);
                }
            }
            if cut == Cut::Fits {
                break;
            }
            (position, left) = (end, left - len);
        }
    }
}

fn atoms_by_len(segments: &[PhysSegment]) -> u64 {
    segments.iter().map(|one| one.len().get()).sum()
}
