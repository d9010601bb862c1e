//! Hazard: two CPUs work on one thing, and one of them comes at the worst moment. Every schedule that deviates from the default one in one
//! place, or in as many as `PAGELESS_BOUND` says.

use alloc::boxed::Box;
use alloc::rc::Rc;
use core::sync::atomic::{AtomicU32, Ordering};

use pageless_fault::shootdown::{PolicyKind, Processor};
use pageless_fault::sim::schedule::{Program, explore};
use pageless_fault::sim::{Cpu, ScheduledBody, SimConfig, Speculation};
use pageless_fault::{FrameMemory, MaySleep, Protection, VirtAddr, Vspace};
use pageless_pfn::{FrameCount, Pfn, PfnFlags, PfnT};
use pageless_vmap::area::AreaKind;
use pageless_vmap::frames::{Context, Gfp, Order, PageBlock};

use crate::slots::{Lease, Slot};
use crate::world::{Returned, Setup, World};

/// Schedules of one scene, at most.
const MOST: u64 = 1_000_000;

/// A machine that does nothing unasked: what happens is the schedule's doing.
fn quiet(cpus: u16) -> Setup {
    let setup = Setup::new(cpus, PolicyKind::ConcurrentIpi, 0);
    Setup {
        machine: SimConfig {
            speculation: Speculation::Off,
            nmi_one_in: 0,
            tick_every: 0,
            ..setup.machine
        },
        ..setup
    }
}

/// What the CPUs of a scene share.
struct Scene {
    world: World,
    slots: [Slot; 2],
    /// What has been prepared, by number.
    addresses: Vec<VirtAddr>,
    pages: Vec<Pfn>,
    stage: AtomicU32,
}

type Role = fn(&Scene, &Cpu, &MaySleep);

impl Scene {
    /// Fills a frame, maps it, and says where.
    fn vmalloc(&self, context: Context<'_>, token: u64) -> Option<VirtAddr> {
        let gfp = match context {
            Context::MaySleep(ctx) => Gfp::kernel(ctx),
            Context::Atomic => Gfp::atomic(),
        };
        let block = self.world.frames.alloc(&gfp, Order::ZERO).ok()?;
        self.write(block.pfn(), token);
        let runs = [block.frames()];
        let owned = Box::new(Returned {
            frames: alloc::sync::Arc::clone(&self.world.frames),
            blocks: vec![block],
        });
        let mapped = self.world.vmalloc.map_owned(
            context,
            FrameCount::new(1),
            runs,
            Protection::ReadWrite,
            AreaKind::Alloc,
            owned,
        );
        mapped.ok()
    }

    fn write(&self, pfn: Pfn, token: u64) {
        let memory = self.world.frames.memory();
        memory.write(pfn.phys(), &token.to_le_bytes()).unwrap();
    }

    fn expect(&self, address: VirtAddr, token: u64) {
        let space = self.world.areas.space();
        let mut seen = [0; 8];
        space
            .read(space.offset_of(address).unwrap(), &mut seen)
            .unwrap();
        assert_eq!(u64::from_le_bytes(seen), token);
    }

    fn publish(&self, n: usize, address: VirtAddr, token: u64) {
        let at = self.world.areas.space().offset_of(address).unwrap();
        self.slots[n].publish(
            Lease {
                at,
                pages: 1,
                token,
            },
            None,
        );
    }

    /// Reads whatever is published.
    fn look(&self, n: usize) {
        if let Some(reader) = self.slots[n].enter() {
            let address = self.world.areas.space().address(reader.lease.at);
            self.expect(address, reader.lease.token);
        }
    }

    fn wait(&self, cpu: &Cpu, stage: u32) {
        let mut turn = 0;
        while self.stage.load(Ordering::Relaxed) < stage {
            cpu.relax(turn);
            turn += 1;
        }
    }
}

/// Plays the roles, the `n`-th on CPU `n`, under every such schedule.
fn play(prepare: fn(&mut Scene, &MaySleep), roles: &[Role]) {
    let make = || -> Program<'_> {
        let world = World::new(&quiet(roles.len() as u16));
        let mut scene = Scene {
            world,
            slots: Default::default(),
            addresses: Vec::new(),
            pages: Vec::new(),
            stage: AtomicU32::new(0),
        };
        scene.world.pages.always_fall_back(true);
        let machine = scene.world.machine.clone();
        let first = pageless_fault::shootdown::CpuId::new(0);
        machine
            .run_on(first, |_| prepare(&mut scene, &MaySleep::claim()))
            .unwrap();
        let scene = Rc::new(scene);
        let bodies = roles
            .iter()
            .map(|role| -> ScheduledBody<'_> {
                let scene = Rc::clone(&scene);
                Box::new(move |cpu| role(&scene, cpu, &MaySleep::claim()))
            })
            .collect();
        let tasks = machine.tasks(bodies).unwrap();
        let check = move || {
            let incidents = scene.world.machine.incidents();
            assert!(incidents.is_empty(), "{}", incidents[0]);
            scene.world.assert_nothing_remains();
        };
        (tasks, check).into()
    };
    let bound = std::env::var("PAGELESS_BOUND").map_or(1, |bound| bound.parse().unwrap());
    let explored = explore(bound, MOST, make);
    if let Some(failure) = explored.failure {
        panic!("{failure}");
    }
    println!("{} schedules", explored.schedules);
    assert!(explored.complete, "and there are more");
}

#[test]
fn a_purge_meets_mapping_unmapping_and_freeing_with_interrupts_off() {
    play(
        |scene, ctx| {
            for token in [7, 8] {
                let address = scene.vmalloc(Context::MaySleep(ctx), token).unwrap();
                scene.addresses.push(address);
            }
        },
        &[
            |scene, _, ctx| {
                scene.world.areas.purge(ctx).unwrap();
                scene.world.areas.purge(ctx).unwrap();
            },
            |scene, _, ctx| {
                scene.expect(scene.addresses[0], 7);
                scene.world.areas.unmap_at(ctx, scene.addresses[0]).unwrap();
                let address = scene.vmalloc(Context::MaySleep(ctx), 9).unwrap();
                scene.expect(address, 9);
                scene.world.areas.unmap_at(ctx, address).unwrap();
            },
            |scene, cpu, _| {
                scene.expect(scene.addresses[1], 8);
                cpu.with_interrupts_off(|| {
                    let unmapped = scene.world.areas.unmap_at_atomic(scene.addresses[1]);
                    let _backlog = unmapped.unwrap();
                    // Nobody may be waited for here; that there is nothing is an answer.
                    if let Some(address) = scene.vmalloc(Context::Atomic, 10) {
                        scene.expect(address, 10);
                        let _backlog = scene.world.areas.unmap_at_atomic(address).unwrap();
                    }
                });
            },
        ],
    );
}

/// An address goes from one user to the next, and a CPU that has read it for the first reads it for the second.
#[test]
fn two_purges_meet_and_a_reader_sees_what_is_there_now() {
    play(
        |scene, ctx| {
            let address = scene.vmalloc(Context::MaySleep(ctx), 7).unwrap();
            scene.addresses.push(address);
            scene.publish(0, address, 7);
        },
        &[
            |scene, cpu, ctx| {
                scene.slots[0].take_back(cpu);
                scene.world.areas.unmap_at(ctx, scene.addresses[0]).unwrap();
                scene.world.areas.purge(ctx).unwrap();
                let again = scene.vmalloc(Context::MaySleep(ctx), 9).unwrap();
                scene.publish(1, again, 9);
                scene.stage.store(1, Ordering::Relaxed);
                scene.wait(cpu, 2);
                scene.slots[1].take_back(cpu);
                scene.world.areas.unmap_at(ctx, again).unwrap();
            },
            |scene, cpu, _| {
                scene.look(0);
                scene.look(1);
                scene.wait(cpu, 1);
                scene.look(1);
                scene.stage.store(2, Ordering::Relaxed);
            },
            |scene, _, ctx| {
                scene.world.areas.purge(ctx).unwrap();
            },
        ],
    );
}

/// Frames of a small mapping are used again as soon as their owner gets them back, whichever purge it was that covered them.
#[test]
fn a_small_mapping_is_taken_down_while_others_purge() {
    play(
        |scene, ctx| {
            // Its block, so that the scene is about pages of it.
            let block = scene
                .world
                .frames
                .alloc(&Gfp::kernel(ctx), Order::ZERO)
                .unwrap();
            scene.pages.push(block.pfn());
            round(scene, ctx, block);
        },
        &[
            |scene, cpu, ctx| {
                let gfp = Gfp::kernel(ctx);
                let block = scene.world.frames.alloc(&gfp, Order::ZERO).unwrap();
                scene.write(block.pfn(), 7);
                let list = [PfnT::new(block.pfn(), PfnFlags::empty())];
                let vmalloc = &scene.world.vmalloc;
                let mapping = vmalloc
                    .vm_map_ram(ctx, &list, Protection::ReadWrite)
                    .unwrap();
                scene.publish(0, mapping.address(), 7);
                scene.stage.store(1, Ordering::Relaxed);
                scene.wait(cpu, 2);
                scene.slots[0].take_back(cpu);
                let mut aliased = vmalloc.vm_unmap_ram(mapping, block).unwrap();
                let block = loop {
                    match vmalloc.unaliased(aliased) {
                        Ok(block) => break block,
                        Err(still) => aliased = still,
                    }
                    vmalloc.vm_unmap_aliases(ctx).unwrap();
                };
                // From here on the frame is somebody else's.
                scene.world.frames.free(block);
                let address = scene.vmalloc(Context::MaySleep(ctx), 9).unwrap();
                scene.publish(1, address, 9);
                scene.stage.store(3, Ordering::Relaxed);
                scene.wait(cpu, 4);
                scene.slots[1].take_back(cpu);
                scene.world.areas.unmap_at(ctx, address).unwrap();
            },
            |scene, cpu, _| {
                scene.wait(cpu, 1);
                scene.look(0);
                scene.stage.store(2, Ordering::Relaxed);
                scene.look(0);
                scene.wait(cpu, 3);
                scene.look(1);
                scene.stage.store(4, Ordering::Relaxed);
            },
            |scene, _, ctx| {
                scene.world.areas.purge(ctx).unwrap();
            },
        ],
    );
}

/// Maps a frame and takes it down again, for good.
fn round(scene: &Scene, ctx: &MaySleep, block: PageBlock) {
    let vmalloc = &scene.world.vmalloc;
    let list = [PfnT::new(block.pfn(), PfnFlags::empty())];
    let mapping = vmalloc
        .vm_map_ram(ctx, &list, Protection::ReadWrite)
        .unwrap();
    let aliased = vmalloc.vm_unmap_ram(mapping, block).unwrap();
    vmalloc.vm_unmap_aliases(ctx).unwrap();
    scene.world.frames.free(vmalloc.unaliased(aliased).unwrap());
}

/// A block of two pages, each with its number in it: head and tail.
fn block(scene: &Scene, ctx: &MaySleep) -> [Pfn; 2] {
    let gfp = Gfp::kernel(ctx).virtual_fallback();
    let page = scene
        .world
        .pages
        .alloc(&gfp, Order::try_new(1).unwrap())
        .unwrap();
    let both = [0, 1].map(|n| page.nth(n).unwrap());
    scene.write(both[0], 70);
    scene.write(both[1], 71);
    let _kept = page.into_raw();
    both
}

/// Whoever finds a block through one of its pages finds a whole one, and has it for as long as he wants.
fn look_up(scene: &Scene, page: Pfn, content: Option<u64>) {
    let Some(found) = scene.world.pages.get_page(page) else {
        return;
    };
    let whole = found.order().get() == 1;
    assert_eq!(found.is_virtual(), whole);
    let mut seen = [0; 8];
    let n = scene.world.pages.compound_index(page).unwrap();
    assert_eq!(found.nth(n), Some(page));
    found.read(n * 4096, &mut seen).unwrap();
    if let Some(content) = content {
        assert_eq!(u64::from_le_bytes(seen), content);
    }
    assert_eq!(found.order().get() == 1, whole, "split under a reference");
}

#[test]
fn whoever_looks_up_a_block_that_is_being_made_finds_all_of_it_or_nothing() {
    play(
        |scene, ctx| {
            // The frames that come next.
            let both = block(scene, ctx);
            scene.pages.extend(both);
            drop(scene.world.pages.assume(both[0]));
            scene.world.areas.purge(ctx).unwrap();
        },
        &[
            |scene, _, ctx| {
                let both = block(scene, ctx);
                scene.world.pages.assume(both[0]).unwrap().put(ctx);
            },
            |scene, _, _| {
                look_up(scene, scene.pages[1], None);
                look_up(scene, scene.pages[0], None);
            },
        ],
    );
}

#[test]
fn whoever_looks_up_a_block_that_is_being_split_has_it_or_its_page() {
    play(
        |scene, ctx| {
            let both = block(scene, ctx);
            scene.pages.extend(both);
        },
        &[
            |scene, _, ctx| {
                let page = scene.world.pages.assume(scene.pages[0]).unwrap();
                if let Ok(singles) = scene.world.pages.split_page(ctx, page) {
                    singles.into_iter().for_each(|page| page.put(ctx));
                }
            },
            |scene, _, _| {
                look_up(scene, scene.pages[1], Some(71));
                look_up(scene, scene.pages[0], Some(70));
            },
        ],
    );
}
