//! Hazard: a CPU touches a window that is another CPU's by now. A local flush is a proof only as long as nobody does, and the handler of a
//! non-maskable interrupt that looks where its CPU last was is somebody. Here it is made to, and the detector sees it.

use core::sync::atomic::{AtomicU32, Ordering};

use pageless_fault::shootdown::{PolicyKind, Processor};
use pageless_fault::sim::schedule::Schedule;
use pageless_fault::sim::{Cpu, ScheduledBody, SimConfig, Speculation};
use pageless_fault::{MaySleep, Protection};
use pageless_vmap::frames::{Gfp, Order};
use pageless_vmap::zsmalloc::MapPolicy;

use crate::world::{Setup, World};

/// Large enough that it has its frame for itself.
const OBJECT: usize = 4000;

/// Claims the window, maps an object of `tag` there, calls `meanwhile`, and gives everything back.
fn in_a_window(world: &World, ctx: &MaySleep, tag: u8, meanwhile: impl FnOnce()) {
    let handle = world.store.malloc(&Gfp::kernel(ctx), OBJECT).unwrap();
    world.store.write(&handle, &[tag; OBJECT]).unwrap();
    let window = world.windows.claim(ctx).unwrap();
    let mut window = window.with_policy(MapPolicy::Always);
    let mapping = window.map(&world.store, &handle, Protection::Read).unwrap();
    let mut seen = [0];
    mapping.read(0, &mut seen).unwrap();
    assert_eq!(seen, [tag]);
    meanwhile();
    mapping.unmap().unwrap();
    drop(window);
    world.store.free(handle).unwrap();
}

/// Has every CPU answer a shootdown of something else.
fn interrupt_all(world: &World, ctx: &MaySleep) {
    let gfp = Gfp::kernel(ctx).virtual_fallback();
    let order = Order::try_new(1).unwrap();
    world.pages.alloc(&gfp, order).unwrap().put(ctx);
    world.areas.purge(ctx).unwrap();
}

/// Stale hits, where CPU 0 goes somewhere else before it gives its window up, or not.
fn stale_hits(goes_elsewhere: bool) -> u64 {
    let setup = Setup::new(2, PolicyKind::ConcurrentIpi, 0);
    let world = World::new(&Setup {
        machine: SimConfig {
            speculation: Speculation::Off,
            nmi_one_in: 1,
            ..setup.machine
        },
        ..setup
    });
    world.pages.always_fall_back(true);
    let stage = AtomicU32::new(0);
    let wait = |cpu: &Cpu, until: u32| {
        let mut turn = 0;
        while stage.load(Ordering::Relaxed) < until {
            cpu.relax(turn);
            turn += 1;
        }
    };
    let first: ScheduledBody<'_> = Box::new(|cpu| {
        let ctx = MaySleep::claim();
        // Its object keeps its frame: what is freed below is the other's.
        let handle = world.store.malloc(&Gfp::kernel(&ctx), OBJECT).unwrap();
        let window = world.windows.claim(&ctx).unwrap();
        let mut window = window.with_policy(MapPolicy::Always);
        let mapping = window.map(&world.store, &handle, Protection::Read).unwrap();
        mapping.read(0, &mut [0]).unwrap();
        mapping.unmap().unwrap();
        if goes_elsewhere {
            // Reads nothing of the window any more: a word of a descriptor.
            let start = world.frames.memory();
            let pfn = pageless_fault::FrameMemory::frames(&**start).start();
            let page = pageless_pfn::PfnT::new(pfn, pageless_pfn::PfnFlags::empty());
            drop(world.pages.memmap().get(&ctx, page.paged().unwrap()));
        }
        drop(window);
        stage.store(1, Ordering::Relaxed);
        wait(cpu, 2);
        world.store.free(handle).unwrap();
    });
    let second: ScheduledBody<'_> = Box::new(|cpu| {
        let ctx = MaySleep::claim();
        wait(cpu, 1);
        in_a_window(&world, &ctx, 7, || interrupt_all(&world, &ctx));
        interrupt_all(&world, &ctx);
        stage.store(2, Ordering::Relaxed);
    });
    let ran = world
        .machine
        .run_scheduled(&Schedule::random(0).preempt_one_in(0), vec![first, second]);
    if let Err(failure) = ran {
        panic!("{failure}");
    }
    world.assert_nothing_remains();
    world.machine.stale_hits()
}

#[test]
fn whoever_gives_a_window_up_and_keeps_its_address_is_seen() {
    assert_eq!(stale_hits(true), 0);
    assert!(stale_hits(false) > 0, "the handler looked elsewhere");
}
