//! Two-level tables whose leaves can be reclaimed while others look: a directory of chunks, each an
//! array of `N` descriptors; with 64 of them a leaf is the 4 KiB that ours reclaims. What differs is how a reader keeps the chunk from going away.

use super::peer::{Line, Peer, Worker};
use core::{
    ptr,
    sync::atomic::{AtomicPtr, AtomicU64, Ordering},
};
use crossbeam_epoch::{Atomic, Collector, Guard, LocalHandle, Owned, Shared};

/// `N` descriptors.
struct Leaf<const N: usize>([Line; N]);

impl<const N: usize> Leaf<N> {
    fn zeroed() -> Box<Self> {
        // SAFETY: all-zero bytes are a valid array of `Line`, which is integers throughout.
        unsafe { Box::<Self>::new_zeroed().assume_init() }
    }
}

fn split<const N: usize>(pfn: u64) -> (usize, usize) {
    let pfn = pfn as usize;
    (pfn / N, pfn % N)
}

/// The reader pins an epoch for the time of the lookup; a removed leaf is freed when every pin that
/// could see it has gone.
pub(crate) struct Epoch<const N: usize> {
    directory: Box<[Atomic<Leaf<N>>]>,
    collector: Collector,
}

impl<const N: usize> Epoch<N> {
    #[cold]
    fn populate<'g>(&self, chunk: usize, guard: &'g Guard) -> Shared<'g, Leaf<N>> {
        let fresh = Owned::from(Leaf::zeroed());
        let slot = &self.directory[chunk];
        let (on_win, on_loss) = (Ordering::AcqRel, Ordering::Acquire);
        match slot.compare_exchange(Shared::null(), fresh, on_win, on_loss, guard) {
            Ok(installed) => installed,
            Err(lost) => lost.current,
        }
    }

    #[inline]
    fn get_put(&self, handle: &LocalHandle, pfn: u64) {
        let (chunk, line) = split::<N>(pfn);
        let guard = handle.pin();
        let mut leaf = self.directory[chunk].load(Ordering::Acquire, &guard);
        if leaf.is_null() {
            leaf = self.populate(chunk, &guard);
        }
        // SAFETY: not null, and what was installed stays allocated at least as long as `guard`.
        let slot = &unsafe { leaf.deref() }.0[line].0;
        slot.get();
        slot.put();
    }
}

impl<const N: usize> Peer for Epoch<N> {
    const NAME: &'static str = if N == 64 {
        "radix table under crossbeam-epoch, 4 KiB leaves"
    } else {
        "radix table under crossbeam-epoch, 32 KiB leaves"
    };

    fn sparse(pfns: u64) -> Self {
        let chunks = pfns as usize / N;
        Self {
            directory: (0..chunks).map(|_| Atomic::null()).collect(),
            collector: Collector::new(),
        }
    }

    fn touch(&self, pfns: impl Iterator<Item = u64>) {
        let worker = self.worker();
        pfns.for_each(|pfn| worker.get_put(pfn));
    }

    fn worker(&self) -> impl Worker {
        let handle = self.collector.register();
        move |pfn| self.get_put(&handle, pfn)
    }
}

impl<const N: usize> Drop for Epoch<N> {
    fn drop(&mut self) {
        for slot in &mut self.directory {
            // SAFETY: `&mut self`: no reader is left, and each leaf is in one slot only.
            drop(unsafe { core::mem::take(slot).try_into_owned() });
        }
    }
}

/// A directory entry that stays, with the number of references into its leaf.
#[derive(Default)]
struct Entry<const N: usize> {
    users: AtomicU64,
    leaf: AtomicPtr<Leaf<N>>,
}

/// The reader counts itself into the chunk before it looks, and out when it puts; a leaf goes only
/// while its count is zero.
pub(crate) struct Counted<const N: usize> {
    directory: Box<[Entry<N>]>,
}

impl<const N: usize> Counted<N> {
    #[cold]
    fn populate(entry: &Entry<N>) -> *mut Leaf<N> {
        let fresh = Box::into_raw(Leaf::zeroed());
        let (on_win, on_loss) = (Ordering::AcqRel, Ordering::Acquire);
        match entry
            .leaf
            .compare_exchange(ptr::null_mut(), fresh, on_win, on_loss)
        {
            Ok(_) => fresh,
            Err(current) => {
                // SAFETY: made by `Box::into_raw` above and, having lost, seen by nobody else.
                drop(unsafe { Box::from_raw(fresh) });
                current
            }
        }
    }

    #[inline]
    fn get_put(&self, pfn: u64) {
        let (chunk, line) = split::<N>(pfn);
        let entry = &self.directory[chunk];
        entry.users.fetch_add(1, Ordering::AcqRel);
        let mut leaf = entry.leaf.load(Ordering::Acquire);
        if leaf.is_null() {
            leaf = Self::populate(entry);
        }
        // SAFETY: not null, and no leaf is freed while its entry counts a user, as it does us.
        let slot = &unsafe { &*leaf }.0[line].0;
        slot.get();
        slot.put();
        entry.users.fetch_sub(1, Ordering::Release);
    }
}

impl<const N: usize> Peer for Counted<N> {
    const NAME: &'static str = if N == 64 {
        "radix table with a count per chunk, 4 KiB leaves"
    } else {
        "radix table with a count per chunk, 32 KiB leaves"
    };

    fn sparse(pfns: u64) -> Self {
        let chunks = pfns as usize / N;
        Self {
            directory: (0..chunks).map(|_| Entry::default()).collect(),
        }
    }

    fn touch(&self, pfns: impl Iterator<Item = u64>) {
        pfns.for_each(|pfn| self.get_put(pfn));
    }

    fn worker(&self) -> impl Worker {
        |pfn| self.get_put(pfn)
    }
}

impl<const N: usize> Drop for Counted<N> {
    fn drop(&mut self) {
        for entry in &mut self.directory {
            let leaf = *entry.leaf.get_mut();
            if !leaf.is_null() {
                // SAFETY: made by `Box::into_raw`, in this entry only, and no reader is left.
                drop(unsafe { Box::from_raw(leaf) });
            }
        }
    }
}
