//! The modelled machine only: with interrupts off, a shootdown that others wait for could wait for ever.

use pageless_fault::shootdown::CpuId;
use pageless_fault::sim::{SimConfig, SimMachine};
use pageless_fault::{FrameMemory, MaySleep, Protection, WindowLen};
use pageless_pfn::FrameCount;
use pageless_vmap::area::{AreaKind, NoDescriptors, Vmalloc};
use pageless_vmap::frames::Context;

use crate::rig::{small, special};

#[test]
fn with_interrupts_off_areas_come_and_go_and_nothing_is_sent() {
    let machine = SimMachine::new(SimConfig::default()).unwrap();
    let ram = machine.ram(FrameCount::new(64)).unwrap();
    let frames: Vec<_> = ram.frames().iter().map(special).collect();
    let run = ram.frames().slice(0, FrameCount::new(5)).unwrap();
    machine
        .run_on(CpuId::new(1), |cpu| {
            let ctx = MaySleep::claim();
            let space = machine
                .reserve_vspace(WindowLen::covering(4 << 20).unwrap())
                .unwrap();
            // A cap that the second area passes.
            let vm = Vmalloc::new(space, NoDescriptors, small(8));
            let areas: Vec<_> = (0..10)
                .map(|_| vm.vmap(&ctx, &frames[..5], Protection::Read).unwrap())
                .collect();
            let sent = machine.counters().sent;
            cpu.with_interrupts_off(|| {
                for at in areas {
                    let _backlog = vm.vunmap_atomic(at).unwrap();
                    let at = vm
                        .map_owned(
                            Context::Atomic,
                            run.count(),
                            [run],
                            Protection::Read,
                            AreaKind::Map,
                            Box::new(()),
                        )
                        .unwrap();
                    let _backlog = vm.vunmap_atomic(at).unwrap();
                }
            });
            assert_eq!(machine.counters().sent, sent);
            assert_eq!(vm.counters().lazy_pages, 20 * 6);
            vm.vmap(&ctx, &frames[..1], Protection::Read).unwrap();
            assert!(machine.counters().sent > sent || machine.counters().skipped > 0);
            assert_eq!(vm.counters().lazy_pages, 0);
            vm.self_check().unwrap();
        })
        .unwrap();
}
