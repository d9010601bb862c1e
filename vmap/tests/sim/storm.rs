//! Hazard: a CPU reaches a frame through a translation of something that has been unmapped since: by `vunmap`, by `vfree`, of a small
//! mapping, of a block, of a window, from wherever that may be done.
//!
//! Two hundred thousand operations here, and `PAGELESS_SEEDS` times as many where it is set.

use alloc::boxed::Box;

use pageless_fault::shootdown::PolicyKind;
use pageless_fault::sim::schedule::Schedule;
use pageless_fault::sim::{Body, Cpu, ScheduledBody, SimConfig};

use crate::slots::Slot;
use crate::worker::{Kind, SLOTS, Tally, Worker};
use crate::world::{Setup, World};

/// The policies whose word can be taken on a machine of several CPUs.
pub(crate) fn safe() -> impl Iterator<Item = PolicyKind> {
    let all = PolicyKind::ALL.iter().copied();
    all.filter(|policy| policy.is_safe() && *policy != PolicyKind::LocalOnly)
}

/// How many times as many.
pub(crate) fn times() -> u64 {
    std::env::var("PAGELESS_SEEDS").map_or(1, |times| times.parse().unwrap())
}

fn slots(cpus: u16) -> Vec<Slot> {
    (0..usize::from(cpus) * SLOTS)
        .map(|_| Slot::default())
        .collect()
}

fn work(world: &World, slots: &[Slot], tally: &Tally, cpu: &Cpu, turns: u64, seed: u64) {
    let mut worker = Worker::new(world, slots, tally, cpu, seed);
    worker.work(turns);
    worker.end();
}

/// One run of so many turns on all CPUs together, interleaved by `schedule`.
pub(crate) fn scheduled(setup: &Setup, schedule: &Schedule, turns: u64) -> (World, Tally) {
    let world = World::new(setup);
    let tally = Tally::default();
    let cpus = setup.machine.cpus;
    let slots = slots(cpus);
    world.pages.always_fall_back(true);
    world.machine.lose_interrupts(setup.lost);
    let each = turns / u64::from(cpus);
    let body = |_| -> ScheduledBody<'_> {
        Box::new(|cpu| work(&world, &slots, &tally, cpu, each, setup.machine.seed))
    };
    let bodies = (0..cpus).map(body).collect();
    if let Err(failure) = world.machine.run_scheduled(schedule, bodies) {
        panic!("{:?} on {cpus} CPUs: {failure}", setup.machine.policy);
    }
    drop(slots);
    (world, tally)
}

/// The same with a thread for each CPU.
fn threads(setup: &Setup, turns: u64) -> (World, Tally) {
    let world = World::new(setup);
    let tally = Tally::default();
    let cpus = setup.machine.cpus;
    let slots = slots(cpus);
    world.pages.always_fall_back(true);
    let each = turns / u64::from(cpus);
    let body = |_| -> Body<'_> {
        Box::new(|cpu| work(&world, &slots, &tally, cpu, each, setup.machine.seed))
    };
    world
        .machine
        .run_threads((0..cpus).map(body).collect())
        .unwrap();
    drop(slots);
    (world, tally)
}

fn assert_nothing_stale(world: &World, tally: &Tally, of: &str) {
    let incidents = world.machine.incidents();
    assert!(
        world.machine.stale_hits() == 0 && world.machine.stale_walks() == 0,
        "{of}: {} stale hits, the first: {}",
        world.machine.stale_hits(),
        incidents[0]
    );
    assert_eq!(
        tally.wrong(),
        0,
        "{of}: what was read is not what was written"
    );
}

fn assert_clean(world: &World, tally: &Tally, of: &str) {
    assert_nothing_stale(world, tally, of);
    world.assert_nothing_remains();
}

fn tell(of: &str, all: &Tally, refused_most: u64) {
    let each: Vec<_> = Kind::ALL
        .iter()
        .map(|kind| format!("{kind:?} {}", all.unmapped(*kind)))
        .collect();
    println!(
        "{of}: {} operations, {} refused; {}",
        all.operations(),
        all.refused(),
        each.join(", ")
    );
    for kind in Kind::ALL {
        assert!(all.unmapped(kind) > 0, "{of}: {kind:?} never came about");
    }
    assert!(
        all.refused() * refused_most < all.operations(),
        "{of}: mostly refused"
    );
}

/// Turns of one run.
const RUN: u64 = 2_000;

fn storms(policy: PolicyKind) {
    let all = Tally::default();
    for cpus in [2, 4, 8, 64] {
        for seed in 0..times() {
            let of = format!("{} on {cpus} CPUs, seed {seed}", policy.name());
            let setup = Setup::new(cpus, policy, seed);
            let schedule = Schedule::random(seed).record_deviations(false);
            let (world, tally) = scheduled(&setup, &schedule, RUN);
            assert_clean(&world, &tally, &of);
            all.add(&tally);
        }
    }
    tell(policy.name(), &all, 3);
}

macro_rules! storms {
    ($($name:ident: $policy:ident;)*) => {
        $(#[test]
        fn $name() {
            storms(PolicyKind::$policy);
        })*

        #[test]
        fn no_safe_policy_is_left_out() {
            let weathered = [$(PolicyKind::$policy),*];
            assert_eq!(safe().collect::<Vec<_>>().len(), weathered.len());
            assert!(safe().all(|policy| weathered.contains(&policy)));
        }
    };
}

storms! {
    sync_ipi_leaves_nothing_stale: SyncIpi;
    concurrent_ipi_leaves_nothing_stale: ConcurrentIpi;
    early_ack_waited_for_leaves_nothing_stale: EarlyAck;
    coalescing_leaves_nothing_stale: Coalescing;
    idle_skip_leaves_nothing_stale: IdleSkip;
    kernel_range_leaves_nothing_stale: KernelRange;
    resident_leaves_nothing_stale: Resident;
    lazy_purge_leaves_nothing_stale: LazyPurge;
    sweep_leaves_nothing_stale: Sweep;
    flush_at_realloc_leaves_nothing_stale: AtRealloc;
    broadcast_leaves_nothing_stale: Broadcast;
}

/// What a shootdown covered that nobody can vouch for is lost: its addresses, its frames, its references. Nothing else is.
#[test]
fn a_lost_interrupt_costs_what_it_covered_and_leaves_nothing_stale() {
    let (mut quarantined, mut free) = (0, 0);
    let all = Tally::default();
    for seed in 0..8 * times() {
        for policy in [PolicyKind::ConcurrentIpi, PolicyKind::Resident] {
            let setup = Setup::new(4, policy, seed);
            let setup = Setup {
                machine: SimConfig {
                    // Soon enough for the scheduler not to call it a deadlock: it lets a task that only waits take 16 turns, of all its waits
                    // together.
                    patience: 8,
                    ..setup.machine
                },
                lost: 1 + seed as u32 % 3,
                ..setup
            };
            let schedule = Schedule::random(seed).record_deviations(false);
            let (world, tally) = scheduled(&setup, &schedule, RUN);
            let of = format!("{} with lost interrupts, seed {seed}", policy.name());
            assert_nothing_stale(&world, &tally, &of);
            world.alone(|ctx| {
                world.areas.purge(ctx).unwrap();
                world.areas.self_check().unwrap();
                world.frames.self_check().unwrap();
                let counters = world.areas.counters();
                let left = world.frames.statistics().free().get();
                let out = setup.frames - left;
                assert!(
                    out <= counters.quarantined_pages,
                    "{out} frames are lost: {counters}"
                );
                quarantined += counters.quarantined_pages;
                free += left;
            });
            all.add(&tally);
        }
    }
    println!(
        "{} operations, {} refused; {quarantined} pages lost, {free} frames left",
        all.operations(),
        all.refused()
    );
    assert!(quarantined > 0, "no interrupt was lost");
}

#[test]
fn threads_leave_nothing_stale() {
    let all = Tally::default();
    let (turns, most) = if cfg!(miri) { (40, 2) } else { (2_000, 8) };
    for policy in safe() {
        for cpus in [2, 4, 8].into_iter().filter(|cpus| *cpus <= most) {
            for seed in 0..times() {
                let of = format!("{} on {cpus} threads, seed {seed}", policy.name());
                let (world, tally) = threads(&Setup::new(cpus, policy, seed), turns);
                assert_clean(&world, &tally, &of);
                all.add(&tally);
            }
        }
        if cfg!(miri) {
            // Interpreting is slow: a look at races, not at every kind of unmapping.
            return;
        }
    }
    tell("threads", &all, 3);
}
