//! Who runs, when the memory or an address space of a modelled machine is asked: the CPU that the caller is seated on.

use super::current;
use super::ram::SimRam;
use super::vspace::SimVspace;
use crate::cpus::Cpus;
use crate::shootdown::{CpuId, Processor};

/// Whichever part of a machine is asked, its CPUs are the same.
macro_rules! cpus_of_the_machine_run {
    ($($asked:ty),*) => {$(
        impl Cpus for $asked {
            fn cpus(&self) -> u16 {
                self.machine.config().cpus
            }

            /// Code that sets a machine up, and runs on no CPU, counts as the first one.
            fn current(&self) -> CpuId {
                let seated = self.machine.on_current(|cpu| cpu.id());
                seated.unwrap_or(CpuId::new(0))
            }

            fn may_wait(&self) -> bool {
                let interruptible = self.machine.on_current(|cpu| cpu.interrupts_on());
                interruptible.unwrap_or(true)
            }

            fn relax(&self, turn: u32) {
                current::with(&self.machine, |cpu| cpu.relax(turn));
            }
        }
    )*};
}

cpus_of_the_machine_run!(SimRam, SimVspace);
