//! The world of one test: a machine, memmaps on it, and a program for its CPUs.

use alloc::sync::Arc;
use core::sync::atomic::{AtomicU32, Ordering};

use pageless_fault::shootdown::{CpuId, PolicyKind, Processor};
use pageless_fault::sim::schedule::{Failure, FailureKind, Program, Schedule, shrink};
use pageless_fault::sim::{ScheduledBody, SimConfig, SimMachine, SimWindow, Speculation};
use pageless_fault::{LEAF_TABLE_BYTES, MaySleep};
use pageless_memmap::{Budget, ChunkSize, Config, GetError, Memmap, PageRef};
use pageless_pfn::{FrameCount, PagedPfn, Pfn, PfnFlags, PfnRange, PfnT};

/// A memmap of the modelled machine.
pub(crate) type SimMemmap = Memmap<SimWindow>;

/// Where the test device's frames begin.
const BASE: u64 = 1 << 20;
/// Chunks of 4 KiB that one leaf table maps.
pub(crate) const CHUNKS_OF_A_TABLE: u64 = 512;
/// Bytes of the smallest chunk.
pub(crate) const CHUNK: u64 = 4096;

/// A machine of `cpus` CPUs that does unasked whatever it may: speculation, interrupts in between, ticks often, mailboxes
/// for one.
pub(crate) fn config(cpus: u16, policy: PolicyKind) -> SimConfig {
    SimConfig {
        cpus,
        frames: 64,
        policy,
        lazy_most: 2,
        speculation: Speculation::WithoutAccessed,
        speculate_one_in: 8,
        nmi_one_in: 4,
        tick_every: 16,
        mailbox: 1,
        patience: 20_000,
        ..SimConfig::default()
    }
}

/// The policies whose word can be taken on a machine of several CPUs.
pub(crate) fn safe() -> impl Iterator<Item = PolicyKind> {
    let all = PolicyKind::ALL.iter().copied();
    all.filter(|policy| policy.is_safe() && *policy != PolicyKind::LocalOnly)
}

/// A memmap over so many leaf tables of small chunks, with a budget of `chunks` chunks in `tables` tables.
pub(crate) fn attach(machine: &SimMachine, chunks: u64, tables: u64) -> Arc<SimMemmap> {
    attach_with_reserve(machine, chunks, tables, 0)
}

/// The same, with so many chunks of the budget (each with a table) set aside for lookups that cannot wait.
pub(crate) fn attach_with_reserve(
    machine: &SimMachine,
    chunks: u64,
    tables: u64,
    reserve_chunks: usize,
) -> Arc<SimMemmap> {
    let first = Pfn::try_new(BASE).unwrap();
    let frames = FrameCount::new(8 * CHUNKS_OF_A_TABLE * ChunkSize::MIN.descriptors());
    let bytes = chunks * CHUNK + tables * LEAF_TABLE_BYTES;
    let config = Config {
        chunk: ChunkSize::MIN,
        budget: Budget::with_watermarks(bytes, bytes, bytes, ChunkSize::MIN).unwrap(),
        reserve_chunks,
        fill_ahead: 1,
    };
    let range = PfnRange::try_new(first, frames).unwrap();
    Arc::new(Memmap::attach(machine, range, config).unwrap())
}

/// The first pfn of a chunk.
pub(crate) fn chunk(n: u64) -> PagedPfn {
    within(n, 0)
}

/// Pfn `k` of chunk `n`.
pub(crate) fn within(n: u64, k: u64) -> PagedPfn {
    let pfn = Pfn::try_new(BASE + n * ChunkSize::MIN.descriptors() + k).unwrap();
    PfnT::new(pfn, PfnFlags::DEV | PfnFlags::MAP)
        .paged()
        .unwrap()
}

/// A reference into chunk `n`.
pub(crate) fn pin<'m>(memmap: &'m SimMemmap, ctx: &MaySleep, n: u64) -> PageRef<'m, SimWindow> {
    memmap.get(ctx, chunk(n)).unwrap()
}

/// Makes chunk `n` present, and lets go of it.
pub(crate) fn touch(memmap: &SimMemmap, ctx: &MaySleep, n: u64) {
    drop(pin(memmap, ctx, n));
}

/// The same where others hold chunks of a small budget: reclaim looks at one after the other, and each of them may have been
/// held just then.
pub(crate) fn visit(memmap: &SimMemmap, ctx: &MaySleep, n: u64) {
    match memmap.get(ctx, chunk(n)) {
        Ok(_) | Err(GetError::BudgetPinned { .. }) => {}
        Err(error) => panic!("{error}"),
    }
}

/// Runs `f` on CPU `id` while nothing else runs.
pub(crate) fn on<T>(machine: &SimMachine, id: u16, f: impl FnOnce(&MaySleep) -> T) -> T {
    machine
        .run_on(CpuId::new(id), |_| f(&MaySleep::claim()))
        .unwrap()
}

/// How far the CPUs of a test have come together.
#[derive(Clone, Default)]
pub(crate) struct Stage(Arc<AtomicU32>);

impl Stage {
    pub(crate) fn reach(&self, stage: u32) {
        self.0.fetch_max(stage, Ordering::Relaxed);
    }

    /// One more CPU has come so far.
    pub(crate) fn count(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn now(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }

    /// Waits on `cpu`, which serves others meanwhile.
    pub(crate) fn wait(&self, cpu: &impl Processor, stage: u32) {
        while self.now() < stage {
            cpu.relax(0);
        }
    }
}

/// The bodies, the `n`-th on CPU `n`, and a check.
pub(crate) fn program<'a>(
    machine: &SimMachine,
    bodies: Vec<ScheduledBody<'a>>,
    check: impl FnOnce() + 'a,
) -> Program<'a> {
    (machine.tasks(bodies).unwrap(), check).into()
}

/// What must hold when all CPUs have come to rest.
pub(crate) fn assert_clean(machine: &SimMachine) {
    let incidents: Vec<String> = machine
        .incidents()
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(
        (machine.stale_hits(), machine.stale_walks()),
        (0, 0),
        "{}",
        incidents.join("\n")
    );
    let counters = machine.counters();
    assert_eq!(
        counters.sent,
        counters.received + counters.skipped + counters.deferred,
        "{counters:?}"
    );
}

/// The first failure of `make`'s program among so many seeds, as it was.
pub(crate) fn first_failure<'a>(
    seeds: u64,
    make: impl Fn() -> Program<'a>,
) -> Option<Box<Failure>> {
    (0..seeds).find_map(|seed| {
        Schedule::random(seed)
            .steps_at_most(300_000)
            .run(make())
            .err()
    })
}

/// Runs `make`'s program under `seeds` schedules; the environment variable `PAGELESS_SEEDS` says how many times as many.
///
/// # Panics
///
/// One of them failed: tells the shrunk trace.
pub(crate) fn over_seeds<'a>(of: &str, seeds: u64, make: impl Fn() -> Program<'a>) {
    let times = std::env::var("PAGELESS_SEEDS").map_or(1, |times| times.parse().unwrap());
    if let Some(failure) = first_failure(seeds * times, &make) {
        panic!("{of}: {}", told(failure, make));
    }
}

/// A failure with no deviation too many, for reading. One that is only that nothing ended would take too long to shrink.
pub(crate) fn told<'a>(failure: Box<Failure>, make: impl Fn() -> Program<'a>) -> Box<Failure> {
    match failure.kind {
        FailureKind::TooManySteps { .. } => failure,
        _ => shrink(failure, make).failure,
    }
}
