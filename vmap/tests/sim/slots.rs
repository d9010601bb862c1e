//! How a CPU lets others use an address, and how it knows that they no longer do: a lease.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use pageless_fault::WindowOffset;
use pageless_fault::shootdown::Processor;

/// Set while others may come; the rest of the word is how many are there.
const OPEN: u32 = 1 << 31;

/// A place where one CPU publishes what it has mapped.
///
/// | state | meaning |
/// |---|---|
/// | 0 | nothing is published |
/// | [`OPEN`] + n | published, and n CPUs read it |
/// | n | being taken back: nobody else may come, and n CPUs still read it |
#[derive(Debug, Default)]
pub(crate) struct Slot {
    state: AtomicU32,
    /// Relaxed, all of them: written before the Release of `publish`, read after the Acquire of `enter`.
    at: AtomicU64,
    pages: AtomicU64,
    token: AtomicU64,
    /// The head of a block, plus one; for those who count their own references to it. Release and Acquire: what it stands for is
    /// complete before it appears.
    head: AtomicU64,
}

/// What is published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Lease {
    pub(crate) at: WindowOffset,
    pub(crate) pages: u64,
    /// Its pages begin with this number, plus their number.
    pub(crate) token: u64,
}

/// Somebody reads. Nobody unmaps as long as this lives.
pub(crate) struct Reader<'s> {
    slot: &'s Slot,
    pub(crate) lease: Lease,
}

impl Slot {
    pub(crate) fn publish(&self, lease: Lease, head: Option<u64>) {
        self.at.store(lease.at.get(), Ordering::Relaxed);
        self.pages.store(lease.pages, Ordering::Relaxed);
        self.token.store(lease.token, Ordering::Relaxed);
        self.head
            .store(head.map_or(0, |head| head + 1), Ordering::Release);
        // Release pairs with the Acquire in `enter`.
        self.state.store(OPEN, Ordering::Release);
    }

    /// A right to read, if anything is published.
    pub(crate) fn enter(&self) -> Option<Reader<'_>> {
        let one_more = |state: u32| (state & OPEN != 0).then_some(state + 1);
        // Acquire pairs with the Release in `publish`.
        self.state
            .fetch_update(Ordering::Acquire, Ordering::Relaxed, one_more)
            .ok()?;
        Some(Reader {
            slot: self,
            lease: self.lease(),
        })
    }

    fn lease(&self) -> Lease {
        Lease {
            at: WindowOffset::new(self.at.load(Ordering::Relaxed)),
            pages: self.pages.load(Ordering::Relaxed),
            token: self.token.load(Ordering::Relaxed),
        }
    }

    /// The head of the block that is published, and its token, for those who will ask the block itself for a reference.
    pub(crate) fn head(&self) -> Option<(u64, u64)> {
        let head = self.head.load(Ordering::Acquire).checked_sub(1)?;
        Some((head, self.token.load(Ordering::Acquire)))
    }

    /// Nobody may come any more, and whoever was there has left.
    pub(crate) fn take_back(&self, cpu: &impl Processor) {
        self.head.store(0, Ordering::Release);
        self.state.fetch_and(!OPEN, Ordering::Relaxed);
        let mut turn = 0;
        // Acquire pairs with the Release of the last reader that leaves.
        while self.state.load(Ordering::Acquire) != 0 {
            cpu.relax(turn);
            turn += 1;
        }
    }
}

impl Drop for Reader<'_> {
    fn drop(&mut self) {
        // Release: what was read comes before. Pairs with the Acquire in `take_back`.
        self.slot.state.fetch_sub(1, Ordering::Release);
    }
}
