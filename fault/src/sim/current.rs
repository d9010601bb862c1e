//! Which CPU the calling thread, or coroutine, runs on; and running code on one.
#![forbid(unsafe_code)]

use alloc::boxed::Box;
use alloc::rc::Rc;
use alloc::string::ToString;
use alloc::vec::Vec;
use core::cell::RefCell;

use super::cpu::{Cpu, SeatError};
use super::machine::SimMachine;
use super::schedule::{Failure, Run, Schedule, Task};
use crate::shootdown::{CpuId, Processor};
use crate::sync::set_waiting;

std::thread_local! {
    static CURRENT: RefCell<Option<Rc<Cpu>>> = const { RefCell::new(None) };
}

/// Code to run on a CPU that is a thread.
pub type Body<'a> = Box<dyn FnOnce(&Cpu) + Send + 'a>;

/// Code to run on a CPU that shares its thread with others.
pub type ScheduledBody<'a> = Box<dyn FnOnce(&Cpu) + 'a>;

/// The CPU of `machine` that this thread runs on.
fn of(machine: &SimMachine) -> Option<Rc<Cpu>> {
    // Not borrowed while the CPU is used: another one may come to run on this thread meanwhile.
    let cpu = CURRENT.with_borrow(Clone::clone)?;
    cpu.is_of(&machine.shared).then_some(cpu)
}

/// Calls `f` with the CPU of `machine` that this thread runs on.
///
/// # Panics
///
/// It runs on none, or on one of another machine.
#[inline]
pub(crate) fn with<T>(machine: &SimMachine, f: impl FnOnce(&Cpu) -> T) -> T {
    match of(machine) {
        Some(cpu) => f(&cpu),
        None => panic!("access to simulated memory by a thread that runs on no CPU of its machine"),
    }
}

/// Calls `f` with the CPU of `machine` that this thread runs on; if there is none, with any that is free. `None` if none is.
pub(crate) fn with_any<T>(machine: &SimMachine, f: impl FnOnce(&Cpu) -> T) -> Option<T> {
    if let Some(cpu) = of(machine) {
        return Some(f(&cpu));
    }
    (0..machine.config().cpus)
        .find_map(|id| machine.cpu(CpuId::new(id)).ok())
        .map(|cpu| f(&cpu))
}

/// What a CPU that is a thread does while it waits for a lock: the holder may be waiting for it.
fn wait_for_lock(turn: u32) {
    match CURRENT.with_borrow(Clone::clone) {
        Some(cpu) => cpu.relax(turn),
        None => std::thread::yield_now(),
    }
}

/// What the CPU of a task does while the task waits for a lock: its interrupts are on, unless it has said otherwise, and whoever holds
/// the lock may be waiting for its answer.
pub(super) fn serve_while_waiting() {
    if let Some(cpu) = CURRENT.with_borrow(Clone::clone) {
        cpu.serve_while_waiting();
    }
}

/// Back to what was current before.
struct Restore {
    cpu: Option<Rc<Cpu>>,
    waiting: Option<fn(u32)>,
}

impl Drop for Restore {
    fn drop(&mut self) {
        let before = self.cpu.take();
        set_waiting(self.waiting);
        // Not dropped inside the borrow: a CPU that goes to sleep looks around.
        let mine = CURRENT.with_borrow_mut(|current| core::mem::replace(current, before));
        drop(mine);
    }
}

/// The CPU of a task: goes to sleep with its body, also when that panics, and not later, where nobody runs.
struct Running(Rc<Cpu>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.rest();
        // Nobody's any more: free for the check after the last body has ended.
        let current = CURRENT.with_borrow_mut(|current| {
            let mine = |cpu: &mut Rc<Cpu>| Rc::ptr_eq(cpu, &self.0);
            current.take_if(mine)
        });
        drop(current);
    }
}

/// What is current while a task has its turn. Between its turns, what was current outside: a task that has come to run on
/// another CPU, by [`SimMachine::run_on`], finds that one again.
struct OfTask(RefCell<Option<Rc<Cpu>>>);

impl OfTask {
    fn exchange(&self) {
        CURRENT.with(|current| current.swap(&self.0));
    }
}

impl SimMachine {
    /// Calls `f` with the CPU of this machine that this thread, or coroutine, runs on; `None` if it runs on none.
    pub fn on_current<T>(&self, f: impl FnOnce(&Cpu) -> T) -> Option<T> {
        of(self).map(|cpu| f(&cpu))
    }

    /// Runs `f` on CPU `id`, in this thread. Windows of this machine can be used inside.
    ///
    /// # Errors
    ///
    /// See [`SeatError`].
    pub fn run_on<T>(&self, id: CpuId, f: impl FnOnce(&Cpu) -> T) -> Result<T, SeatError> {
        let cpu = Rc::new(self.cpu(id)?);
        let before = CURRENT.with_borrow_mut(|current| current.replace(Rc::clone(&cpu)));
        let _restore = Restore {
            cpu: before,
            waiting: set_waiting(Some(wait_for_lock)),
        };
        Ok(f(&cpu))
    }

    /// Runs the bodies at once, the `n`-th on CPU `n`, each in a thread of its own: real races.
    ///
    /// # Errors
    ///
    /// There are more bodies than CPUs, or a CPU is in use.
    pub fn run_threads(&self, bodies: Vec<Body<'_>>) -> Result<(), SeatError> {
        std::thread::scope(|scope| {
            let threads: Vec<_> = bodies
                .into_iter()
                .enumerate()
                .map(|(n, body)| {
                    let machine = self.clone();
                    scope.spawn(move || machine.run_on(CpuId::new(n as u16), |cpu| body(cpu)))
                })
                .collect();
            let mut result = Ok(());
            for thread in threads {
                match thread.join() {
                    Ok(ended) => result = result.and(ended),
                    Err(panic) => std::panic::resume_unwind(panic),
                }
            }
            result
        })
    }

    /// The bodies as tasks for a [`Schedule`], the `n`-th on CPU `n`. All CPUs wake before the first one runs.
    ///
    /// # Errors
    ///
    /// There are more bodies than CPUs, or a CPU is in use.
    pub fn tasks<'a>(&self, bodies: Vec<ScheduledBody<'a>>) -> Result<Vec<Task<'a>>, SeatError> {
        self.shared.restart_clocks();
        bodies
            .into_iter()
            .enumerate()
            .map(|(n, body)| {
                let id = CpuId::new(n as u16);
                let cpu = Rc::new(self.cpu(id)?);
                let resumed = Rc::new(OfTask(RefCell::new(Some(Rc::clone(&cpu)))));
                let (suspended, running) = (Rc::clone(&resumed), Running(cpu));
                Ok(Task::new(id.to_string(), move || {
                    body(&running.0);
                    drop(running);
                })
                .on_resume(move || resumed.exchange())
                .on_suspend(move || suspended.exchange()))
            })
            .collect()
    }

    /// Runs the bodies under `schedule`, all in this thread.
    ///
    /// # Errors
    ///
    /// A body panicked, or nothing can go on: the failure says how to see it again.
    ///
    /// # Panics
    ///
    /// There are more bodies than CPUs, or a CPU is in use.
    pub fn run_scheduled<'a>(
        &self,
        schedule: &Schedule,
        bodies: Vec<ScheduledBody<'a>>,
    ) -> Result<Run, Box<Failure>> {
        match self.tasks(bodies) {
            Ok(tasks) => schedule.run(tasks),
            Err(error) => panic!("{error}"),
        }
    }
}
