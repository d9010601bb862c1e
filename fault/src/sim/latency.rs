//! How long one shootdown takes on the modelled clock: the real engine, on simulated CPUs that all run.
//!
//! What comes of it is *modelled*: it follows from a table of [`Costs`] and from the order of events, and is the same on
//! every machine and in every run.
#![forbid(unsafe_code)]

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::cell::Cell;

use super::cost::Costs;
use super::cpu::Cpu;
use super::current::ScheduledBody;
use super::entry::{Entry, Level};
use super::machine::{BuildError, SimConfig, SimMachine, WINDOWS};
use super::schedule::{Failure, Schedule};
use super::space::MapError;
use crate::debt::Completion;
use crate::shootdown::{Flush, PolicyKind, Processor, SpaceId, WaitError};

/// One shootdown, and the machine it happens on.
#[derive(Debug, Clone, Copy)]
pub struct Scene {
    /// CPUs: CPU 0 asks, all others run and have the pages cached.
    pub cpus: u16,
    /// Under which policy.
    pub policy: PolicyKind,
    /// Pages of 4 KiB, next to each other: 1 to [`PAGES_MOST`](Self::PAGES_MOST).
    pub pages: u64,
    /// What is waited for. [`Completion::Entered`] is all that [`PolicyKind::EarlyAck`] waits for before it goes on.
    pub until: Completion,
    /// What things cost.
    pub costs: Costs,
    /// What a target does between two looks for interrupts, in nanoseconds. Has no influence while it is less than a delivery takes, and many
    /// CPUs are run sooner if it is not much less.
    pub pace: u64,
}

/// What one shootdown took, in *modelled* nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Latency {
    /// From its beginning to knowing that it has been done, on the clock of the CPU that asked.
    pub waited: u64,
    /// What flushing nobody but itself takes the same CPU.
    pub alone: u64,
}

impl Latency {
    /// What the other CPUs added. Published figures compare with one thread in the same way.
    #[must_use]
    pub const fn added(&self) -> u64 {
        self.waited.saturating_sub(self.alone)
    }
}

/// Why a scene has no answer.
#[derive(Debug, thiserror::Error)]
pub enum SceneError {
    /// There is no such machine.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// It has no room for so many pages, or there are none.
    #[error("a shootdown of {pages} pages: 1 to {most} are possible")]
    Pages {
        /// How many were asked for.
        pages: u64,
        /// How many there can be.
        most: u64,
    },
    /// The pages could not be mapped.
    #[error(transparent)]
    Map(#[from] MapError),
    /// The shootdown was not answered.
    #[error(transparent)]
    Wait(#[from] WaitError),
    /// The run failed.
    #[error("{0}")]
    Run(Box<Failure>),
}

impl Scene {
    /// Pages that a scene has room for.
    pub const PAGES_MOST: u64 = 64;

    /// One page, waited for as long as the policy waits.
    #[must_use]
    pub const fn new(cpus: u16, policy: PolicyKind, costs: Costs) -> Self {
        Scene {
            cpus,
            policy,
            pages: 1,
            until: match policy {
                PolicyKind::EarlyAck => Completion::Entered,
                _ => Completion::WalkQuiescent,
            },
            costs,
            pace: 0,
        }
    }

    /// The modelled latency.
    ///
    /// ```
    /// use pageless_fault::shootdown::PolicyKind;
    /// use pageless_fault::sim::{Costs, Scene};
    /// let latency = Scene::new(2, PolicyKind::SyncIpi, Costs::HASWELL_2019).play()?;
    /// assert_eq!(latency.added(), 764); // modelled; 775 was measured
    /// # Ok::<(), Box<dyn core::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// See [`SceneError`].
    pub fn play(&self) -> Result<Latency, SceneError> {
        let machine = self.machine()?;
        let ready = Cell::new(0);
        let answer = Cell::new(None);
        let initiator: ScheduledBody<'_> = Box::new(|cpu| {
            self.touch(cpu);
            while ready.get() + 1 < self.cpus {
                self.spin(cpu);
            }
            answer.set(Some(self.shoot(cpu, &machine)));
        });
        let targets = (1..self.cpus).map(|_| {
            let body: ScheduledBody<'_> = Box::new(|cpu| {
                self.touch(cpu);
                ready.set(ready.get() + 1);
                while answer.get().is_none() {
                    self.spin(cpu);
                }
            });
            body
        });
        let bodies: Vec<_> = core::iter::once(initiator).chain(targets).collect();
        machine
            .run_scheduled(&Schedule::by_clock(0).steps_at_most(u64::MAX), bodies)
            .map_err(SceneError::Run)?;
        match answer.get() {
            Some(answer) => Ok(answer?),
            None => unreachable!("the body that leaves an answer has ended"),
        }
    }

    fn machine(&self) -> Result<SimMachine, SceneError> {
        if !(1..=Self::PAGES_MOST).contains(&self.pages) {
            return Err(SceneError::Pages {
                pages: self.pages,
                most: Self::PAGES_MOST,
            });
        }
        let machine = SimMachine::new(SimConfig {
            cpus: self.cpus,
            frames: Self::PAGES_MOST as u32 + 16,
            policy: self.policy,
            costs: self.costs,
            patience: u32::MAX,
            ..SimConfig::default()
        })?;
        for va in self.addresses() {
            let Some(frame) = machine.alloc() else {
                unreachable!("a frame for each page and for the tables")
            };
            machine.map(SpaceId::EVERY, va, frame, true)?;
        }
        Ok(machine)
    }

    fn addresses(&self) -> impl Iterator<Item = u64> + use<> {
        (0..self.pages).map(|page| WINDOWS + (page << 12))
    }

    fn touch(&self, cpu: &Cpu) {
        for va in self.addresses() {
            if let Err(fault) = cpu.load(va) {
                unreachable!("{fault}, and it is mapped");
            }
        }
    }

    fn spin(&self, cpu: &Cpu) {
        cpu.advance_to(cpu.now() + self.pace);
        cpu.pause();
    }

    fn shoot(&self, cpu: &Cpu, machine: &SimMachine) -> Result<Latency, WaitError> {
        for va in self.addresses() {
            machine.replace_entry(SpaceId::EVERY, va, Level::Table, Entry::ABSENT);
        }
        let flush = Flush::pages(WINDOWS, self.pages);
        let begun = cpu.now();
        cpu.invalidate(flush.invalidation());
        let alone = cpu.now() - begun;

        let engine = machine.engine();
        let place = machine.place(SpaceId::EVERY, WINDOWS);
        let begun = cpu.now();
        let pending = engine.begin(cpu, self.policy, &flush, place);
        engine.wait(cpu, &pending, self.until)?;
        Ok(Latency {
            waited: cpu.now() - begun,
            alone,
        })
    }
}
