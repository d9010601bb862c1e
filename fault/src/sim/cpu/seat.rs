//! The seat of a CPU: where it is parked while nothing runs on it, and where others ring.
//!
//! | `taken` | `parked` | the CPU |
//! |---|---|---|
//! | false | its core | is free: nothing runs on it, and its caches stay |
//! | true | nothing | runs, or falls asleep, or wakes: its core is in the hands of whoever claimed it |
//! | true | its core | sleeps in [`Cpu::idle`], or has rested |
//! | any | nothing, and locked | somebody who rang executes the handler in its place |
//!
//! No wake-up is lost. Who rings sets `attention` first and then looks for a parked core, under the lock; who falls asleep parks its
//! core under the lock first and then looks at `attention`. Of the two, whoever takes the lock later finds what the other one has
//! left: the ringer a core to serve with, or the sleeper a bell that has rung. On waking, the core is taken
//! out under the lock, and what rings from then on is seen by [`take_signals`](Cpu::take_signals).
#![forbid(unsafe_code)]

use alloc::sync::Arc;
use core::cell::Cell;

use super::Cpu;
use crate::shootdown::{CpuId, CpuState, Invalidation, Processor, SpaceId};
use crate::sim::hooks;
use crate::sim::machine::Shared;
use crate::sync::atomic::Ordering;

/// The seat is taken: something runs on this CPU already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SeatError {
    /// Something runs on this CPU already.
    #[error("{cpu} is in use already")]
    Taken {
        /// Which one.
        cpu: CpuId,
    },
    /// The machine has no such CPU.
    #[error("there is no {cpu}: the machine has {cpus}")]
    NoSuchCpu {
        /// Which one.
        cpu: CpuId,
        /// How many it has.
        cpus: u16,
    },
}

impl Cpu {
    /// Begins to run on CPU `id`: wakes it, which makes it forget whatever it slept through.
    pub(crate) fn claim(shared: &Arc<Shared>, id: CpuId) -> Result<Self, SeatError> {
        let seat = shared.seat(id).ok_or(SeatError::NoSuchCpu {
            cpu: id,
            cpus: shared.config.cpus,
        })?;
        // Acquire pairs with the Release in `drop`: the core is parked.
        if seat.taken.swap(true, Ordering::Acquire) {
            return Err(SeatError::Taken { cpu: id });
        }
        let Some(core) = seat.parked.lock().take() else {
            unreachable!("a free CPU without its caches")
        };
        let mut cpu = Cpu::around(shared, id, core);
        cpu.seated = true;
        cpu.wake();
        Ok(cpu)
    }

    /// Sleeps for `turns` turns of the others: executes nothing, and on waking forgets what it slept through. Interrupts that come
    /// meanwhile are taken, by whoever rings.
    ///
    /// # Panics
    ///
    /// Inside [`with_interrupts_off`](Cpu::with_interrupts_off): a CPU that sleeps with interrupts off would never be woken, and one
    /// that turned them on would break the section that it sleeps in.
    pub fn idle(&self, turns: u32) {
        assert!(
            !self.has_interrupts_off(),
            "{} goes to sleep with interrupts off",
            self.id
        );
        self.sleep();
        for turn in 0..turns {
            hooks::wait("idle", u64::from(turn));
            // Time passes, whether or not anybody else does something with it.
            hooks::step("still asleep", u64::from(turn));
        }
        let seat = &self.shared.seats[usize::from(self.id.get())];
        let core = seat.parked.lock().take();
        *self.core.borrow_mut() = core;
        self.wake();
    }

    /// Goes to sleep, unless it sleeps already.
    pub(crate) fn rest(&self) {
        if self.core.borrow().is_some() {
            self.sleep();
        }
    }

    fn sleep(&self) {
        self.take_signals();
        self.shared.engine.presence(self.id).sleep();
        hooks::step("asleep", hooks::NOTHING);
        let seat = &self.shared.seats[usize::from(self.id.get())];
        let mut core = self.core.borrow_mut().take();
        if let Some(core) = &mut core {
            core.clock = self.now();
        }
        *seat.parked.lock() = core;
        // Who rang after the look above has either found the core parked, or rang before that and is seen here.
        // Acquire pairs with the Release in `signal`.
        if seat.attention.load(Ordering::Acquire) != 0 {
            serve_parked(&self.shared, self.id);
        }
    }

    fn wake(&self) {
        self.catch_up();
        // Records that were left for it before it slept need wait no longer for its next tick, if it has any.
        self.shared.engine.sweep(self);
        self.take_signals();
    }

    /// Says that the CPU runs, and forgets whatever it was left out of. Before its first access, whatever wakes it.
    fn catch_up(&self) {
        let engine = &self.shared.engine;
        let awake = engine.presence(self.id).wake();
        hooks::step("awake", hooks::NOTHING);
        let (space, flushed) = self.with_core(|core| {
            // Handlers that were executed meanwhile have taken their time.
            self.advance_to(core.clock);
            let everywhere = *core.flushed(SpaceId::EVERY);
            (core.space, (*core.flushed(core.space), everywhere))
        });
        if engine.missed_asleep(&awake, space, flushed) {
            self.invalidate(Invalidation::Everything);
        }
    }

    /// Runs `f`, which may access memory, on a CPU that somebody else stands in for: it counts as running meanwhile, and
    /// has caught up before.
    pub(super) fn awake_for(&self, f: impl FnOnce()) {
        if self.seated {
            return f();
        }
        let presence = self.shared.engine.presence(self.id);
        let (state, _) = presence.state();
        self.catch_up();
        f();
        // Who has chosen it as a target meanwhile rings, and waits for the seat until it is parked again.
        if state == CpuState::Gone {
            presence.retire();
        } else {
            presence.sleep();
        }
    }
}

/// An interrupt wakes an idle CPU, which executes the handler and goes on sleeping: done by whoever rang.
pub(super) fn serve_parked(shared: &Arc<Shared>, id: CpuId) {
    let Some(seat) = shared.seat(id) else { return };
    let mut parked = seat.parked.lock();
    if let Some(core) = parked.take() {
        let clock = core.clock;
        let mut cpu = Cpu::around(shared, id, core);
        cpu.apart = hooks::scheduled().then(|| Cell::new(clock));
        cpu.take_signals();
        let mut core = cpu.core.borrow_mut().take();
        if let Some(core) = &mut core {
            core.clock = cpu.now();
        }
        *parked = core;
    }
}

impl Drop for Cpu {
    fn drop(&mut self) {
        if !self.seated {
            return;
        }
        self.rest();
        let seat = &self.shared.seats[usize::from(self.id.get())];
        // Not while somebody stands in for it, who may just have said that it runs. Then it stays asleep, which is as good.
        if let Some(_parked) = seat.parked.try_lock() {
            self.shared.engine.presence(self.id).retire();
        }
        // Release pairs with the Acquire in `claim`.
        seat.taken.store(false, Ordering::Release);
    }
}
