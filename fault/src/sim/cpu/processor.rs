//! The CPU as the shootdown engine knows it.
#![forbid(unsafe_code)]

use super::Cpu;
use super::interrupts::{FABRIC, INTERRUPT};
use super::seat::serve_parked;
use crate::mutant::Mutant;
use crate::shootdown::{CpuId, Invalidation, Moment, Processor, Signal};
use crate::sim::hooks;
use crate::sync::atomic::Ordering;

impl Processor for Cpu {
    fn id(&self) -> CpuId {
        self.id
    }

    fn invalidate(&self, what: Invalidation) {
        let costs = &self.shared.config.costs;
        let everything = match what {
            Invalidation::Everything => true,
            Invalidation::Pages(_) => false,
        };
        // Read before the flush: what is cleared after this is a later generation's.
        let now = everything.then(|| self.shared.generations());
        if everything && Mutant::ResidencyClearedEarly.active() {
            self.leave_windows();
            hooks::step("between leaving and flushing", hooks::NOTHING);
            self.perhaps_nmi();
        }
        self.with_core(|core| {
            core.invalidations += 1;
            match what {
                Invalidation::Everything => {
                    self.charge(costs.flush_all);
                    core.tlb.invalidate_all();
                    if let Some(now) = now {
                        core.flushed = now;
                    }
                }
                Invalidation::Pages(pages) => {
                    self.charge(costs.flush_page * pages.page_count());
                    for page in pages.pages() {
                        core.tlb.invalidate_page(page, core.pcid);
                    }
                }
            }
        });
        if everything && !Mutant::ResidencyClearedEarly.active() {
            self.leave_windows();
        }
    }

    fn signal(&self, target: CpuId, how: Signal) {
        let Some(seat) = self.shared.seat(target) else {
            return;
        };
        let bit = match how {
            Signal::Interrupt => INTERRUPT,
            Signal::Fabric => FABRIC,
        };
        match how {
            Signal::Interrupt => {
                if self.shared.loses_interrupt() {
                    return;
                }
                let delivery = self.shared.config.costs.delivery(self.id, target);
                // Release pairs with the Acquire in `take_signals_slow`.
                seat.arrival
                    .fetch_max(self.now() + delivery, Ordering::Release);
            }
            Signal::Fabric => {
                // Release pairs with the Acquire in `serve_fabric`.
                seat.fabric_arrival.fetch_max(self.now(), Ordering::Release);
            }
        }
        // Release pairs with the Acquire in `take_signals`: the letter comes before the bell.
        seat.attention.fetch_or(bit, Ordering::Release);
        serve_parked(&self.shared, target);
    }

    fn interrupts_on(&self) -> bool {
        !self.has_interrupts_off() && !self.in_handler.get()
    }

    fn relax(&self, turn: u32) {
        hooks::wait("relax", u64::from(turn));
        self.serve_while_waiting();
    }

    fn ticks(&self) -> u64 {
        self.ticks.get()
    }

    fn at(&self, moment: Moment) {
        let costs = &self.shared.config.costs;
        let (what, of) = moment.describe();
        // Announced before it is charged: who looks at this CPU in between finds the clock of what has been done.
        hooks::step(what, of);
        let cost = costs.of(self.id, moment);
        match moment {
            Moment::Wait => self.reading.set(self.now()),
            Moment::AckRead { there, .. } => {
                // The CPU's own clock knows when the last answer came, not when the earlier ones were read.
                let read = self.reading.get().max(there) + cost;
                self.reading.set(read);
                self.advance_to(read);
            }
            // Begins when the wait does, whatever else has been waited for.
            Moment::FabricSync => self.advance_to(self.reading.get() + cost),
            _ => self.charge(cost),
        }
        if matches!(moment, Moment::Take { .. }) {
            self.perhaps_nmi();
        }
    }

    fn now(&self) -> u64 {
        match &self.apart {
            None => hooks::now(),
            Some(clock) => clock.get(),
        }
    }

    fn advance_to(&self, then: u64) {
        match &self.apart {
            None => hooks::advance_to(then),
            Some(clock) => clock.set(clock.get().max(then)),
        }
    }
}

impl Cpu {
    /// What a CPU does that waits, between one look and the next: answers others, and lets time pass.
    pub(in crate::sim) fn serve_while_waiting(&self) {
        if self.core.borrow().is_none() {
            // Falling asleep, or waking, and waiting for the seat: whoever holds it serves in this CPU's place.
            return;
        }
        if !Mutant::WaitsUninterruptible.active() {
            self.take_signals();
        }
        // Who waits executes many instructions: the next tick is near.
        let left = self.until_tick.get().min(2);
        if left == 1 {
            self.tick();
        } else if left > 1 {
            self.until_tick.set(left - 1);
        }
    }
}
