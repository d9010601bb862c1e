//! The machine of `tests/model`, as small as a machine may be here, and with nothing hooked: it says when a
//! page is filled that is still mapped or not yet flushed.

use super::{Body, Rig, threads};
use crate::machine::{ModelMachine, ModelWindow};

pub(crate) struct ModelRig {
    machine: ModelMachine,
}

impl Rig for ModelRig {
    type Window = ModelWindow;
    type Machine = ModelMachine;

    // Making a window takes Miri its time; the tests that it runs need no more.
    const FRAMES: u64 = if cfg!(miri) { 1 << 12 } else { 1 << 18 };
    const LARGEST_CHUNK: u64 = 64 << 10;
    const CROWD: u64 = if cfg!(miri) { 5 } else { 16 };
    // An access takes a lock here. Miri is in no hurry.
    const PER_MILLE: u64 = if cfg!(miri) { 10 } else { 100 };

    fn new(_time: u64) -> Self {
        ModelRig {
            machine: ModelMachine::default(),
        }
    }

    fn machine(&self) -> &ModelMachine {
        &self.machine
    }

    fn cpus(&self, bodies: Vec<Body<'_>>) {
        threads(bodies);
    }

    fn pause(&self) {
        std::thread::yield_now();
    }

    fn check(&self) {
        self.machine.control.assert_clean();
    }
}
