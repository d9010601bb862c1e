//! Hazard: a scatter-gather list from outside that never ends, ends too early, or leads nowhere.

use std::collections::HashMap;

use pageless_pfn::{
    ByteLen, FrameOffset, PAGE_SIZE, Pfn, PfnFlags, PfnT, PhysSegment, SegmentError, SgEntry,
    SgError, SgLimits, SgShape, SgWalk,
};
use proptest::prelude::*;

type Tables = HashMap<Pfn, Vec<SgEntry>>;

fn pfn(n: u64) -> Pfn {
    Pfn::try_new(n).unwrap()
}

fn frame(n: u64) -> PhysSegment {
    let frame = PfnT::new(pfn(n), PfnFlags::DEV);
    PhysSegment::try_new(frame, FrameOffset::ZERO, ByteLen::new(PAGE_SIZE)).unwrap()
}

fn check_with(tables: &Tables, limits: SgLimits) -> Result<SgShape, SgError> {
    let first = &tables[&pfn(0)];
    SgWalk::new(first, |at| tables.get(&at).map(Vec::as_slice), limits).check()
}

fn check(tables: &Tables) -> Result<SgShape, SgError> {
    check_with(tables, SgLimits::default())
}

fn tables<const N: usize>(list: [(u64, Vec<SgEntry>); N]) -> Tables {
    list.into_iter()
        .map(|(at, entries)| (pfn(at), entries))
        .collect()
}

#[test]
fn a_walk_goes_on_across_three_tables_and_strips_the_last_bit() {
    let tables = tables([
        (
            0,
            vec![
                SgEntry::data(frame(10)),
                SgEntry::data(frame(11)),
                SgEntry::chain(pfn(900)),
            ],
        ),
        (900, vec![SgEntry::chain(pfn(901))]),
        (
            901,
            vec![
                SgEntry::data(frame(30)),
                SgEntry::last(frame(31)),
                SgEntry::data(frame(99)),
            ],
        ),
    ]);
    let first = &tables[&pfn(0)];
    let walk = SgWalk::new(
        first,
        |at| tables.get(&at).map(Vec::as_slice),
        SgLimits::default(),
    );
    let seen: Vec<_> = walk.map(Result::unwrap).collect();
    assert_eq!(seen, [10, 11, 30, 31].map(frame));
    let shape = SgShape {
        tables: 3,
        entries: 4,
        bytes: ByteLen::new(4 * PAGE_SIZE),
    };
    assert_eq!(check(&tables), Ok(shape));
}

#[test]
fn a_table_that_just_ends_is_an_error_at_its_end() {
    let open_end = tables([
        (0, vec![SgEntry::chain(pfn(900))]),
        (
            900,
            vec![SgEntry::data(frame(10)), SgEntry::data(frame(11))],
        ),
    ]);
    assert_eq!(
        check(&open_end),
        Err(SgError::MissingLast {
            table: 1,
            entries: 2
        })
    );
    assert_eq!(
        check(&tables([(0, vec![])])),
        Err(SgError::MissingLast {
            table: 0,
            entries: 0
        })
    );
}

#[test]
fn a_cycle_of_any_length_behind_a_tail_of_any_length_is_found() {
    let most = if cfg!(miri) { 5 } else { 12 };
    for tail in 0..most {
        for cycle in 1..most {
            let mut tables = Tables::new();
            for n in 0..tail + cycle {
                let next = if n + 1 == tail + cycle { tail } else { n + 1 };
                tables.insert(
                    pfn(n),
                    vec![SgEntry::data(frame(50)), SgEntry::chain(pfn(next))],
                );
            }
            match check(&tables) {
                Err(SgError::Cycle { chain, tables }) => {
                    assert!(chain >= pfn(tail), "{chain} is not on the cycle");
                    // Brent's search takes at most three times as long as it must.
                    assert!(
                        u64::from(tables) <= 3 * (tail + cycle) + 3,
                        "{tail}, {cycle}: {tables}"
                    );
                }
                other => panic!("tail {tail}, cycle {cycle}: {other:?}"),
            }
        }
    }
}

#[test]
fn a_long_list_without_a_cycle_is_no_cycle() {
    let mut long = Tables::new();
    let chains = if cfg!(miri) { 100 } else { 1000 };
    for n in 0..chains {
        long.insert(
            pfn(n),
            vec![SgEntry::data(frame(50)), SgEntry::chain(pfn(n + 1))],
        );
    }
    long.insert(pfn(chains), vec![SgEntry::last(frame(50))]);
    assert_eq!(u64::from(check(&long).unwrap().tables), chains + 1);
}

#[test]
fn more_tables_or_entries_than_the_limit_are_an_error_and_just_as_many_are_not() {
    let three = tables([
        (0, vec![SgEntry::data(frame(1)), SgEntry::chain(pfn(900))]),
        (900, vec![SgEntry::data(frame(2)), SgEntry::chain(pfn(901))]),
        (901, vec![SgEntry::last(frame(3))]),
    ]);
    let limits = |tables, entries| SgLimits { tables, entries };
    assert!(check_with(&three, limits(3, 3)).is_ok());
    assert_eq!(
        check_with(&three, limits(2, 3)),
        Err(SgError::TooManyTables {
            limit: 2,
            chain: pfn(901)
        })
    );
    assert_eq!(
        check_with(&three, limits(3, 2)),
        Err(SgError::TooManyEntries { limit: 2 })
    );
}

#[test]
fn a_chain_to_a_frame_without_a_table_says_which() {
    let lost = tables([(0, vec![SgEntry::chain(pfn(77))])]);
    assert_eq!(
        check(&lost),
        Err(SgError::NoTable {
            chain: pfn(77),
            tables: 1
        })
    );
}

#[test]
fn contradictory_and_malformed_entries_are_named_by_place() {
    let both = PfnT::new(pfn(9), PfnFlags::SG_CHAIN | PfnFlags::SG_LAST);
    let one = |entry| check(&tables([(0, vec![SgEntry::data(frame(1)), entry])]));
    assert_eq!(
        one(SgEntry {
            frame: both,
            offset: 0,
            len: 0
        }),
        Err(SgError::ChainAndLast { table: 0, index: 1 })
    );
    let mut chain = SgEntry::chain(pfn(9));
    chain.len = 512;
    assert_eq!(
        one(chain),
        Err(SgError::ChainWithData {
            table: 0,
            index: 1,
            len: 512
        })
    );
    let mut data = SgEntry::last(frame(2));
    data.offset = PAGE_SIZE;
    assert_eq!(
        one(data),
        Err(SgError::BadOffset {
            table: 0,
            index: 1,
            offset: PAGE_SIZE
        })
    );
    data.offset = 0;
    data.len = 0;
    let empty = SegmentError::Empty {
        frame: frame(2).frame(),
    };
    assert_eq!(
        one(data),
        Err(SgError::BadSegment {
            table: 0,
            index: 1,
            source: empty
        })
    );
}

#[test]
fn after_an_error_the_walk_is_over() {
    let entries = [SgEntry::data(frame(1))];
    let mut walk = SgWalk::new(&entries, |_| None, SgLimits::default());
    assert_eq!(walk.next(), Some(Ok(frame(1))));
    assert!(matches!(
        walk.next(),
        Some(Err(SgError::MissingLast { .. }))
    ));
    assert_eq!(walk.next(), None);
    assert_eq!(walk.next(), None);
}

#[test]
fn lengths_that_do_not_fit_in_64_bits_together_are_an_error() {
    let huge = PhysSegment::try_new(Pfn::MIN.into(), FrameOffset::ZERO, ByteLen::new(u64::MAX));
    let huge = huge.unwrap();
    let list = tables([(0, vec![SgEntry::data(huge), SgEntry::last(huge)])]);
    assert_eq!(check(&list), Err(SgError::TooManyBytes));
}

proptest! {
    #[test]
    fn cutting_a_list_into_tables_changes_nothing(
        frames in proptest::collection::vec(1..1000_u64, 1..60),
        room in 2..9_usize,
    ) {
        let mut list = Tables::new();
        let mut at = 0;
        let mut entries = Vec::new();
        for (n, &number) in frames.iter().enumerate() {
            if entries.len() + 1 == room && n + 1 < frames.len() {
                entries.push(SgEntry::chain(pfn(at + 1)));
                list.insert(pfn(at), core::mem::take(&mut entries));
                at += 1;
            }
            let entry = if n + 1 == frames.len() { SgEntry::last } else { SgEntry::data };
            entries.push(entry(frame(number)));
        }
        list.insert(pfn(at), entries);
        let first = &list[&pfn(0)];
        let walk = SgWalk::new(first, |at| list.get(&at).map(Vec::as_slice), SgLimits::default());
        let seen: Vec<_> = walk.map(|s| s.unwrap().frame().pfn().get()).collect();
        prop_assert_eq!(seen, frames);
    }

    #[test]
    fn any_table_at_all_ends_in_a_shape_or_an_error(
        words in proptest::collection::vec((any::<u64>(), 0..5000_u64, any::<u64>()), 0..20),
    ) {
        let entries: Vec<_> = words
            .into_iter()
            .map(|(bits, offset, len)| SgEntry { frame: PfnT::from_bits(bits), offset, len })
            .collect();
        let limits = SgLimits { tables: 50, entries: 500 };
        let _ = SgWalk::new(&entries, |_| Some(&entries[..]), limits).check();
    }
}
