//! The floor under a miss: filling a chunk and, every so often, one vectored unmapping of the oldest,
//! by the bare mechanisms. Oldest first needs a queue and nothing else here: no states, no freezing,
//! no references.

use super::{
    mapping::PAGE,
    raw::{self, RawWindow},
    sides,
};
use alloc::collections::VecDeque;
use core::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// Pages of the window, a power of two: as many as the job's device has chunks.
pub(crate) const PAGES: u64 = 4096;
/// Pages kept, as many as the job's budget has room for.
const KEPT: usize = 224;
/// Pages that one leaf table maps.
const PER_TABLE: u64 = 512;
/// Fills in one sample.
const FILLS: u32 = 4096;

/// Serves the number of chunks that go in one unmapping: nanoseconds for each fill and its share.
pub(crate) fn serve() {
    let window = RawWindow::new(PAGES as usize * PAGE).unwrap();
    let touch = |page: u64| {
        let at = window.start().wrapping_add(page as usize * PAGE);
        // SAFETY: pages lie in the window, which is only ever used as atomics.
        let count = unsafe { &*at.cast::<AtomicU64>() };
        count.fetch_add(1, Ordering::Acquire);
        count.fetch_sub(1, Ordering::Release);
    };
    // One page of each table stays, so that no table comes or goes.
    (0..PAGES).step_by(PER_TABLE as usize).for_each(touch);
    let mut present = vec![false; PAGES as usize];
    let mut order = VecDeque::with_capacity(PAGES as usize);
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut fresh = move |present: &mut [bool]| loop {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let page = state & (PAGES - 1);
        let known = core::mem::replace(&mut present[page as usize], true);
        if !known && !page.is_multiple_of(PER_TABLE) {
            return page;
        }
    };
    sides::serve(|batch| {
        let batch = batch.parse::<usize>().unwrap();
        let mut vectors = Vec::with_capacity(batch);
        let start = Instant::now();
        for _ in 0..FILLS {
            if order.len() >= KEPT + batch {
                vectors.clear();
                for page in order.drain(..batch) {
                    present[page as usize] = false;
                    vectors.push(raw::page_vector(window.start(), page));
                }
                // SAFETY: the pages lie in the window, and nobody refers to what is in them.
                unsafe { raw::unmap_scattered(&vectors) }.unwrap();
            }
            let page = fresh(&mut present);
            touch(page);
            order.push_back(page);
        }
        vec![start.elapsed().as_nanos() as f64 / f64::from(FILLS)]
    });
}
