//! This process's own MMU; a CPU is a thread.

use alloc::sync::Arc;

use pageless_fault::WindowLen;
use pageless_fault::host::{HostFrames, HostMachine, HostRam, HostVspace, HostWindow};
use pageless_pfn::{FrameCount, Pfn, PfnRange};

use super::{Body, Rig, threads};

pub(crate) struct HostRig {
    machine: HostMachine,
    ram: Arc<HostRam>,
    frames: Arc<HostFrames>,
}

impl Rig for HostRig {
    type Space = HostVspace;
    type Window = HostWindow;
    type Machine = HostMachine;
    type Memory = HostRam;

    const PER_MILLE: u64 = 1000;

    fn new(_time: u64) -> Self {
        let first = Pfn::try_new(0x1_0000).unwrap();
        let ram = HostRam::new(PfnRange::try_new(first, FrameCount::new(1024)).unwrap()).unwrap();
        HostRig {
            machine: HostMachine::new().unwrap(),
            frames: HostFrames::of_ram(&ram).unwrap(),
            ram: Arc::new(ram),
        }
    }

    fn machine(&self) -> &HostMachine {
        &self.machine
    }

    fn memory(&self) -> &Arc<HostRam> {
        &self.ram
    }

    fn space(&self, pages: u64) -> HostVspace {
        let len = WindowLen::covering(pages * 4096).unwrap();
        HostVspace::reserve(Arc::clone(&self.frames), len).unwrap()
    }

    fn cpus(&self, bodies: Vec<Body<'_>>) {
        threads(bodies);
    }

    fn pause(&self) {
        std::thread::yield_now();
    }
}
