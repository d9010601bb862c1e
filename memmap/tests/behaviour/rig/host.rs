//! This process's own MMU.

use pageless_fault::host::{HostMachine, HostWindow};

use super::{Body, Rig, threads};

pub(crate) struct HostRig {
    machine: HostMachine,
}

impl Rig for HostRig {
    type Window = HostWindow;
    type Machine = HostMachine;

    const FRAMES: u64 = 1 << 24;
    const LARGEST_CHUNK: u64 = 2 << 20;
    const CROWD: u64 = 64;
    const PER_MILLE: u64 = 1000;

    fn new(_time: u64) -> Self {
        HostRig {
            machine: HostMachine::new().unwrap(),
        }
    }

    fn machine(&self) -> &HostMachine {
        &self.machine
    }

    fn cpus(&self, bodies: Vec<Body<'_>>) {
        threads(bodies);
    }

    fn pause(&self) {
        std::thread::yield_now();
    }
}
