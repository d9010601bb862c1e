//! What is done to a block before it ends.

use alloc::sync::Arc;
use alloc::vec::Vec;

use pageless_fault::sync::Mutex;
use pageless_pfn::Pfn;

use crate::frames::Order;

/// Called when the last reference to a block has gone, while its pages can still be reached by their addresses. It may be called where
/// nobody may sleep.
pub type Destructor = Arc<dyn Fn(Pfn, Order) + Send + Sync>;

/// A destructor that has been registered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DestructorId(pub(super) u32);

/// All that have been registered: they stay.
pub(super) struct Destructors(Mutex<Vec<Destructor>>);

impl Default for Destructors {
    fn default() -> Self {
        Destructors(Mutex::new(Vec::new()))
    }
}

impl Destructors {
    pub(super) fn register(&self, destructor: Destructor) -> DestructorId {
        let mut all = self.0.lock();
        all.push(destructor);
        DestructorId(all.len() as u32)
    }

    pub(super) fn find(&self, id: u32) -> Option<Destructor> {
        let at = usize::try_from(id).ok()?.checked_sub(1)?;
        self.0.lock().get(at).cloned()
    }
}
