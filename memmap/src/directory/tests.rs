//! The directory against a naive oracle: a list of chunks and nothing clever.

use alloc::vec;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;

use pageless_fault::{
    Completion, FaultReason, Fetched, LEAF_TABLE_BYTES, Machine, MaySleep, PopulateError,
    ReserveError, Table, Translations, UnmapError, Window, WindowLen, WindowOffset, WindowRange,
    Word,
};
use pageless_pfn::{FrameCount, Pfn, PfnRange};
use proptest::prelude::*;

use super::{Admission, ChunkState, Claimed, Directory, SlotId};
use crate::geometry::{ChunkIndex, ChunkSize, Geometry};

/// A window whose shootdowns are always complete: all that the directory needs to be given proofs.
#[derive(Debug)]
pub(super) struct Instant;

impl Machine for Instant {
    type Window = Instant;
    fn reserve(&self, _: WindowLen, _: u64) -> Result<Instant, ReserveError> {
        Ok(Instant)
    }
}

#[derive(Clone, Copy)]
pub(super) struct Nothing;

impl Word for Nothing {
    fn fetch_add(self, _: u32) -> Fetched {
        Fetched::fault(FaultReason::NotPresent)
    }
    fn release(self) {}
    fn compare_exchange(self, _: u32, _: u32) -> Result<u32, u32> {
        Err(0)
    }
    fn exchange(self, _: u32) -> u32 {
        0
    }
    fn load(self, _: Ordering) -> u32 {
        0
    }
    fn store(self, _: u32, _: Ordering) {}
}

#[derive(Clone, Copy)]
pub(super) struct NoTable<const STRIDE: u64>;

impl<const STRIDE: u64> Table for NoTable<STRIDE> {
    type Word = Nothing;
    fn nth(self, _: u64) -> Option<Nothing> {
        None
    }
}

impl Translations for Instant {
    type Ticket = ();

    fn wait(&self, (): &(), _: &MaySleep) -> Result<Completion, UnmapError> {
        Ok(Completion::WalkQuiescent)
    }
}

impl Window for Instant {
    type Word<'w> = Nothing;
    type Table<'w, const STRIDE: u64> = NoTable<STRIDE>;
    type Prefilled = ();
    fn table<const STRIDE: u64>(&self, _: u64) -> Option<NoTable<STRIDE>> {
        None
    }
    fn word(&self, _: WindowOffset) -> Option<Nothing> {
        None
    }
    fn populate(&self, _: WindowRange, _: &MaySleep) -> Result<(), PopulateError> {
        Ok(())
    }
    fn prefill(&self, _: u64, _: &MaySleep) -> Result<(), PopulateError> {
        Ok(())
    }
    fn populate_from(&self, _: WindowRange, (): ()) -> Result<(), PopulateError> {
        Ok(())
    }
    fn clear(&self, _: &[WindowRange]) -> Result<(), UnmapError> {
        Ok(())
    }
    fn frees_leaf_tables(&self) -> bool {
        true
    }
    fn is_foreign(&self) -> bool {
        false
    }
    fn relax(&self, _: u32) {}
}

#[derive(Debug, Clone)]
enum Op {
    Begin(u64),
    Finish(usize, bool),
    Claim(usize, u64),
    Unclaim(usize),
    CondemnAndBury,
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let op = prop_oneof![
        4 => (0_u64..1024).prop_map(Op::Begin),
        4 => (any::<usize>(), prop::bool::weighted(0.9)).prop_map(|(n, whole)| Op::Finish(n, whole)),
        2 => (1_usize..6, any::<u64>()).prop_map(|(most, pinned)| Op::Claim(most, pinned)),
        1 => any::<usize>().prop_map(Op::Unclaim),
        2 => Just(Op::CondemnAndBury),
    ];
    prop::collection::vec(op, 0..if cfg!(miri) { 30 } else { 200 })
}

/// What the oracle knows of a chunk. The position in its list is the age.
#[derive(Debug, Clone)]
struct Known {
    chunk: u64,
    state: ChunkState,
    slot: SlotId,
    short: bool,
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if cfg!(miri) { 4 } else { 256 },
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn agrees_with_a_plain_list(ops in ops(), size in 0_u32..=9) {
        let chunk = ChunkSize::try_new(4096 << size).unwrap();
        let pfns = PfnRange::try_new(
            Pfn::try_new(0).unwrap(),
            FrameCount::new(1024 * chunk.descriptors()),
        ).unwrap();
        let geometry = Geometry::new(pfns, chunk).unwrap();
        let mut directory = Directory::new(geometry, true, 16);
        let reader = directory.reader();
        let mut list: Vec<Known> = Vec::new();
        let mut claimed: Vec<Claimed> = Vec::new();
        let per_group = (2 << 20) / chunk.bytes();
        let ctx = MaySleep::claim();

        for op in ops {
            match op {
                Op::Begin(n) => {
                    let known = list.iter().find(|known| known.chunk == n);
                    let admission = directory.admission(ChunkIndex(n));
                    match known {
                        None => {
                            let table = !list.iter().any(|known| known.chunk / per_group == n / per_group);
                            let cost = chunk.bytes() + if table { LEAF_TABLE_BYTES } else { 0 };
                            prop_assert_eq!(admission, Admission::Absent { cost });
                            directory.make_room(1);
                            prop_assert!(directory.has_room());
                            let slot = directory.begin_fill(ChunkIndex(n));
                            list.push(Known { chunk: n, state: ChunkState::Filling, slot, short: false });
                        }
                        Some(Known { state: ChunkState::Present, short: false, .. }) => {
                            prop_assert_eq!(admission, Admission::Present);
                        }
                        Some(Known { state: ChunkState::Present, short: true, slot, .. }) => {
                            prop_assert_eq!(admission, Admission::Short { slot: *slot, present: 0 });
                            directory.resume_fill(*slot);
                            let slot = *slot;
                            list.iter_mut().filter(|known| known.slot == slot)
                                .for_each(|known| known.state = ChunkState::Filling);
                        }
                        Some(_) => prop_assert_eq!(admission, Admission::Busy),
                    }
                }
                Op::Finish(n, whole) => {
                    let mut filling: Vec<_> = list.iter_mut()
                        .filter(|known| known.state == ChunkState::Filling).collect();
                    if !filling.is_empty() {
                        let n = n % filling.len();
                        directory.finish_fill(filling[n].slot, if whole { chunk.bytes() } else { 0 });
                        filling[n].state = ChunkState::Present;
                        filling[n].short = !whole;
                    }
                }
                Op::Claim(most, pinned) => {
                    if claimed.is_empty() {
                        // A word of a chunk that was filled short must not be looked at.
                        let short: Vec<u64> = list.iter().filter(|known| known.short)
                            .map(|known| known.chunk).collect();
                        directory.claim(None, most, usize::MAX, &mut claimed, |chunk, _| {
                            assert!(!short.contains(&chunk.0), "looked at a word without memory");
                            pinned >> (chunk.0 % 64) & 1 == 1
                        });
                        let expected: Vec<u64> = list.iter()
                            .filter(|known| known.state == ChunkState::Present)
                            .filter(|known| known.short || pinned >> (known.chunk % 64) & 1 == 0)
                            .map(|known| known.chunk).take(most).collect();
                        let got: Vec<u64> = claimed.iter().map(|claim| claim.chunk.0).collect();
                        prop_assert_eq!(&got, &expected, "not the oldest that may go");
                        list.iter_mut().filter(|known| expected.contains(&known.chunk))
                            .for_each(|known| known.state = ChunkState::Frozen);
                    }
                }
                Op::Unclaim(n) => {
                    if !claimed.is_empty() {
                        let claim = claimed.remove(n % claimed.len());
                        directory.unclaim(claim.slot, 0);
                        list.iter_mut().filter(|known| known.slot == claim.slot)
                            .for_each(|known| known.state = ChunkState::Present);
                    }
                }
                Op::CondemnAndBury => {
                    let condemned = directory.condemn(&claimed);
                    directory.self_check().map_err(TestCaseError::fail)?;
                    // Every condemned chunk is covered, and nothing that stays is.
                    let covered: Vec<(u64, u64)> = condemned.ranges.iter()
                        .map(|range| (range.start().get(), range.end().get())).collect();
                    for known in &list {
                        let at = known.chunk * chunk.bytes();
                        let inside = covered.iter()
                            .any(|(start, end)| *start <= at && at + chunk.bytes() <= *end);
                        prop_assert_eq!(inside, known.state == ChunkState::Frozen);
                    }
                    // A group that is left empty goes as a whole.
                    for claim in &claimed {
                        let group = claim.chunk.0 / per_group;
                        let stays = list.iter().any(|known|
                            known.chunk / per_group == group && known.state != ChunkState::Frozen);
                        let start = group * (2 << 20);
                        let whole = covered.iter()
                            .any(|(from, to)| *from <= start && start + (2 << 20) <= *to);
                        prop_assert!(whole != stays || per_group == 1);
                    }
                    let debt = Instant.unmap(&[], condemned).map_err(|_| TestCaseError::fail("unmap"))?;
                    let flushed = debt.settle(&ctx).map_err(|_| TestCaseError::fail("settle"))?;
                    directory.bury(flushed);
                    list.retain(|known| known.state != ChunkState::Frozen);
                    claimed.clear();
                }
            }
            directory.self_check().map_err(TestCaseError::fail)?;
            for n in (0..1024).step_by(if cfg!(miri) { 61 } else { 17 }) {
                let known = list.iter().find(|known| known.chunk == n).map(|known| known.state);
                let seen = directory.look(ChunkIndex(n));
                prop_assert_eq!(seen.map(|seen| seen.state), known);
                // Where there is an epoch, the same without the lock.
                prop_assert_eq!(reader.look(ChunkIndex(n)).unwrap_or(seen), seen);
            }
            let order: Vec<u64> = directory.in_order().map(|(chunk, _, _)| chunk.0).collect();
            let expected: Vec<u64> = list.iter().map(|known| known.chunk).collect();
            prop_assert_eq!(order, expected, "not in order of allocation");
            let mut groups: Vec<u64> = list.iter().map(|known| known.chunk / per_group).collect();
            groups.sort_unstable();
            groups.dedup();
            prop_assert_eq!(
                directory.counters.page_table_bytes,
                groups.len() as u64 * LEAF_TABLE_BYTES
            );
            prop_assert_eq!(directory.charged(), directory.counters.used_bytes());
        }
    }
}

#[test]
fn tables_that_never_go_back_are_counted_but_not_held_against_the_budget() {
    let pfns = PfnRange::try_new(Pfn::try_new(0).unwrap(), FrameCount::new(1 << 20)).unwrap();
    let geometry = Geometry::new(pfns, ChunkSize::MIN).unwrap();
    let mut directory = Directory::new(geometry, false, 16);
    assert_eq!(
        directory.admission(ChunkIndex(0)),
        Admission::Absent { cost: 4096 }
    );
    let slot = directory.begin_fill(ChunkIndex(0));
    directory.finish_fill(slot, 4096);
    assert_eq!(directory.counters.page_table_bytes, LEAF_TABLE_BYTES);
    assert_eq!(directory.charged(), 4096);
    let mut claimed = vec![];
    directory.claim(None, 1, usize::MAX, &mut claimed, |_, _| false);
    let condemned = directory.condemn(&claimed);
    assert_eq!(condemned.ranges.len(), 1);
    assert_eq!(condemned.ranges[0].len(), 4096);
    let ctx = MaySleep::claim();
    let flushed = Instant.unmap(&[], condemned).unwrap().settle(&ctx).unwrap();
    directory.bury(flushed);
    assert_eq!(directory.charged(), 0);
    assert_eq!(directory.counters.page_table_bytes, LEAF_TABLE_BYTES);
    directory.self_check().unwrap();
}
