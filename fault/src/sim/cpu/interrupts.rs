//! What comes from outside between two instructions: interrupts, what the interconnect brings, ticks of the timer.
#![forbid(unsafe_code)]

use super::Cpu;
use crate::shootdown::Processor;
use crate::sim::machine::Seat;
use crate::sync::atomic::Ordering;

/// Bits of a seat's attention word: what a CPU looks at between two instructions.
///
/// | value | meaning |
/// |---|---|
/// | 0 | nothing |
/// | 1 | an interrupt is pending |
/// | 2 | the interconnect has brought something |
pub(crate) const INTERRUPT: u32 = 1;
pub(crate) const FABRIC: u32 = 2;

/// A section with interrupts off.
struct InterruptsOff<'a>(&'a Cpu);

impl<'a> InterruptsOff<'a> {
    fn begin(cpu: &'a Cpu) -> Self {
        cpu.interrupts_off.set(cpu.interrupts_off.get() + 1);
        InterruptsOff(cpu)
    }
}

impl Drop for InterruptsOff<'_> {
    fn drop(&mut self) {
        // What is pending is taken at the next boundary: nothing executes handlers while it unwinds.
        self.0.interrupts_off.set(self.0.interrupts_off.get() - 1);
    }
}

impl Cpu {
    /// Runs `f` with interrupts off. They come on again at its end, also when it panics.
    pub fn with_interrupts_off<T>(&self, f: impl FnOnce() -> T) -> T {
        let off = InterruptsOff::begin(self);
        let result = f();
        drop(off);
        self.boundary("interrupts on", 0);
        result
    }

    /// Whether this is inside [`with_interrupts_off`](Self::with_interrupts_off).
    pub(super) fn has_interrupts_off(&self) -> bool {
        self.interrupts_off.get() != 0
    }

    /// Executes what the interconnect brings, and takes an interrupt if one is pending and they are on.
    #[inline]
    pub(crate) fn take_signals(&self) {
        // Acquire pairs with the Release in `signal`: the letter is there when the bell rings.
        let attention = self.shared.seats[usize::from(self.id.get())]
            .attention
            .load(Ordering::Acquire);
        if attention != 0 {
            self.take_signals_slow();
        }
    }

    #[cold]
    fn take_signals_slow(&self) {
        let seat = &self.shared.seats[usize::from(self.id.get())];
        // Acquire as above. Cleared before the mailbox is read: what comes later rings again.
        if seat.attention.fetch_and(!FABRIC, Ordering::Acquire) & FABRIC != 0 {
            self.serve_fabric(seat);
        }
        if self.interrupts_on()
            && seat.attention.fetch_and(!INTERRUPT, Ordering::Acquire) & INTERRUPT != 0
        {
            // Acquire pairs with the Release in `signal`. One that came while interrupts were off has passed already.
            let arrival = seat.arrival.swap(0, Ordering::Acquire);
            if arrival > self.now() {
                self.advance_to(arrival);
                if self.apart.is_some() {
                    self.charge(self.shared.config.costs.idle_exit);
                }
            }
            self.in_handler.set(true);
            self.shared.engine.serve(self);
            self.in_handler.set(false);
        }
    }

    pub(super) fn take_fabric(&self) {
        let seat = &self.shared.seats[usize::from(self.id.get())];
        // Acquire as in `take_signals`.
        if seat.attention.load(Ordering::Acquire) & FABRIC != 0
            && seat.attention.fetch_and(!FABRIC, Ordering::Acquire) & FABRIC != 0
        {
            self.serve_fabric(seat);
        }
    }

    /// What the interconnect has brought is executed when it comes, by a sleeping CPU as well.
    fn serve_fabric(&self, seat: &Seat) {
        // Acquire pairs with the Release in `signal`.
        self.advance_to(seat.fabric_arrival.swap(0, Ordering::Acquire));
        self.shared.engine.serve_fabric(self);
    }

    #[cold]
    pub(super) fn tick(&self) {
        self.until_tick.set(self.shared.config.tick_every);
        if self.interrupts_on() && !self.shared.is_tickless(self.id) {
            self.ticks.set(self.ticks.get() + 1);
            self.shared.engine.sweep(self);
        }
    }
}
