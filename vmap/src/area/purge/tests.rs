//! What a purge proves, and what it does not.

use alloc::boxed::Box;

use pageless_fault::shootdown::CpuId;
use pageless_fault::sim::{SimConfig, SimMachine, SimVspace};
use pageless_fault::{FrameMemory, MaySleep, Protection, WindowLen};
use pageless_pfn::{FrameCount, PfnRange};

use crate::area::space::AreaSpace;
use crate::area::{RamMapping, VmallocConfig};

struct World {
    areas: AreaSpace<SimVspace>,
    run: PfnRange,
}

impl World {
    fn map(&self, ctx: &MaySleep) -> RamMapping {
        let mapped = self
            .areas
            .map_ram(ctx, self.run.count(), [self.run], Protection::Read);
        mapped.unwrap()
    }
}

fn on_a_machine(test: impl FnOnce(&World, &MaySleep)) {
    let machine = SimMachine::new(SimConfig::default()).unwrap();
    let ram = machine.ram(FrameCount::new(4)).unwrap();
    machine
        .run_on(CpuId::new(0), |_| {
            let len = WindowLen::covering(8 << 20).unwrap();
            let space = machine.reserve_vspace(len).unwrap();
            let world = World {
                areas: AreaSpace::new(space, VmallocConfig::for_cpus(1)),
                run: ram.frames(),
            };
            test(&world, &MaySleep::claim());
        })
        .unwrap();
}

#[test]
fn what_is_unmapped_after_a_purge_began_and_is_in_it_goes_by_its_proof() {
    on_a_machine(|world, ctx| {
        let areas = &world.areas;
        let mapping = world.map(ctx);
        // A purge begins, somebody unmaps, the purge looks and then fails.
        let number = areas.purge.begin();
        let aliased = areas.unmap_ram(mapping, Box::new(7)).unwrap();
        assert_eq!(areas.ram.dirty_runs(number).len(), 1);
        areas.purge.end(number, false);
        // One that has nothing to do with it.
        areas.purge(ctx).unwrap();
        let aliased = areas.unaliased(aliased).unwrap_err();
        assert!(areas.unaliased(aliased).is_err(), "proved by another purge");
    });
}

#[test]
fn what_is_unmapped_after_a_purge_looked_goes_by_the_next_ones_proof() {
    on_a_machine(|world, ctx| {
        let areas = &world.areas;
        let mapping = world.map(ctx);
        let number = areas.purge.begin();
        assert!(areas.ram.dirty_runs(number).is_empty());
        let aliased = areas.unmap_ram(mapping, Box::new(7)).unwrap();
        areas.purge.end(number, true);
        let aliased = areas.unaliased(aliased).unwrap_err();
        areas.purge(ctx).unwrap();
        assert_eq!(*areas.unaliased(aliased).unwrap(), 7);
    });
}

#[test]
fn a_purge_that_never_ended_proves_nothing() {
    on_a_machine(|world, ctx| {
        let areas = &world.areas;
        let mapping = world.map(ctx);
        let aliased = areas.unmap_ram(mapping, Box::new(7)).unwrap();
        let number = areas.purge.begin();
        assert_eq!(areas.ram.dirty_runs(number).len(), 1);
        areas.purge(ctx).unwrap();
        assert!(areas.unaliased(aliased).is_err());
    });
}
