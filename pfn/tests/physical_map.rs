//! Hazard: two regions that claim the same frame, or a frame attributed to the wrong one.

use pageless_pfn::{
    FrameCount, Pfn, PfnFlags, PfnRange, PhysMap, PhysMapInsertError, Region, RegionKind,
};
use proptest::prelude::*;

fn frames(start: u64, count: u64) -> PfnRange {
    PfnRange::try_new(Pfn::try_new(start).unwrap(), FrameCount::new(count)).unwrap()
}

#[test]
fn an_overlap_names_both_and_changes_nothing() {
    let mut map = PhysMap::<4>::new();
    map.insert(frames(100, 10), RegionKind::Ram).unwrap();
    let present = Region {
        frames: frames(100, 10),
        kind: RegionKind::Ram,
    };
    for new in [
        frames(109, 1),
        frames(90, 11),
        frames(95, 100),
        frames(104, 2),
    ] {
        let refused = map.insert(new, RegionKind::Pmem);
        assert_eq!(refused, Err(PhysMapInsertError::Overlap { new, present }));
    }
    assert_eq!(map.iter().copied().collect::<Vec<_>>(), [present]);
    map.insert(frames(110, 1), RegionKind::Pmem).unwrap();
    map.insert(frames(99, 1), RegionKind::Pmem).unwrap();
    assert_eq!(map.len(), 3);
}

#[test]
fn a_full_map_and_an_empty_region_are_refused() {
    let mut map = PhysMap::<1>::new();
    let empty = map.insert(frames(5, 0), RegionKind::Ram);
    assert!(matches!(empty, Err(PhysMapInsertError::Empty { .. })));
    map.insert(frames(5, 1), RegionKind::Ram).unwrap();
    let full = map.insert(frames(7, 1), RegionKind::Ram);
    assert_eq!(full, Err(PhysMapInsertError::Full { capacity: 1 }));
}

#[test]
fn the_region_decides_whether_a_frame_may_have_a_descriptor() {
    let mut map = PhysMap::<3>::new();
    map.insert(frames(0, 10), RegionKind::Ram).unwrap();
    map.insert(frames(10, 10), RegionKind::Pmem).unwrap();
    map.insert(frames(20, 10), RegionKind::PmemMapped).unwrap();
    let at = |n| map.pfn_t(Pfn::try_new(n).unwrap());
    assert!(at(9).unwrap().paged().is_ok());
    assert!(at(10).unwrap().paged().is_err());
    assert!(at(20).unwrap().is_devmap());
    assert_eq!(at(30), None);
    assert_eq!(at(10).unwrap().flags(), PfnFlags::DEV);
    assert_eq!(map.frames_of(RegionKind::Pmem).get(), 10);
}

#[test]
fn a_region_of_a_pebibyte_ends_where_it_ends() {
    let mut map = PhysMap::<2>::new();
    map.insert(frames(1 << 38, 1 << 38), RegionKind::Pmem)
        .unwrap();
    let at = |n| map.lookup(Pfn::try_new(n).unwrap()).is_some();
    assert_eq!(
        [
            at((1 << 38) - 1),
            at(1 << 38),
            at((2 << 38) - 1),
            at(2 << 38)
        ],
        [false, true, true, false]
    );
}

proptest! {
    #[test]
    fn the_map_agrees_with_a_list_that_is_searched_from_end_to_end(
        steps in proptest::collection::vec((any::<bool>(), 0..64_u64, 0..12_u64), 1..60),
        probes in proptest::collection::vec(0..80_u64, 20),
    ) {
        let mut map = PhysMap::<6>::new();
        let mut list: Vec<PfnRange> = Vec::new();
        for (insert, start, count) in steps {
            let range = frames(start, count);
            if insert {
                let taken = map.insert(range, RegionKind::Ram).is_ok();
                let fits = count > 0 && list.len() < 6
                    && !list.iter().any(|r| r.intersects(range));
                prop_assert_eq!(taken, fits);
                if taken { list.push(range); }
            } else {
                let there = list.iter().position(|r| *r == range);
                prop_assert_eq!(map.remove(range).is_some(), there.is_some());
                if let Some(at) = there { list.remove(at); }
            }
            let mut sorted = list.clone();
            sorted.sort_by_key(|r| r.start());
            prop_assert_eq!(map.iter().map(|r| r.frames).collect::<Vec<_>>(), sorted);
            for &n in &probes {
                let pfn = Pfn::try_new(n).unwrap();
                let expected = list.iter().find(|r| r.contains(pfn)).copied();
                prop_assert_eq!(map.lookup(pfn).map(|r| r.frames), expected);
            }
        }
    }
}
