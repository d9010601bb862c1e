//! Hazard: arithmetic that wraps, or is off by one at the end of the address space. Everything is
//! compared with the same sum in 128 bits.

use pageless_pfn::{
    ByteLen, FrameCount, FrameOffset, PAGE_SIZE, Pfn, PfnFlags, PfnRange, PfnT, PhysAddr,
    PhysSegment, SegmentError,
};
use proptest::prelude::*;

const PFN_LIMIT: u64 = 1 << 52;

/// Numbers that like to lie near something.
fn edgy(limit: u64) -> impl Strategy<Value = u64> {
    prop_oneof![
        0..16_u64,
        (limit - 16)..limit,
        0..limit,
        (1_u64 << 20) - 8..(1 << 20) + 8
    ]
}

fn pfn() -> impl Strategy<Value = Pfn> {
    edgy(PFN_LIMIT).prop_map(|n| Pfn::try_new(n).unwrap())
}

fn count() -> impl Strategy<Value = FrameCount> {
    prop_oneof![edgy(PFN_LIMIT), any::<u64>()].prop_map(FrameCount::new)
}

fn range() -> impl Strategy<Value = PfnRange> {
    (pfn(), edgy(PFN_LIMIT)).prop_map(|(start, n)| {
        let room = PFN_LIMIT - start.get();
        PfnRange::try_new(start, FrameCount::new(n.min(room))).unwrap()
    })
}

fn segment() -> impl Strategy<Value = PhysSegment> {
    (
        pfn(),
        0..PAGE_SIZE,
        prop_oneof![1..20_000_u64, 1..=u64::MAX],
    )
        .prop_map(|(pfn, offset, len)| {
            // Room up to and with the last byte; that of the whole space does not fit in a u64.
            let start = pfn.phys().get() + offset;
            let len = len.min((u64::MAX - start).saturating_add(1));
            let offset = FrameOffset::try_new(offset).unwrap();
            PhysSegment::try_new(PfnT::new(pfn, PfnFlags::DEV), offset, ByteLen::new(len)).unwrap()
        })
}

fn wide(n: u64) -> u128 {
    u128::from(n)
}

proptest! {
    #[test]
    fn a_number_is_a_pfn_exactly_below_the_limit(n in prop_oneof![edgy(PFN_LIMIT), any::<u64>()]) {
        prop_assert_eq!(Pfn::try_new(n).map(Pfn::get).ok(), (n < PFN_LIMIT).then_some(n));
    }

    #[test]
    fn adding_frames_agrees_with_128_bits(pfn in pfn(), count in count()) {
        let sum = wide(pfn.get()) + wide(count.get());
        let expected = (sum < wide(PFN_LIMIT)).then_some(sum);
        prop_assert_eq!(pfn.checked_add(count).map(|p| wide(p.get())), expected);
        let less = wide(pfn.get()).checked_sub(wide(count.get()));
        prop_assert_eq!(pfn.checked_sub(count).map(|p| wide(p.get())), less);
    }

    #[test]
    fn distance_and_sum_undo_each_other(a in pfn(), b in pfn()) {
        match a.checked_offset_from(b) {
            Some(distance) => prop_assert_eq!(b.checked_add(distance), Some(a)),
            None => prop_assert!(a < b),
        }
    }

    #[test]
    fn a_pfn_and_its_address_agree(pfn in pfn(), offset in 0..PAGE_SIZE) {
        prop_assert_eq!(wide(pfn.phys().get()), wide(pfn.get()) * wide(PAGE_SIZE));
        let addr = pfn.phys().checked_add(ByteLen::new(offset)).unwrap();
        prop_assert_eq!((addr.pfn(), addr.frame_offset().get()), (pfn, offset));
    }

    #[test]
    fn addresses_add_and_subtract_as_in_128_bits(a in any::<u64>(), b in any::<u64>()) {
        let sum = u64::try_from(wide(a) + wide(b)).ok();
        let (addr, len) = (PhysAddr::new(a), ByteLen::new(b));
        prop_assert_eq!(addr.checked_add(len).map(PhysAddr::get), sum);
        prop_assert_eq!(len.checked_add(ByteLen::new(a)).map(ByteLen::get), sum);
        let less = a.checked_sub(b);
        prop_assert_eq!(addr.checked_offset_from(PhysAddr::new(b)).map(ByteLen::get), less);
        prop_assert_eq!(ByteLen::new(a).checked_sub(len).map(ByteLen::get), less);
    }

    #[test]
    fn bytes_of_frames_agree_with_128_bits(n in prop_oneof![edgy(PFN_LIMIT), any::<u64>()]) {
        let bytes = u64::try_from(wide(n) * wide(PAGE_SIZE)).ok();
        prop_assert_eq!(FrameCount::new(n).bytes().map(ByteLen::get), bytes);
        let covering = wide(n).div_ceil(wide(PAGE_SIZE));
        prop_assert_eq!(wide(FrameCount::covering(ByteLen::new(n)).get()), covering);
        let exact = ByteLen::new(n).frames_exact().map(|c| wide(c.get()) * wide(PAGE_SIZE));
        prop_assert_eq!(exact, n.is_multiple_of(PAGE_SIZE).then_some(wide(n)));
    }

    #[test]
    fn a_range_exists_exactly_if_its_last_frame_does(start in pfn(), count in count()) {
        let fits = wide(start.get()) + wide(count.get()) <= wide(PFN_LIMIT);
        prop_assert_eq!(PfnRange::try_new(start, count).is_ok(), fits);
    }

    #[test]
    fn membership_agrees_with_128_bits(range in range(), pfn in pfn()) {
        let (start, end) =
            (wide(range.start().get()), wide(range.start().get()) + wide(range.count().get()));
        let inside = (start..end).contains(&wide(pfn.get()));
        prop_assert_eq!(range.contains(pfn), inside);
        let index = inside.then(|| pfn.get() - range.start().get());
        prop_assert_eq!(range.index_of(pfn), index);
        prop_assert_eq!(index.and_then(|i| range.nth(i)), inside.then_some(pfn));
        prop_assert_eq!(range.nth(range.count().get()), None);
        prop_assert_eq!(range.last().map(|p| wide(p.get())), (start < end).then(|| end - 1));
    }

    #[test]
    fn ranges_intersect_exactly_if_they_share_a_frame(a in range(), b in range()) {
        let end = |r: PfnRange| wide(r.start().get()) + wide(r.count().get());
        let lo = wide(a.start().get().max(b.start().get()));
        let shares = lo < end(a).min(end(b)) && !a.is_empty() && !b.is_empty();
        prop_assert_eq!(a.intersects(b), shares);
        prop_assert_eq!(b.intersects(a), shares);
        if a.encloses(b) && !b.is_empty() {
            prop_assert!(shares && b.last().is_some_and(|last| a.contains(last)));
        }
    }

    #[test]
    fn both_parts_of_a_split_range_make_up_the_whole(range in range(), at in count()) {
        match range.split_at(at) {
            None => prop_assert!(at > range.count()),
            Some((head, tail)) => {
                prop_assert_eq!(head.count(), at);
                prop_assert_eq!(head.start(), range.start());
                prop_assert_eq!(head.count().checked_add(tail.count()), Some(range.count()));
                if let Some(last) = tail.last() {
                    prop_assert_eq!(Some(last), range.last());
                    prop_assert!(!head.contains(tail.start()));
                }
            }
        }
    }

    #[test]
    fn a_slice_of_a_range_holds_exactly_those_frames(range in range(), index in edgy(PFN_LIMIT), n in 0..9_u64) {
        match range.slice(index, FrameCount::new(n)) {
            Some(part) => {
                prop_assert!(range.encloses(part));
                prop_assert_eq!(part.count().get(), n);
                prop_assert_eq!(part.start().get(), range.start().get() + index);
            }
            None => prop_assert!(
                wide(index) + wide(n) > wide(range.count().get())
                    || wide(range.start().get()) + wide(index) >= wide(PFN_LIMIT)
            ),
        }
    }

    #[test]
    fn iteration_visits_the_ends_of_a_range_of_any_length(range in range()) {
        prop_assert_eq!(range.iter().next(), range.nth(0));
        prop_assert_eq!(range.iter().next_back(), range.last());
        let last = range.count().get().saturating_sub(1);
        prop_assert_eq!(range.iter().nth(last as usize), range.last());
        prop_assert_eq!(range.iter().nth(range.count().get() as usize), None);
    }

    #[test]
    fn a_segment_exists_exactly_if_its_last_byte_does(pfn in pfn(), offset in 0..PAGE_SIZE, len in any::<u64>()) {
        let built = PhysSegment::try_new(
            pfn.into(),
            FrameOffset::try_new(offset).unwrap(),
            ByteLen::new(len),
        );
        let end = wide(pfn.phys().get()) + wide(offset) + wide(len);
        match built {
            Ok(segment) => {
                prop_assert!(len > 0 && end <= 1 << 64);
                prop_assert_eq!(wide(segment.last_phys().get()), end - 1);
                prop_assert_eq!(segment.frames().last(), Some(segment.last_phys().pfn()));
            }
            Err(SegmentError::Empty { .. }) => prop_assert_eq!(len, 0),
            Err(SegmentError::PastLastFrame { .. }) => prop_assert!(end > 1 << 64),
            Err(error) => prop_assert!(false, "{error}"),
        }
    }

    #[test]
    fn parts_of_a_segment_touch_and_merge_to_the_whole(segment in segment(), at in any::<u64>()) {
        let len = segment.len().get();
        for at in [at, at % len, 1, len - 1, len, 0] {
            match segment.split_at(ByteLen::new(at)) {
                None => prop_assert!(at == 0 || at >= len),
                Some((head, tail)) => {
                    prop_assert_eq!(wide(head.phys().get()) + wide(at), wide(tail.phys().get()));
                    prop_assert_eq!(tail.last_phys(), segment.last_phys());
                    prop_assert_eq!(tail.frame().flags(), segment.frame().flags());
                    prop_assert_eq!(head.try_merge(tail), Some(segment));
                    prop_assert_eq!(tail.try_merge(head), None);
                    prop_assert_eq!(segment.slice(ByteLen::ZERO, ByteLen::new(at)), Some(head));
                    prop_assert_eq!(segment.slice(ByteLen::new(at), tail.len()), Some(tail));
                }
            }
        }
    }

    #[test]
    fn the_pieces_of_a_segment_stay_in_their_frames_and_leave_nothing_out(
        pfn in pfn(), offset in 0..PAGE_SIZE, len in 1..40_000_u64,
    ) {
        let room = (u64::MAX - (pfn.phys().get() + offset)).saturating_add(1);
        let whole = PhysSegment::try_new(
            pfn.into(),
            FrameOffset::try_new(offset).unwrap(),
            ByteLen::new(len.min(room)),
        ).unwrap();
        let mut at = wide(whole.phys().get());
        let mut pieces = 0;
        for piece in whole.pieces() {
            prop_assert_eq!(wide(piece.phys().get()), at);
            prop_assert_eq!(piece.frames().count().get(), 1);
            at += wide(piece.len().get());
            pieces += 1;
        }
        prop_assert_eq!(at - 1, wide(whole.last_phys().get()));
        prop_assert_eq!(pieces, whole.frames().count().get());
    }
}

#[test]
fn one_segment_spans_six_tebibytes() {
    let frame = PfnT::new(Pfn::try_new(1 << 30).unwrap(), PfnFlags::DEV);
    let whole = PhysSegment::try_new(frame, FrameOffset::ZERO, ByteLen::new(6 << 40)).unwrap();
    assert_eq!(whole.frames().count().get(), 6 << 28);
    let (_, tail) = whole.split_at(ByteLen::new(5 << 40)).unwrap();
    assert_eq!(tail.len().get(), 1 << 40);
    assert_eq!(tail.frame().pfn().get(), (1 << 30) + (5 << 28));
}

#[test]
fn adjacent_segments_with_different_flags_stay_apart() {
    let at = |pfn, flags| {
        let frame = PfnT::new(Pfn::try_new(pfn).unwrap(), flags);
        PhysSegment::try_new(frame, FrameOffset::ZERO, ByteLen::new(PAGE_SIZE)).unwrap()
    };
    let dev = PfnFlags::DEV;
    let devmap = PfnFlags::DEV | PfnFlags::MAP;
    assert!(at(7, dev).try_merge(at(8, dev)).is_some());
    assert_eq!(at(7, dev).try_merge(at(8, devmap)), None);
    assert_eq!(at(7, dev).try_merge(at(9, dev)), None);
    assert_eq!(at(7, dev).try_merge(at(7, dev)), None);
}

#[test]
fn a_segment_takes_no_scatter_gather_bits() {
    for flag in [PfnFlags::SG_CHAIN, PfnFlags::SG_LAST] {
        let frame = PfnT::new(Pfn::MIN, flag);
        let built = PhysSegment::try_new(frame, FrameOffset::ZERO, ByteLen::new(1));
        assert_eq!(built, Err(SegmentError::ScatterGatherBits { frame }));
    }
}
