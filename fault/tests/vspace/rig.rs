//! The machines that the tests run on.

use pageless_fault::host::{HostFrames, HostRam, HostVspace};
use pageless_fault::shootdown::CpuId;
use pageless_fault::sim::{SimConfig, SimMachine, SimRam, SimVspace};
use pageless_fault::{FrameMemory, Vspace, WindowLen};
use pageless_pfn::{FrameCount, Pfn, PfnRange};

/// A machine with some memory and some address space.
pub(crate) trait Rig {
    type Memory: FrameMemory;
    type Space: Vspace;

    /// Runs `test` where the space can be used, with `frames` frames of memory.
    fn run(frames: u64, test: impl FnOnce(&Self::Memory, &Self::Space));
}

pub(crate) const LEN: u64 = 4 << 20;

fn len() -> WindowLen {
    WindowLen::covering(LEN).unwrap()
}

/// This process's own MMU.
pub(crate) struct Host;

impl Rig for Host {
    type Memory = HostRam;
    type Space = HostVspace;

    fn run(frames: u64, test: impl FnOnce(&HostRam, &HostVspace)) {
        let start = Pfn::try_new(0x1_0000).unwrap();
        let frames = PfnRange::try_new(start, FrameCount::new(frames)).unwrap();
        let ram = HostRam::new(frames).unwrap();
        let space = HostVspace::reserve(HostFrames::of_ram(&ram).unwrap(), len()).unwrap();
        test(&ram, &space);
    }
}

/// The modelled machine.
pub(crate) struct Sim;

impl Rig for Sim {
    type Memory = SimRam;
    type Space = SimVspace;

    fn run(frames: u64, test: impl FnOnce(&SimRam, &SimVspace)) {
        let machine = SimMachine::new(SimConfig::default()).unwrap();
        let ram = machine.ram(FrameCount::new(frames)).unwrap();
        machine
            .run_on(CpuId::new(0), |_| {
                let space = machine.reserve_vspace(len()).unwrap();
                test(&ram, &space);
            })
            .unwrap();
        assert_eq!(machine.stale_hits(), 0, "{:?}", machine.incidents());
    }
}

/// Frames `first..first + count` of a memory.
pub(crate) fn run(memory: &impl FrameMemory, first: u64, count: u64) -> PfnRange {
    memory
        .frames()
        .slice(first, FrameCount::new(count))
        .unwrap()
}
