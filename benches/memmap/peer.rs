//! What every side must do: from a pfn to its descriptor, take a reference, put it again.

use core::sync::atomic::{AtomicU64, Ordering};

/// Descriptors in one 4 KiB chunk.
pub(crate) const PER_CHUNK: u64 = 64;

/// A peer's descriptor: 64 bytes, of which the count is used. Aligned as the fields need and no
/// further, so that the maps may pack it beside its key.
#[derive(Default)]
#[repr(C)]
pub(crate) struct Slot {
    count: AtomicU64,
    rest: [u64; 7],
}

/// A peer's descriptor in a line of its own, for the peers that index into an array.
#[derive(Default)]
#[repr(C, align(64))]
pub(crate) struct Line(pub(crate) Slot);

const _: () = assert!(size_of::<Slot>() == 64 && size_of::<Line>() == 64);

impl Slot {
    /// Takes a reference. No check: the peers are given the fastest form.
    #[inline]
    pub(crate) fn get(&self) {
        self.count.fetch_add(1, Ordering::Acquire);
    }

    /// Puts it.
    #[inline]
    pub(crate) fn put(&self) {
        self.count.fetch_sub(1, Ordering::Release);
    }
}

/// A way from pfns `0..n` to their descriptors.
pub(crate) trait Peer: Sync + Sized {
    /// What the tables call it.
    const NAME: &'static str;

    /// Over `pfns` pfns, with as little resident as it can do with.
    fn sparse(pfns: u64) -> Self;

    /// Makes the descriptors of `pfns` exist.
    fn touch(&self, pfns: impl Iterator<Item = u64>);

    /// What one thread keeps at hand while it works.
    fn worker(&self) -> impl Worker;

    /// Over `pfns` pfns, with room for all of them where that can be asked for.
    fn roomy(pfns: u64) -> Self {
        Self::sparse(pfns)
    }

    /// Over `pfns` pfns, every descriptor existing.
    fn full(pfns: u64) -> Self {
        let peer = Self::roomy(pfns);
        peer.touch(0..pfns);
        peer
    }
}

/// One thread's way in.
pub(crate) trait Worker {
    /// Finds the descriptor, takes a reference, puts it.
    fn get_put(&self, pfn: u64);
}

impl<F: Fn(u64)> Worker for F {
    #[inline(always)]
    fn get_put(&self, pfn: u64) {
        self(pfn);
    }
}

/// xorshift64: the pfns of a run, cheap enough to be made in the loop.
#[derive(Clone, Copy)]
pub(crate) struct Stream(u64);

impl Stream {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    #[inline]
    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}
