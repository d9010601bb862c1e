//! Which addresses belong to our windows: asked by the signal handler, so no locks and no memory.

use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// How many windows a process may have at once.
pub(super) const LIMIT: usize = 256;

/// One place in the table.
struct Region {
    /// `0`: free. `1`: being taken. Otherwise the first address of a window; the region is in force.
    start: AtomicU64,
    /// One past the last address; meaningful while `start` is above 1.
    end: AtomicU64,
}

const FREE: u64 = 0;
const TAKEN: u64 = 1;

static TABLE: [Region; LIMIT] = [const {
    Region {
        start: AtomicU64::new(FREE),
        end: AtomicU64::new(0),
    }
}; LIMIT];

/// Places `0..HIGH_WATER` have ever been used; the rest need no look.
static HIGH_WATER: AtomicUsize = AtomicUsize::new(0);

/// A registered window. Dropping it takes the window out of the table.
#[derive(Debug)]
pub(super) struct Registration {
    place: usize,
}

/// Registers `start..end`; `None` if the table is full.
pub(super) fn register(start: u64, end: u64) -> Option<Registration> {
    for (place, region) in TABLE.iter().enumerate() {
        // Acquire pairs with the Release in `Registration::drop`: the place is really free.
        if region
            .start
            .compare_exchange(FREE, TAKEN, Ordering::Acquire, Ordering::Relaxed)
            .is_ok()
        {
            region.end.store(end, Ordering::Relaxed);
            HIGH_WATER.fetch_max(place + 1, Ordering::Release);
            // Release pairs with the Acquire in `contains`: whoever sees the start sees the end.
            region.start.store(start, Ordering::Release);
            return Some(Registration { place });
        }
    }
    None
}

impl Drop for Registration {
    fn drop(&mut self) {
        // Release pairs with the Acquire in `register`.
        TABLE[self.place].start.store(FREE, Ordering::Release);
    }
}

/// Whether `address` lies in a registered window. Safe in a signal handler.
pub(super) fn contains(address: u64) -> bool {
    iter().any(|(start, end)| (start..end).contains(&address))
}

/// All registered windows, as `(start, end)`. Safe in a signal handler.
pub(super) fn iter() -> impl Iterator<Item = (u64, u64)> {
    // Acquire pairs with the Release in `register`: places below the mark are initialised.
    TABLE[..HIGH_WATER.load(Ordering::Acquire)]
        .iter()
        .filter_map(|region| {
            // Acquire pairs with the Release in `register`.
            let start = region.start.load(Ordering::Acquire);
            (start > TAKEN).then(|| (start, region.end.load(Ordering::Relaxed)))
        })
}
