//! When a device is to be asked for a request that has taken too long.

use crate::clock::Nanos;
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::relax;

/// The time of one tag. A device knows requests by their tags, so a tag must not name another request while
/// somebody asks for the one that had it: who finds that one finished waits for the answer.
///
/// | value | meaning |
/// |---|---|
/// | 0 | the device has no request of this name |
/// | `ASKED` | somebody is asking the device for it |
/// | other | it is to be asked then, in nanoseconds |
#[derive(Debug)]
pub(crate) struct Deadline(AtomicU64);

const NONE: u64 = 0;
const ASKED: u64 = u64::MAX;

impl Deadline {
    pub(crate) fn new() -> Self {
        Self(AtomicU64::new(NONE))
    }

    /// The device is about to get a request of this name.
    pub(crate) fn set(&self, at: Nanos) {
        // Relaxed: whoever asks asks the device, which has the request by then or says that it has none.
        self.0
            .store(at.get().clamp(1, ASKED - 1), Ordering::Relaxed);
    }

    /// When the device is to be asked.
    pub(crate) fn due(&self) -> Option<Nanos> {
        let at = self.0.load(Ordering::Relaxed);
        (at != NONE && at != ASKED).then_some(Nanos::new(at))
    }

    /// The request has come back. Waits if somebody is asking for it at this moment.
    pub(crate) fn clear(&self) {
        loop {
            // Acquire, here and below: pairs with the Release in `Asking`. What the device answered is over.
            let at = self.0.load(Ordering::Acquire);
            if at == ASKED {
                relax();
                continue;
            }
            // An exchange: somebody may begin to ask in between.
            if self
                .0
                .compare_exchange(at, NONE, Ordering::Acquire, Ordering::Relaxed)
                .is_ok()
            {
                return;
            }
        }
    }

    /// The right to ask the device for the request now, if it is time and nobody else has it.
    pub(crate) fn ask(&self, now: Nanos) -> Option<Asking<'_>> {
        let at = self.due().filter(|at| *at <= now)?.get();
        // Relaxed: pairs with nothing. Either `clear` sees it and waits, or this fails.
        self.0
            .compare_exchange(at, ASKED, Ordering::Relaxed, Ordering::Relaxed)
            .ok()?;
        Some(Asking {
            deadline: self,
            then: NONE,
        })
    }
}

/// Somebody asks the device. Ends when this is dropped, also if the driver panics.
#[derive(Debug)]
pub(crate) struct Asking<'a> {
    deadline: &'a Deadline,
    then: u64,
}

impl Asking<'_> {
    /// The device goes on with it, and is to be asked again then.
    pub(crate) fn again(mut self, at: Nanos) {
        self.then = at.get().clamp(1, ASKED - 1);
    }
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        // Release: pairs with the loads in `clear`.
        self.deadline.0.store(self.then, Ordering::Release);
    }
}
