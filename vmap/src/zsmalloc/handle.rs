//! What a stored object is known by.

use core::fmt;
use core::num::NonZeroU64;
use core::sync::atomic::{AtomicU32, Ordering};

/// The right to one object of one pool. Not `Clone`: who gives it back has it no longer, so nobody frees twice or reads what is freed.
///
/// It neither knows its pool nor borrows it, and `Option<Handle>` is eight bytes: tables of many are what it is for. Dropped, its
/// object stays stored until the pool is dropped.
///
/// ```compile_fail,E0382
/// use pageless_vmap::zsmalloc::{FrameSource, Handle, Zsmalloc};
/// fn twice<F: FrameSource>(pool: &Zsmalloc<F>, handle: Handle) {
///     pool.free(handle);
///     pool.free(handle);
/// }
/// ```
///
/// ```
/// use pageless_vmap::zsmalloc::{FrameSource, Handle, Zsmalloc};
/// fn once<F: FrameSource>(pool: &Zsmalloc<F>, handle: Handle) {
///     assert!(pool.free(handle).is_ok());
/// }
/// ```
#[derive(PartialEq, Eq, Hash)]
#[must_use = "an object whose handle is lost is never freed"]
pub struct Handle(NonZeroU64);

const SLOT_BITS: u32 = 32;
const CLASS_BITS: u32 = 8;
const POOL_BITS: u32 = 24;

const _: () = assert!(SLOT_BITS + CLASS_BITS + POOL_BITS == u64::BITS);
const _: () = assert!(size_of::<Option<Handle>>() == 8);

impl Handle {
    pub(super) fn new(pool: PoolId, class: usize, slot: u32) -> Self {
        let pool = NonZeroU64::from(pool.0).get() << (SLOT_BITS + CLASS_BITS);
        let rest = (class as u64) << SLOT_BITS | u64::from(slot);
        match NonZeroU64::new(pool | rest) {
            Some(bits) => Handle(bits),
            None => unreachable!("a pool's number is not 0"),
        }
    }

    pub(super) fn pool(&self) -> u32 {
        (self.0.get() >> (SLOT_BITS + CLASS_BITS)) as u32
    }

    pub(super) fn class(&self) -> usize {
        (self.0.get() >> SLOT_BITS) as u8 as usize
    }

    pub(super) fn slot(&self) -> u32 {
        self.0.get() as u32
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle")
            .field("pool", &self.pool())
            .field("class", &self.class())
            .field("slot", &self.slot())
            .finish()
    }
}

/// Which pool a handle is of. The numbers come round again after 2^24 - 1 pools.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PoolId(core::num::NonZeroU32);

impl PoolId {
    pub(super) fn next() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed) % ((1 << POOL_BITS) - 1) + 1;
        match core::num::NonZeroU32::new(number) {
            Some(number) => PoolId(number),
            None => unreachable!("1 has been added"),
        }
    }

    pub(super) fn get(self) -> u32 {
        self.0.get()
    }
}
