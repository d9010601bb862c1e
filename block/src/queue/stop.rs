//! Freezing and quiescing a queue, as guards.

use crate::device::BlockDevice;
use crate::queue::RequestQueue;
use crate::sync::atomic::Ordering;
use crate::sync::relax;

impl<D: BlockDevice> RequestQueue<D> {
    /// Keeps new bios out until the guard is dropped: they are rejected. What is in flight goes on, and
    /// whoever submitted it must see it through; [`Frozen::is_settled`] says whether it has. Guards nest.
    pub fn freeze(&self) -> Frozen<'_, D> {
        self.gate.freeze();
        self.barrier.heavy();
        Frozen { queue: self }
    }

    /// Keeps requests from the device until the guard is dropped: bios are taken in and wait. On return
    /// no call of [`BlockDevice::submit`] is under way in any thread, and none will begin. Requests the
    /// device has stay there. Guards nest.
    ///
    /// Must not be called from within a driver or a completion callback: it would wait for itself.
    /// After the guard is gone, what waited goes out when a context submits, reaps or polls.
    pub fn quiesce(&self) -> Quiesced<'_, D> {
        self.gate.quiesce();
        self.barrier.heavy();
        let present = self.present.lock().clone();
        for context in present {
            // Acquire: pairs with the Release of who was `Issuing`. What the call did is seen here.
            while context.issuing.load(Ordering::Acquire) {
                relax();
            }
        }
        Quiesced { queue: self }
    }
}

/// A queue that takes no bios, until this is dropped. Made by [`RequestQueue::freeze`].
#[derive(Debug)]
#[must_use = "dropping it lets bios in again"]
pub struct Frozen<'q, D: BlockDevice> {
    queue: &'q RequestQueue<D>,
}

impl<D: BlockDevice> Frozen<'_, D> {
    /// Whether nothing is in flight any more. As long as the guard lives it stays so, except that a context
    /// which is just being turned away may count for a moment.
    pub fn is_settled(&self) -> bool {
        self.queue.in_flight() == 0
    }

    /// Calls `each` until nothing is in flight: with a context, it polls; without one, it waits for the
    /// threads that have them.
    pub fn settle(&self, mut each: impl FnMut()) {
        while !self.is_settled() {
            each();
            relax();
        }
    }
}

impl<D: BlockDevice> Drop for Frozen<'_, D> {
    fn drop(&mut self) {
        self.queue.gate.thaw();
    }
}

/// A queue that gives nothing to its device, until this is dropped. Made by [`RequestQueue::quiesce`].
#[derive(Debug)]
#[must_use = "dropping it lets requests out again"]
pub struct Quiesced<'q, D: BlockDevice> {
    queue: &'q RequestQueue<D>,
}

impl<D: BlockDevice> Drop for Quiesced<'_, D> {
    fn drop(&mut self) {
        self.queue.gate.resume();
    }
}
