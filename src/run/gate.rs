//! The start of a group: all its threads at once, or none.

use std::sync::{Condvar, Mutex, PoisonError};

/// Threads arrive and wait; whoever started them opens once all have arrived.
///
/// Unlike a barrier it does not need to know how many will come, so a thread that could not be
/// started, or that panicked on its way, leaves nobody waiting.
#[derive(Debug, Default)]
pub(super) struct Gate {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    arrived: usize,
    open: bool,
}

impl Gate {
    /// Waits for so many threads to arrive, then lets them go.
    pub(super) fn open_after(&self, threads: usize) {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.changed.wait_while(state, |s| s.arrived < threads);
        waited.unwrap_or_else(PoisonError::into_inner).open = true;
        self.changed.notify_all();
    }

    fn arrive(&self) {
        self.state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .arrived += 1;
        self.changed.notify_all();
    }
}

/// A thread's promise to arrive, kept also if it panics.
#[derive(Debug)]
pub(super) struct Arrival<'a> {
    gate: Option<&'a Gate>,
}

impl<'a> Arrival<'a> {
    pub(super) const fn new(gate: &'a Gate) -> Self {
        Self { gate: Some(gate) }
    }

    /// Arrives, and waits until the gate is open.
    pub(super) fn wait(mut self) {
        let Some(gate) = self.gate.take() else { return };
        gate.arrive();
        let state = gate.state.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = gate.changed.wait_while(state, |s| !s.open);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }
}

impl Drop for Arrival<'_> {
    fn drop(&mut self) {
        if let Some(gate) = self.gate {
            gate.arrive();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_panics_on_its_way_keeps_nobody_waiting() {
        let gate = Gate::default();
        std::thread::scope(|scope| {
            let lost = scope.spawn(|| {
                let _arrival = Arrival::new(&gate);
                panic!("on its way");
            });
            let went = scope.spawn(|| Arrival::new(&gate).wait());
            gate.open_after(2);
            assert!(lost.join().is_err());
            assert!(went.join().is_ok());
        });
    }
}
