//! Hazard: a table of bad sectors that forgets one, or makes a good one bad, where ranges are merged,
//! split or trimmed; or that fills up in part.

use pageless_block::{
    BadBlocks, BadBlocksEdit, BadBlocksEditError, BadBlocksError, MAX_BAD_ENTRIES, MAX_BAD_LEN,
    Sector, SectorRange,
};
use proptest::prelude::*;

fn range(start: u64, len: u64) -> SectorRange {
    SectorRange::try_new(Sector::new(start), len).unwrap()
}

fn runs(bad: &BadBlocks) -> Vec<(u64, u64, bool)> {
    bad.iter()
        .map(|run| (run.range.start().get(), run.range.len(), run.acknowledged))
        .collect()
}

#[test]
fn neighbours_merge_and_holes_split() {
    let mut bad = BadBlocks::new();
    bad.set(range(10, 5), true).unwrap();
    bad.set(range(20, 5), true).unwrap();
    bad.set(range(15, 5), true).unwrap();
    assert_eq!(runs(&bad), [(10, 15, true)]);
    bad.clear(range(12, 2)).unwrap();
    assert_eq!(runs(&bad), [(10, 2, true), (14, 11, true)]);
    bad.clear(range(0, 11)).unwrap();
    bad.clear(range(24, 100)).unwrap();
    assert_eq!(runs(&bad), [(11, 1, true), (14, 10, true)]);
    bad.clear(range(0, 1 << 40)).unwrap();
    assert!(bad.is_empty());
}

#[test]
fn what_was_acknowledged_stays_so() {
    let mut bad = BadBlocks::new();
    bad.set(range(10, 10), true).unwrap();
    bad.set(range(5, 20), false).unwrap();
    assert_eq!(runs(&bad), [(5, 5, false), (10, 10, true), (20, 5, false)]);
    assert_eq!(bad.acknowledged(range(12, 4)), Some(true));
    assert_eq!(bad.acknowledged(range(12, 9)), Some(false));
    assert_eq!(bad.acknowledged(range(0, 5)), None);
    let first = bad.first_bad(range(7, 20)).unwrap();
    assert_eq!((first.range, first.acknowledged), (range(5, 5), false));
    assert_eq!(bad.first_bad(range(25, 100)), None);
    assert_eq!(bad.first_bad(range(24, 1)).unwrap().range, range(20, 5));
    bad.acknowledge_all();
    assert_eq!(runs(&bad), [(5, 20, true)]);
    bad.self_check().unwrap();
}

#[test]
fn a_full_table_says_so_and_stays_as_it_was() {
    let mut bad = BadBlocks::new();
    // Every other one of 512 pieces, then the longest run that fits in what is left.
    for n in 0..256 {
        bad.set(range(n * 2, 1), true).unwrap();
    }
    bad.set(range(4096, 256 * MAX_BAD_LEN), true).unwrap();
    assert_eq!(bad.entries(), MAX_BAD_ENTRIES);
    let before = runs(&bad);
    let one = range(1 << 30, 1);
    let full = BadBlocksError::Full {
        range: one,
        entries: 513,
    };
    assert_eq!(bad.set(one, true), Err(full));
    // Making a hole takes an entry, too.
    let hole = range(4096 + 100, 1);
    assert!(matches!(
        bad.clear(hole),
        Err(BadBlocksError::Full { entries: 513, .. })
    ));
    assert!(matches!(
        bad.set(range(0, 1 << 54), true),
        Err(BadBlocksError::Full {
            range: _,
            entries: 35_184_372_088_832
        })
    ));
    assert_eq!(runs(&bad), before);
    // What merges frees some.
    bad.set(range(0, 512), true).unwrap();
    assert_eq!(bad.entries(), 257);
    bad.self_check().unwrap();
}

#[test]
fn sectors_beyond_the_entries_reach_are_refused() {
    let mut bad = BadBlocks::new();
    let last = (1 << 54) - 1;
    bad.set(range(last, 1), true).unwrap();
    assert_eq!(bad.packed().collect::<Vec<_>>(), [u64::MAX ^ 511]);
    for past in [range(last, 2), range(1 << 54, 1), range(u64::MAX - 1, 1)] {
        assert_eq!(
            bad.set(past, true),
            Err(BadBlocksError::PastTable { range: past })
        );
        assert_eq!(
            bad.clear(past),
            Err(BadBlocksError::PastTable { range: past })
        );
    }
    assert_eq!(SectorRange::try_new(Sector::new(u64::MAX), 1), None);
    assert_eq!(SectorRange::try_new(Sector::new(1), 0), None);
}

#[test]
fn entries_are_packed_as_linux_keeps_them() {
    let mut bad = BadBlocks::new();
    bad.set(range(8, 1), false).unwrap();
    bad.set(range(1000, 1300), true).unwrap();
    let packed: Vec<u64> = bad.packed().collect();
    let acked = 1 << 63;
    assert_eq!(
        packed,
        [
            8 << 9,
            1000 << 9 | 511 | acked,
            1512 << 9 | 511 | acked,
            2024 << 9 | 275 | acked
        ]
    );
    assert_eq!(bad.entries(), packed.len());
}

#[test]
fn texts_are_read_as_null_blk_reads_them() {
    let parse = |text: &str| text.parse::<BadBlocksEdit>();
    assert_eq!(parse("+100-107"), Ok(BadBlocksEdit::Set(range(100, 8))));
    assert_eq!(parse("-100-100\n"), Ok(BadBlocksEdit::Clear(range(100, 1))));
    assert_eq!(parse("+0x10-31"), Ok(BadBlocksEdit::Set(range(16, 16))));
    for (text, error) in [
        ("", BadBlocksEditError::Sign),
        ("100-107", BadBlocksEditError::Sign),
        ("+100", BadBlocksEditError::NoEnd),
        ("+-5", BadBlocksEditError::Number { at: 1 }),
        ("+5-", BadBlocksEditError::Number { at: 3 }),
        ("+5-+6", BadBlocksEditError::Number { at: 3 }),
        ("+5-6-7", BadBlocksEditError::Number { at: 3 }),
        ("+5-0x", BadBlocksEditError::Number { at: 3 }),
        (
            "+5-18446744073709551616",
            BadBlocksEditError::Number { at: 3 },
        ),
        (
            "+0-18446744073709551615",
            BadBlocksEditError::Number { at: 3 },
        ),
        ("+7-3", BadBlocksEditError::Backwards { first: 7, last: 3 }),
    ] {
        assert_eq!(parse(text), Err(error), "{text:?}");
    }
}

/// Sectors of the plain list.
const SECTORS: u64 = 4096;

#[derive(Clone, Debug)]
enum Step {
    Set(u64, u64, bool),
    Clear(u64, u64),
    AcknowledgeAll,
}

fn step() -> impl Strategy<Value = Step> {
    let range = (0..SECTORS, prop_oneof![4 => 1..20_u64, 1 => 1..1500_u64])
        .prop_map(|(start, len)| (start, len.min(SECTORS - start)));
    prop_oneof![
        6 => (range.clone(), any::<bool>()).prop_map(|((s, l), ack)| Step::Set(s, l, ack)),
        4 => range.prop_map(|(s, l)| Step::Clear(s, l)),
        1 => Just(Step::AcknowledgeAll),
    ]
}

/// Entries that a list of sectors takes: each run of equal ones in pieces of 512.
fn entries(sectors: &[Option<bool>]) -> usize {
    sectors
        .chunk_by(|a, b| a == b)
        .filter(|run| run[0].is_some())
        .map(|run| run.len().div_ceil(512))
        .sum()
}

proptest! {
    #[test]
    fn the_table_is_what_a_plain_list_of_sectors_is(
        steps in prop::collection::vec(step(), 1..60),
        probes in prop::collection::vec((0..SECTORS, 1..600_u64), 8),
    ) {
        let mut bad = BadBlocks::new();
        let mut plain = vec![None; SECTORS as usize];
        for step in steps {
            match step {
                Step::Set(start, len, ack) => {
                    bad.set(range(start, len), ack).unwrap();
                    for sector in &mut plain[start as usize..(start + len) as usize] {
                        *sector = Some(sector.unwrap_or(false) || ack);
                    }
                }
                Step::Clear(start, len) => {
                    bad.clear(range(start, len)).unwrap();
                    plain[start as usize..(start + len) as usize].fill(None);
                }
                Step::AcknowledgeAll => {
                    bad.acknowledge_all();
                    plain.iter_mut().flatten().for_each(|ack| *ack = true);
                }
            }
            bad.self_check().map_err(TestCaseError::fail)?;
            let mut seen = vec![None; SECTORS as usize];
            for (start, len, ack) in runs(&bad) {
                seen[start as usize..(start + len) as usize].fill(Some(ack));
            }
            prop_assert_eq!(&seen, &plain);
            prop_assert_eq!(bad.entries(), entries(&plain));
            for (start, len) in &probes {
                let asked = &plain[*start as usize..(start + len).min(SECTORS) as usize];
                let first = asked.iter().position(Option::is_some).map(|n| start + n as u64);
                let found = bad.first_bad(range(*start, *len));
                prop_assert_eq!(found.map(|bad| bad.range.start().get().max(*start)), first);
                let all = asked.iter().flatten().copied().reduce(|a, b| a && b);
                prop_assert_eq!(bad.acknowledged(range(*start, *len)), all);
            }
        }
    }

    #[test]
    fn any_text_is_an_edit_or_an_error(text in "[-+x0-9 ]{0,12}") {
        let _ = text.parse::<BadBlocksEdit>();
    }
}
