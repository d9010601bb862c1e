//! Those who must not wait, while others hold the locks.

use alloc::boxed::Box;
use alloc::sync::Arc;

use pageless_fault::shootdown::CpuId;
use pageless_fault::sim::{SimConfig, SimMachine, SimVspace};
use pageless_fault::sync::atomic::{AtomicU64, Ordering};
use pageless_fault::{MaySleep, Protection, Vspace, WindowLen, WindowOffset};
use pageless_pfn::{FrameCount, Pfn, PfnRange};

use super::{AllocAreaError, AreaSpace, MapAreaError};
use crate::area::{AreaKind, AreaState, Release, Unreachable, VmallocConfig};
use crate::frames::{Context, Order};

/// Counts how often something was released.
struct Counted(Arc<AtomicU64>);

impl Release for Counted {
    fn release(self: Box<Self>, _: &Unreachable<'_>, _: &MaySleep) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

struct World {
    areas: AreaSpace<SimVspace>,
    released: Arc<AtomicU64>,
    run: PfnRange,
}

impl World {
    fn map(&self, context: Context<'_>) -> Result<pageless_fault::VirtAddr, MapAreaError> {
        self.areas.map_runs(
            context,
            self.run.count(),
            [self.run],
            Protection::Read,
            AreaKind::Map,
            Box::new(Counted(Arc::clone(&self.released))),
        )
    }

    fn released(&self) -> u64 {
        self.released.load(Ordering::Relaxed)
    }

    /// Whatever was put off is done; all that is left is what is in use.
    fn settled(&self, ctx: &MaySleep, in_use: usize) {
        self.areas.purge(ctx).unwrap();
        self.areas.self_check().unwrap();
        assert_eq!(self.areas.areas().len(), in_use);
        assert!(self.areas.deferred.is_empty());
        assert_eq!(self.areas.counters().lazy_pages, 0);
    }
}

fn on_a_machine(test: impl FnOnce(&World, &MaySleep)) {
    let machine = SimMachine::new(SimConfig::default()).unwrap();
    let ram = machine.ram(FrameCount::new(8)).unwrap();
    let run = pageless_fault::FrameMemory::frames(&ram);
    machine
        .run_on(CpuId::new(0), |_| {
            let len = WindowLen::covering(2 << 20).unwrap();
            let space = machine.reserve_vspace(len).unwrap();
            let world = World {
                areas: AreaSpace::new(space, VmallocConfig::for_cpus(1)),
                released: Arc::new(AtomicU64::new(0)),
                run,
            };
            test(&world, &MaySleep::claim());
        })
        .unwrap();
    assert_eq!(machine.stale_hits(), 0);
}

#[test]
fn an_unmapping_whose_books_are_in_use_is_done_by_the_next_sleeper() {
    on_a_machine(|world, ctx| {
        let at = world.map(Context::MaySleep(ctx)).unwrap();
        {
            let _held = world.areas.nodes[0].areas.lock();
            for _ in 0..2 {
                let _backlog = world.areas.unmap_at_atomic(at).unwrap();
            }
        }
        assert_eq!(world.areas.counters().deferred, 2);
        assert_eq!(world.areas.find(at).unwrap().state, AreaState::Busy);
        world.areas.self_check().unwrap();
        assert_eq!(world.released(), 0);
        world.settled(ctx, 0);
        assert_eq!(world.released(), 1);
        // The second time it was not there any more.
        assert_eq!(world.areas.counters().not_found, 1);
    });
}

#[test]
fn what_is_unmapped_while_the_list_is_in_use_is_put_there_later() {
    on_a_machine(|world, ctx| {
        let at = world.map(Context::MaySleep(ctx)).unwrap();
        let page = world.areas.page_of(at).unwrap();
        let areas = &world.areas;
        // The first half of an unmapping, and the second while somebody else has the lock.
        let (span, holds) = {
            let mut books = areas.nodes[0].areas.lock();
            let record = books.records.get_mut(&page).unwrap();
            let state = core::mem::replace(&mut record.state, super::State::Leaving);
            match state {
                super::State::Busy(holds) => (record.span, holds),
                other => panic!("{other:?}"),
            }
        };
        let doomed = super::Doomed::Area { span, holds };
        let range = span.head(8).range();
        let unflushed = Vspace::take_down(&areas.space, range, doomed).unwrap();
        {
            let _held = areas.nodes[0].areas.lock();
            areas.bury(Context::Atomic, span, unflushed);
        }
        areas.self_check().unwrap();
        world.settled(ctx, 0);
        assert_eq!(world.released(), 1);
    });
}

#[test]
fn addresses_are_not_waited_for_and_not_lost() {
    on_a_machine(|world, ctx| {
        let areas = &world.areas;
        {
            let _pools = areas.nodes[0].pools.lock();
            let _free = areas.free.lock();
            let contended = Err(MapAreaError::Alloc(AllocAreaError::Contended));
            assert_eq!(world.map(Context::Atomic), contended);
        }
        // What was to be mapped is released where one may sleep.
        assert_eq!(world.released(), 0);
        {
            let _areas = areas.nodes[0].areas.lock();
            let contended = Err(MapAreaError::Alloc(AllocAreaError::Contended));
            assert_eq!(world.map(Context::Atomic), contended);
        }
        areas.self_check().unwrap();
        world.settled(ctx, 0);
        assert_eq!(world.released(), 2);
        let at = world.map(Context::Atomic).unwrap();
        let _backlog = areas.unmap_at_atomic(at).unwrap();
        assert_eq!(areas.counters().purges, 0);
        world.settled(ctx, 0);
        assert_eq!(world.released(), 3);
    });
}

#[test]
fn an_area_in_hand_is_mapped_piece_by_piece_and_given_back_without_a_flush_if_it_never_was() {
    on_a_machine(|world, ctx| {
        let areas = &world.areas;
        let context = Context::MaySleep(ctx);
        let pages = FrameCount::new(16);
        let align = Order::try_new(4).unwrap();
        let area = areas.alloc(context, pages, align, AreaKind::Pair).unwrap();
        assert!(area.range().start().get().is_multiple_of(16 * 4096));
        let owned = Box::new(Counted(Arc::clone(&world.released)));
        areas.unmap(context, area, owned).unwrap();
        assert_eq!((world.released(), areas.counters().purges), (1, 0));
        assert!(areas.areas().is_empty());
        areas.self_check().unwrap();

        let mut area = areas.alloc(context, pages, align, AreaKind::Pair).unwrap();
        let other = PfnRange::try_new(world.run.start(), FrameCount::new(3)).unwrap();
        for run in [world.run, other] {
            areas
                .map(context, &mut area, [run], Protection::Read)
                .unwrap();
        }
        let third: Pfn = world.run.nth(2).unwrap();
        let at = areas.address(&area).checked_add(10 * 4096).unwrap();
        let offset = Vspace::offset_of(&areas.space, at).unwrap();
        let shown = Vspace::translate(&areas.space, offset);
        assert_eq!(shown, Some(third));
        let owned = Box::new(Counted(Arc::clone(&world.released)));
        areas.unmap(context, area, owned).unwrap();
        assert_eq!((world.released(), areas.counters().lazy_pages), (1, 17));
        world.settled(ctx, 0);
        assert_eq!(world.released(), 2);
        assert_eq!(areas.counters().purged_pages, 11);
    });
}

#[test]
fn what_is_mapped_when_a_panic_comes_is_not_given_back() {
    /// Gives back by being dropped, as references do.
    struct Given(Arc<AtomicU64>);

    impl Drop for Given {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    on_a_machine(|world, ctx| {
        let given = Arc::clone(&world.released);
        let too_many = world.run.count().checked_add(FrameCount::new(1)).unwrap();
        let panicked = std::panic::catch_unwind(core::panic::AssertUnwindSafe(|| {
            world.areas.map_runs(
                Context::MaySleep(ctx),
                too_many,
                [world.run],
                Protection::Read,
                AreaKind::Map,
                Box::new(alloc::vec![Given(given)]),
            )
        }));
        assert!(panicked.is_err());
        let shown = Vspace::translate(&world.areas.space, WindowOffset::new(0));
        assert_eq!((shown, world.released()), (Some(world.run.start()), 0));
    });
}

#[test]
fn addresses_that_were_lent_come_back_only_after_a_shootdown() {
    on_a_machine(|world, ctx| {
        let areas = &world.areas;
        let context = Context::MaySleep(ctx);
        let pages = FrameCount::new(6);
        let area = areas.alloc(context, pages, Order::ZERO, AreaKind::Pair);
        let mut area = area.unwrap();
        let lent = area.lend();
        // Others map and unmap there, and flush where they are.
        let one = PfnRange::try_new(world.run.start(), FrameCount::new(1)).unwrap();
        areas
            .space
            .map(lent.start(), one, Protection::Read)
            .unwrap();
        areas.space.clear(lent).unwrap();
        let owned = Box::new(Counted(Arc::clone(&world.released)));
        areas.unmap(context, area, owned).unwrap();
        assert_eq!((world.released(), areas.counters().lazy_pages), (0, 7));
        world.settled(ctx, 0);
        assert_eq!(world.released(), 1);
        assert_eq!(areas.counters().purged_pages, 6);
    });
}

#[test]
fn a_purge_by_name_looks_into_the_list_and_not_at_the_hint() {
    on_a_machine(|world, ctx| {
        let areas = &world.areas;
        let at = world.map(Context::MaySleep(ctx)).unwrap();
        areas.unmap_at(ctx, at).unwrap();
        // At the cap it would be left to the next call.
        areas.purge_to(ctx, super::Depth::Quarter).unwrap();
        assert_eq!((areas.counters().flushed_areas, world.released()), (1, 0));
        // Somebody else's hint, of before.
        areas.nodes[0].flushed.store(0, Ordering::Relaxed);
        areas.purge(ctx).unwrap();
        assert_eq!(world.released(), 1);
        world.settled(ctx, 0);
    });
}
