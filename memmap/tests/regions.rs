//! Hazard: a pfn is looked up in the wrong memmap, or in one that is gone. No system calls on the small
//! machine: also run by Miri.
#![cfg(not(loom))]

extern crate alloc;

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::Mutex;

use pageless_fault::{
    Completion, FaultReason, Fetched, Machine, MaySleep, PopulateError, ReserveError, Table,
    Translations, UnmapError, Window, WindowLen, WindowOffset, WindowRange, Word,
};
use pageless_memmap::{
    Config, DetachError, GetError, Memmap, RegionDetachError, RegionError, RegionGetError, Regions,
    TryGetError,
};
use pageless_pfn::{FrameCount, PagedPfn, Pfn, PfnFlags, PfnRange, PfnT};
use proptest::prelude::*;

const PAGE: u64 = 4096;

/// A machine whose shootdowns are complete at once, and which counts its windows.
#[derive(Clone, Default)]
struct SmallMachine {
    windows: Arc<AtomicUsize>,
}

struct SmallWindow {
    words: Vec<AtomicU32>,
    present: Mutex<Vec<bool>>,
    windows: Arc<AtomicUsize>,
}

impl SmallMachine {
    fn windows(&self) -> usize {
        self.windows.load(Ordering::Relaxed)
    }
}

impl Drop for SmallWindow {
    fn drop(&mut self) {
        self.windows.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Machine for SmallMachine {
    type Window = SmallWindow;

    fn reserve(&self, len: WindowLen, _: u64) -> Result<SmallWindow, ReserveError> {
        self.windows.fetch_add(1, Ordering::Relaxed);
        // A window is whole leaf tables long; no test looks beyond the first page.
        let bytes = len.get().min(PAGE);
        Ok(SmallWindow {
            words: (0..bytes / 4).map(|_| AtomicU32::new(0xdead)).collect(),
            present: Mutex::new(vec![false; (bytes / PAGE) as usize]),
            windows: Arc::clone(&self.windows),
        })
    }
}

#[derive(Clone, Copy)]
struct SmallWord<'w> {
    window: &'w SmallWindow,
    at: u64,
}

impl SmallWord<'_> {
    fn access<T>(self, effect: impl FnOnce(&AtomicU32) -> T) -> Option<T> {
        // Translation and effect are one instruction: under one lock.
        let present = self.window.present.lock().unwrap();
        present[(self.at / PAGE) as usize]
            .then(|| effect(&self.window.words[(self.at / 4) as usize]))
    }

    fn held<T>(self, effect: impl FnOnce(&AtomicU32) -> T) -> T {
        self.access(effect)
            .unwrap_or_else(|| panic!("access to absent memory at {:#x}", self.at))
    }
}

impl Word for SmallWord<'_> {
    fn fetch_add(self, n: u32) -> Fetched {
        self.access(|word| Fetched::old(word.fetch_add(n, Ordering::Acquire)))
            .unwrap_or(Fetched::fault(FaultReason::NotPresent))
    }
    fn release(self) {
        self.held(|word| word.fetch_sub(1, Ordering::Release));
    }
    fn compare_exchange(self, current: u32, new: u32) -> Result<u32, u32> {
        self.held(|word| word.compare_exchange(current, new, Ordering::AcqRel, Ordering::Relaxed))
    }
    fn exchange(self, new: u32) -> u32 {
        self.held(|word| word.swap(new, Ordering::Release))
    }
    fn load(self, order: Ordering) -> u32 {
        self.held(|word| word.load(order))
    }
    fn store(self, value: u32, order: Ordering) {
        self.held(|word| word.store(value, order));
    }
}

#[derive(Clone, Copy)]
struct SmallTable<'w, const STRIDE: u64> {
    window: &'w SmallWindow,
    count: u64,
}

impl<'w, const STRIDE: u64> Table for SmallTable<'w, STRIDE> {
    type Word = SmallWord<'w>;

    fn nth(self, index: u64) -> Option<SmallWord<'w>> {
        (index < self.count).then(|| SmallWord {
            window: self.window,
            at: index * STRIDE,
        })
    }
}

impl SmallWindow {
    fn set(&self, ranges: &[WindowRange], to: bool) {
        let mut present = self.present.lock().unwrap();
        for range in ranges {
            for page in range.start().get() / PAGE..range.end().get() / PAGE {
                if let Some(page) = present.get_mut(page as usize) {
                    *page = to;
                }
            }
        }
    }
}

impl Translations for SmallWindow {
    type Ticket = ();

    fn wait(&self, (): &(), _: &MaySleep) -> Result<Completion, UnmapError> {
        Ok(Completion::WalkQuiescent)
    }
}

impl Window for SmallWindow {
    type Word<'w> = SmallWord<'w>;
    type Table<'w, const STRIDE: u64> = SmallTable<'w, STRIDE>;
    type Prefilled = ();

    fn table<const STRIDE: u64>(&self, count: u64) -> Option<SmallTable<'_, STRIDE>> {
        Some(SmallTable {
            window: self,
            count,
        })
    }
    fn word(&self, at: WindowOffset) -> Option<SmallWord<'_>> {
        (at.get() / 4 < self.words.len() as u64).then(|| SmallWord {
            window: self,
            at: at.get(),
        })
    }
    fn populate(&self, range: WindowRange, _: &MaySleep) -> Result<(), PopulateError> {
        for word in
            &self.words[(range.start().get() / 4) as usize..(range.end().get() / 4) as usize]
        {
            word.store(0, Ordering::Relaxed);
        }
        self.set(&[range], true);
        Ok(())
    }
    fn prefill(&self, _: u64, _: &MaySleep) -> Result<(), PopulateError> {
        Ok(())
    }
    fn populate_from(&self, range: WindowRange, (): ()) -> Result<(), PopulateError> {
        self.populate(range, &MaySleep::claim())
    }
    fn clear(&self, ranges: &[WindowRange]) -> Result<(), UnmapError> {
        self.set(ranges, false);
        Ok(())
    }
    fn frees_leaf_tables(&self) -> bool {
        true
    }
    fn is_foreign(&self) -> bool {
        false
    }
    fn relax(&self, _: u32) {
        std::thread::yield_now();
    }
}

fn pfns(start: u64, count: u64) -> PfnRange {
    PfnRange::try_new(Pfn::try_new(start).unwrap(), FrameCount::new(count)).unwrap()
}

fn pfn(n: u64) -> Pfn {
    Pfn::try_new(n).unwrap()
}

fn paged(n: u64) -> PagedPfn {
    PfnT::new(pfn(n), PfnFlags::DEV | PfnFlags::MAP)
        .paged()
        .unwrap()
}

fn memmap(machine: &SmallMachine, start: u64, count: u64) -> Arc<Memmap<SmallWindow>> {
    Arc::new(Memmap::attach(machine, pfns(start, count), Config::default()).unwrap())
}

#[test]
fn neighbours_are_told_apart_and_holes_belong_to_nobody() {
    let machine = SmallMachine::default();
    let ctx = MaySleep::claim();
    let regions = Regions::new();
    // Not in order; 100..164 and 164..228 touch; 228..300 is a hole.
    for (start, count) in [(164, 64), (300, 1), (100, 64)] {
        regions.attach(memmap(&machine, start, count)).unwrap();
    }
    assert_eq!(
        regions.ranges(),
        [pfns(100, 64), pfns(164, 64), pfns(300, 1)]
    );
    for (n, first) in [(100, 100), (163, 100), (164, 164), (227, 164), (300, 300)] {
        assert_eq!(regions.find(pfn(n)).unwrap().pfns().start(), pfn(first));
        let page = regions.get(&ctx, paged(n)).unwrap();
        assert_eq!(page.memmap().pfns().start(), pfn(first));
        assert_eq!((page.page().pfn(), page.page().references()), (pfn(n), 1));
    }
    for n in [0, 99, 228, 299, 301] {
        assert!(regions.find(pfn(n)).is_none());
        assert_eq!(
            regions.get(&ctx, paged(n)).unwrap_err(),
            RegionGetError::NotAttached { pfn: pfn(n) }
        );
    }
}

#[test]
fn an_overlap_is_refused_with_both_ranges_and_changes_nothing() {
    let machine = SmallMachine::default();
    let regions = Regions::new();
    regions.attach(memmap(&machine, 100, 64)).unwrap();
    for (start, count) in [(100, 64), (37, 64), (163, 1), (110, 1), (0, 1000)] {
        let error = regions.attach(memmap(&machine, start, count)).unwrap_err();
        assert_eq!(
            error,
            RegionError::Overlap {
                pfns: pfns(start, count),
                attached: pfns(100, 64),
            }
        );
        assert!(error.to_string().contains("0x64+64"), "{error}");
    }
    assert_eq!(regions.ranges(), [pfns(100, 64)]);
    assert_eq!(machine.windows(), 1, "a refused memmap was kept");
}

#[test]
fn a_region_that_is_busy_is_put_back_and_works_on() {
    let machine = SmallMachine::default();
    let ctx = MaySleep::claim();
    let regions = Regions::new();
    regions.attach(memmap(&machine, 0, 64)).unwrap();
    let page = regions.get(&ctx, paged(5)).unwrap();
    page.page().set_private(0, 7);

    // While it is on its way out nobody finds it, and nobody takes its place.
    let mut asked = false;
    let error = regions
        .detach(pfns(0, 64), &ctx, || {
            asked = true;
            assert!(regions.find(pfn(5)).is_none());
            assert_eq!(
                regions.attach(memmap(&machine, 63, 64)).unwrap_err(),
                RegionError::Overlap {
                    pfns: pfns(63, 64),
                    attached: pfns(0, 64),
                }
            );
            assert_eq!(
                regions.detach(pfns(0, 64), &ctx, || true).unwrap_err(),
                RegionDetachError::NotAttached { pfns: pfns(0, 64) }
            );
            true
        })
        .unwrap_err();
    assert!(asked);
    assert!(
        matches!(
            error,
            RegionDetachError::Detach(DetachError::Busy { descriptors: 1, .. })
        ),
        "{error}"
    );

    assert_eq!(regions.ranges(), [pfns(0, 64)]);
    assert_eq!(regions.get(&ctx, paged(5)).unwrap().page().private(0), 7);
    drop(page);
    regions.detach(pfns(0, 64), &ctx, || true).unwrap();
    assert!(regions.ranges().is_empty());
}

#[test]
fn a_region_detached_behind_the_sets_back_leaves_it_at_the_next_detach() {
    let machine = SmallMachine::default();
    let ctx = MaySleep::claim();
    let regions = Regions::new();
    regions.attach(memmap(&machine, 0, 64)).unwrap();
    let kept = regions.find_arc(pfn(0)).unwrap();
    kept.detach(&ctx, || true).unwrap();
    assert_eq!(
        regions.get(&ctx, paged(0)).unwrap_err(),
        RegionGetError::Get(GetError::Detached)
    );
    assert_eq!(
        regions.detach(pfns(0, 64), &ctx, || true).unwrap_err(),
        RegionDetachError::Detach(DetachError::Detached)
    );
    assert!(regions.ranges().is_empty());
}

#[test]
fn a_reader_of_an_old_table_is_answered_by_the_memmap_itself() {
    let machine = SmallMachine::default();
    let ctx = MaySleep::claim();
    let regions = Regions::new();
    regions.attach(memmap(&machine, 0, 64)).unwrap();
    let old = regions.find(pfn(3)).unwrap();
    drop(regions.detach(pfns(0, 64), &ctx, || true).unwrap());
    regions.attach(memmap(&machine, 0, 64)).unwrap();

    assert_eq!(old.get(&ctx, paged(3)).unwrap_err(), GetError::Detached);
    assert_eq!(
        old.try_get(paged(3)).unwrap_err(),
        TryGetError::WouldBlock { pfn: pfn(3) }
    );
    assert_eq!(regions.get(&ctx, paged(3)).unwrap().page().references(), 1);
    // The old address space lasts as long as its reader.
    assert_eq!(machine.windows(), 2);
    drop(old);
    assert_eq!(machine.windows(), 1);
}

#[test]
fn a_page_keeps_its_memmap_when_the_set_itself_is_gone() {
    let machine = SmallMachine::default();
    let ctx = MaySleep::claim();
    let regions = Regions::new();
    regions.attach(memmap(&machine, 0, 64)).unwrap();
    let page = regions.get(&ctx, paged(9)).unwrap();
    drop(regions);
    assert_eq!(machine.windows(), 1);
    assert_eq!(page.page().references(), 1);
    let memmap = Arc::clone(page.memmap());
    drop(page);
    assert_eq!(memmap.get(&ctx, paged(9)).unwrap().references(), 1);
    drop(memmap);
    assert_eq!(machine.windows(), 0);
}

#[test]
fn lookups_race_with_a_region_that_comes_and_goes() {
    const ROUNDS: u32 = if cfg!(miri) { 6 } else { 400 };
    let machine = SmallMachine::default();
    let regions = Regions::new();
    regions.attach(memmap(&machine, 0, 64)).unwrap();
    let done = AtomicBool::new(false);
    let found = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let ctx = MaySleep::claim();
                while !done.load(Ordering::Relaxed) {
                    // The neighbour never goes.
                    let stays = regions.get(&ctx, paged(1)).unwrap();
                    assert_eq!(stays.page().pfn(), pfn(1));
                    match regions.get(&ctx, paged(70)) {
                        Ok(page) => {
                            found.fetch_add(1, Ordering::Relaxed);
                            assert_eq!(page.page().pfn(), pfn(70));
                            assert!(page.page().references() >= 1);
                        }
                        // Found just before it left the set, and not after.
                        Err(RegionGetError::NotAttached { pfn: missing }) => {
                            assert_eq!(missing, pfn(70));
                        }
                        Err(error) => panic!("{error}"),
                    }
                }
            });
        }
        let ctx = MaySleep::claim();
        for _ in 0..ROUNDS {
            let before = found.load(Ordering::Relaxed);
            regions.attach(memmap(&machine, 64, 64)).unwrap();
            while found.load(Ordering::Relaxed) == before {
                std::thread::yield_now();
            }
            // Readers give back what they hold, and then find nothing.
            let gone = regions.detach(pfns(64, 64), &ctx, || false).unwrap();
            assert_eq!(gone.get(&ctx, paged(70)).unwrap_err(), GetError::Detached);
        }
        done.store(true, Ordering::Relaxed);
    });
    assert_eq!(regions.ranges(), [pfns(0, 64)]);
    drop(regions);
    assert_eq!(machine.windows(), 0);
}

#[derive(Debug, Clone)]
enum Op {
    Attach(u64, u64),
    Detach(usize),
    Find(u64),
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let op = prop_oneof![
        3 => (0_u64..400, 1_u64..40).prop_map(|(start, count)| Op::Attach(start, count)),
        1 => any::<usize>().prop_map(Op::Detach),
        3 => (0_u64..450).prop_map(Op::Find),
    ];
    prop::collection::vec(op, 0..if cfg!(miri) { 12 } else { 80 })
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if cfg!(miri) { 2 } else { 64 },
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn finds_what_a_plain_map_finds(ops in ops()) {
        let machine = SmallMachine::default();
        let ctx = MaySleep::claim();
        let regions = Regions::new();
        let mut oracle: BTreeMap<u64, u64> = BTreeMap::new();
        for op in ops {
            match op {
                Op::Attach(start, count) => {
                    let free = oracle.iter().all(|(s, c)| start + count <= *s || s + c <= start);
                    let attached = regions.attach(memmap(&machine, start, count));
                    prop_assert_eq!(attached.is_ok(), free);
                    if free {
                        oracle.insert(start, count);
                    }
                }
                Op::Detach(n) => {
                    if let Some((&start, &count)) = oracle.iter().nth(n % oracle.len().max(1)) {
                        // The exact range, and no other.
                        let other = pfns(start, count + 1);
                        prop_assert!(regions.detach(other, &ctx, || true).is_err());
                        prop_assert!(regions.detach(pfns(start, count), &ctx, || true).is_ok());
                        oracle.remove(&start);
                    }
                }
                Op::Find(n) => {
                    let expected = oracle.range(..=n).next_back()
                        .filter(|(s, c)| n < *s + *c).map(|(s, c)| pfns(*s, *c));
                    prop_assert_eq!(regions.find(pfn(n)).map(|region| region.pfns()), expected);
                }
            }
            let expected: Vec<PfnRange> = oracle.iter().map(|(s, c)| pfns(*s, *c)).collect();
            prop_assert_eq!(regions.ranges(), expected);
            prop_assert_eq!(machine.windows(), oracle.len());
        }
    }
}

#[cfg(all(target_os = "linux", target_arch = "x86_64", not(miri)))]
#[test]
fn two_petabyte_devices_on_the_machine_itself() {
    use pageless_fault::host::HostMachine;

    let machine = HostMachine::new().unwrap();
    let ctx = MaySleep::claim();
    let regions = Regions::new();
    for start in [1 << 40, 1 << 41] {
        let memmap = Memmap::attach(&machine, pfns(start, 1 << 38), Config::default()).unwrap();
        regions.attach(Arc::new(memmap)).unwrap();
    }
    let one = regions.get(&ctx, paged((1 << 40) + 12345)).unwrap();
    let two = regions.get(&ctx, paged((1 << 41) + 12345)).unwrap();
    one.page().set_private(0, 1);
    two.page().set_private(0, 2);
    assert_eq!((one.page().private(0), two.page().private(0)), (1, 2));
    drop(one);
    regions
        .detach(pfns(1 << 40, 1 << 38), &ctx, || true)
        .unwrap();
    assert!(regions.find(pfn((1 << 40) + 12345)).is_none());
    assert_eq!(two.page().private(0), 2);
}
