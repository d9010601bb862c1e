//! Populate against reclaim, under every interleaving: the memmap itself on a machine of loom's parts.
//! A chunk has two descriptors here.
#![cfg(loom)]

use core::sync::atomic::Ordering;

use loom::sync::atomic::AtomicU32;
use loom::sync::{Arc, Mutex};
use loom::thread;
use pageless_fault::{
    Completion, FaultReason, Fetched, Machine, MaySleep, PopulateError, ReserveError, Table,
    Translations, UnmapError, Window, WindowLen, WindowOffset, WindowRange, Word,
};
use pageless_memmap::{Budget, ChunkSize, Config, DESCRIPTOR_BYTES, Memmap};
use pageless_pfn::{FrameCount, PagedPfn, Pfn, PfnFlags, PfnRange, PfnT};

/// Two chunks of two descriptors.
const FRAMES: u64 = 4;

/// What a CPU finds for a chunk. Between clearing and flushing it may find either.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Translation {
    Absent,
    Present,
    Cleared,
}

struct LoomMachine;

struct LoomWindow {
    words: Vec<AtomicU32>,
    chunks: Mutex<[Translation; 2]>,
}

impl Machine for LoomMachine {
    type Window = LoomWindow;

    fn reserve(&self, _: WindowLen, _: u64) -> Result<LoomWindow, ReserveError> {
        Ok(LoomWindow {
            words: (0..FRAMES).map(|_| AtomicU32::new(0xdead)).collect(),
            chunks: Mutex::new([Translation::Absent; 2]),
        })
    }
}

#[derive(Clone, Copy)]
struct LoomWord<'w> {
    window: &'w LoomWindow,
    index: u64,
}

impl LoomWord<'_> {
    fn word(&self) -> &AtomicU32 {
        &self.window.words[self.index as usize]
    }
}

impl Word for LoomWord<'_> {
    fn fetch_add(self, n: u32) -> Fetched {
        // Translation and effect are one instruction: under one lock.
        let chunks = self.window.chunks.lock().unwrap();
        match chunks[(self.index / 2) as usize] {
            Translation::Present => Fetched::old(self.word().fetch_add(n, Ordering::Acquire)),
            Translation::Cleared | Translation::Absent => Fetched::fault(FaultReason::NotPresent),
        }
    }
    fn release(self) {
        self.word().fetch_sub(1, Ordering::Release);
    }
    fn compare_exchange(self, current: u32, new: u32) -> Result<u32, u32> {
        self.word()
            .compare_exchange(current, new, Ordering::AcqRel, Ordering::Relaxed)
    }
    fn exchange(self, new: u32) -> u32 {
        self.word().swap(new, Ordering::Release)
    }
    fn load(self, order: Ordering) -> u32 {
        self.word().load(order)
    }
    fn store(self, value: u32, order: Ordering) {
        self.word().store(value, order);
    }
}

#[derive(Clone, Copy)]
struct LoomTable<'w, const STRIDE: u64>(&'w LoomWindow);

impl<'w, const STRIDE: u64> Table for LoomTable<'w, STRIDE> {
    type Word = LoomWord<'w>;

    fn nth(self, index: u64) -> Option<LoomWord<'w>> {
        (index < FRAMES).then_some(LoomWord {
            window: self.0,
            index,
        })
    }
}

impl LoomWindow {
    fn each(&self, ranges: &[WindowRange], from: Translation, to: Translation) {
        let mut chunks = self.chunks.lock().unwrap();
        for range in ranges {
            let (start, end) = (range.start().get() / 4096, range.end().get() / 4096);
            for chunk in start..end.min(FRAMES / 2) {
                let chunk = &mut chunks[chunk as usize];
                if *chunk == from {
                    *chunk = to;
                }
            }
        }
    }
}

impl Translations for LoomWindow {
    type Ticket = Vec<WindowRange>;

    fn wait(&self, ranges: &Vec<WindowRange>, _: &MaySleep) -> Result<Completion, UnmapError> {
        self.each(ranges, Translation::Cleared, Translation::Absent);
        Ok(Completion::WalkQuiescent)
    }
}

impl Window for LoomWindow {
    type Word<'w> = LoomWord<'w>;
    type Table<'w, const STRIDE: u64> = LoomTable<'w, STRIDE>;
    type Prefilled = ();

    fn table<const STRIDE: u64>(&self, _: u64) -> Option<LoomTable<'_, STRIDE>> {
        Some(LoomTable(self))
    }

    fn word(&self, at: WindowOffset) -> Option<LoomWord<'_>> {
        Some(LoomWord {
            window: self,
            index: at.get() / DESCRIPTOR_BYTES,
        })
    }

    fn populate(&self, range: WindowRange, _: &MaySleep) -> Result<(), PopulateError> {
        let chunk = range.start().get() / 4096;
        let mut chunks = self.chunks.lock().unwrap();
        assert_eq!(
            chunks[chunk as usize],
            Translation::Absent,
            "a chunk was filled twice, or before its flush"
        );
        for index in chunk * 2..chunk * 2 + 2 {
            self.words[index as usize].store(0, Ordering::Relaxed);
        }
        chunks[chunk as usize] = Translation::Present;
        Ok(())
    }

    fn prefill(&self, _: u64, _: &MaySleep) -> Result<(), PopulateError> {
        Ok(())
    }

    fn populate_from(&self, _: WindowRange, (): ()) -> Result<(), PopulateError> {
        Ok(())
    }

    fn clear(&self, ranges: &[WindowRange]) -> Result<Vec<WindowRange>, UnmapError> {
        self.each(ranges, Translation::Present, Translation::Cleared);
        Ok(ranges.to_vec())
    }

    fn frees_leaf_tables(&self) -> bool {
        true
    }

    fn is_foreign(&self) -> bool {
        false
    }

    fn relax(&self, _: u32) {
        thread::yield_now();
    }
}

fn pfn(index: u64) -> PagedPfn {
    PfnT::new(Pfn::try_new(index).unwrap(), PfnFlags::MAP)
        .paged()
        .unwrap()
}

fn attach() -> Arc<Memmap<LoomWindow>> {
    let pfns = PfnRange::try_new(Pfn::try_new(0).unwrap(), FrameCount::new(FRAMES)).unwrap();
    let chunk = ChunkSize::MIN;
    let config = Config {
        chunk,
        budget: Budget::with_watermarks(1 << 20, 1 << 20, 1 << 20, chunk).unwrap(),
        reserve_chunks: 0,
        fill_ahead: 1,
    };
    Arc::new(Memmap::attach(&LoomMachine, pfns, config).unwrap())
}

fn explore(model: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = builder.preemption_bound.or(Some(2));
    builder.check(model);
}

fn balanced(memmap: &Memmap<LoomWindow>) {
    let counters = memmap.counters();
    assert_eq!(
        counters.chunks_populated,
        counters.chunks_reclaimed + counters.live_bytes / 4096
    );
    assert_eq!(counters.limbo_bytes, 0);
    memmap.self_check().unwrap();
}

#[test]
fn two_faults_on_one_chunk_fill_it_once() {
    explore(|| {
        let memmap = attach();
        let other = thread::spawn({
            let memmap = Arc::clone(&memmap);
            move || drop(memmap.get(&MaySleep::claim(), pfn(1)).unwrap())
        });
        drop(memmap.get(&MaySleep::claim(), pfn(0)).unwrap());
        other.join().unwrap();
        assert_eq!(memmap.counters().chunks_populated, 1);
        balanced(&memmap);
    });
}

#[test]
fn a_fault_against_reclaim_of_the_same_chunk() {
    explore(|| {
        let memmap = attach();
        let ctx = MaySleep::claim();
        drop(memmap.get(&ctx, pfn(0)).unwrap());
        let getter = thread::spawn({
            let memmap = Arc::clone(&memmap);
            move || {
                let page = memmap.get(&MaySleep::claim(), pfn(1)).unwrap();
                assert_eq!(page.references(), 1, "an old frame, or a lost count");
            }
        });
        memmap.reclaim(&ctx, 0).unwrap();
        getter.join().unwrap();
        balanced(&memmap);
    });
}

#[test]
fn a_fault_beside_the_last_chunk_of_a_leaf_table_under_reclaim() {
    explore(|| {
        let memmap = attach();
        let ctx = MaySleep::claim();
        drop(memmap.get(&ctx, pfn(0)).unwrap());
        let getter = thread::spawn({
            let memmap = Arc::clone(&memmap);
            move || {
                let page = memmap.get(&MaySleep::claim(), pfn(2)).unwrap();
                assert_eq!(page.references(), 1);
            }
        });
        memmap.reclaim(&ctx, 0).unwrap();
        getter.join().unwrap();
        balanced(&memmap);
    });
}

#[test]
fn a_held_reference_keeps_its_chunk_through_two_reclaims() {
    explore(|| {
        let memmap = attach();
        let ctx = MaySleep::claim();
        let page = memmap.get(&ctx, pfn(0)).unwrap();
        let reclaimer = thread::spawn({
            let memmap = Arc::clone(&memmap);
            move || memmap.reclaim(&MaySleep::claim(), 0).unwrap()
        });
        let mine = memmap.reclaim(&ctx, 0).unwrap();
        let theirs = reclaimer.join().unwrap();
        assert_eq!(
            mine.chunks + theirs.chunks,
            0,
            "a referenced chunk was reclaimed"
        );
        assert_eq!(page.references(), 1);
        drop(page);
        balanced(&memmap);
    });
}
