//! What is done to a block before it ends.

use alloc::boxed::Box;
use alloc::sync::Arc;

use pageless_fault::sync::Mutex;
use pageless_pfn::Pfn;
use spin::Once;

use crate::frames::Order;

/// Called when the last reference to a block has gone, while its pages can still be reached by their addresses. It may be called where
/// nobody may sleep.
pub type Destructor = Arc<dyn Fn(Pfn, Order) + Send + Sync>;

/// A destructor that has been registered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DestructorId(pub(super) u32);

type Segment = Box<[Once<Destructor>]>;

/// All that have been registered: they stay where they are, so that whoever ends a block finds its own without a lock.
pub(super) struct Destructors {
    /// Segment n has those with the numbers 2^n to 2^(n+1) - 1.
    segments: [Once<Segment>; u32::BITS as usize],
    /// How many there are. Numbers begin at 1.
    registered: Mutex<u32>,
}

impl Default for Destructors {
    fn default() -> Self {
        Destructors {
            segments: [const { Once::new() }; u32::BITS as usize],
            registered: Mutex::new(0),
        }
    }
}

impl Destructors {
    pub(super) fn register(&self, destructor: Destructor) -> DestructorId {
        let mut registered = self.registered.lock();
        let id = *registered + 1;
        let number = id.ilog2();
        let segment = self.segments[number as usize]
            .call_once(|| (0..1_u64 << number).map(|_| Once::new()).collect());
        segment[(id - (1 << number)) as usize].call_once(|| destructor);
        *registered = id;
        DestructorId(id)
    }

    pub(super) fn find(&self, id: u32) -> Option<&Destructor> {
        let number = id.checked_ilog2()?;
        let segment = self.segments[number as usize].get()?;
        segment[(id - (1 << number)) as usize].get()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use alloc::vec::Vec;
    use core::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[test]
    fn each_is_found_by_its_number_though_somebody_registers_another() {
        let destructors = Destructors::default();
        let called = Arc::new(AtomicU32::new(0));
        let ids: Vec<_> = (1..=100)
            .map(|n| {
                let called = Arc::clone(&called);
                destructors.register(Arc::new(move |_, _| called.store(n, Ordering::Relaxed)))
            })
            .collect();
        // With a lock to wait for, this would not end.
        let _registering = destructors.registered.lock();
        for (id, n) in ids.iter().zip(1..) {
            let destructor = destructors.find(id.0).unwrap();
            destructor(Pfn::MIN, Order::ZERO);
            assert_eq!(called.load(Ordering::Relaxed), n);
        }
        for none in [0, 101, 128, u32::MAX] {
            assert!(destructors.find(none).is_none());
        }
    }
}
