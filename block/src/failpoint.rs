//! Steps that can be made to fail, by name.
//!
//! Allocations and queue steps that may fail in the field hardly ever do in a test. Each of them asks
//! its point first; with the feature `failpoints` a test arms a point, and the step fails as if
//! memory, tags or the device were short. Without the feature the answer is `false` at compile time.

/// A step that may fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Failpoint {
    /// No memory for a piece of a bio that is split.
    BioAlloc,
    /// No memory for what joins the pieces of a bio.
    ChainAlloc,
    /// No memory for a request.
    RequestAlloc,
    /// No tag is free.
    TagGet,
    /// The scheduler has no room for a request.
    ElevatorInsert,
    /// The device is too busy for a request, before it was asked.
    DeviceBusy,
    /// No memory for frames that a device without pageless I/O can use.
    BounceAlloc,
    /// No memory for a block that a volatile cache is to keep.
    CacheAlloc,
    /// No memory for a frame of a sparse store.
    StoreAlloc,
}

impl Failpoint {
    /// Every point.
    pub const ALL: [Self; 9] = [
        Self::BioAlloc,
        Self::ChainAlloc,
        Self::RequestAlloc,
        Self::TagGet,
        Self::ElevatorInsert,
        Self::DeviceBusy,
        Self::BounceAlloc,
        Self::CacheAlloc,
        Self::StoreAlloc,
    ];

    /// Its name: module, operation, effect.
    pub const fn name(self) -> &'static str {
        match self {
            Self::BioAlloc => "bio::split::no_memory",
            Self::ChainAlloc => "bio::chain::no_memory",
            Self::RequestAlloc => "request::get::no_memory",
            Self::TagGet => "tags::get::none_free",
            Self::ElevatorInsert => "elevator::insert::no_room",
            Self::DeviceBusy => "device::submit::busy",
            Self::BounceAlloc => "bounce::frames::no_memory",
            Self::CacheAlloc => "write_cache::keep::no_memory",
            Self::StoreAlloc => "store::frame::no_memory",
        }
    }

    /// Whether the step is to fail now.
    #[cfg(not(feature = "failpoints"))]
    #[inline(always)]
    pub(crate) const fn hit(self) -> bool {
        false
    }

    /// Whether the step is to fail now.
    #[cfg(feature = "failpoints")]
    pub(crate) fn hit(self) -> bool {
        armed::ARMED.with_borrow_mut(|armed| {
            let Some(plan) = armed.iter_mut().find(|plan| plan.point == self) else {
                return false;
            };
            plan.seen += 1;
            let fails = plan.seen > plan.skip && plan.seen - plan.skip <= plan.times;
            plan.failed += u64::from(fails);
            fails
        })
    }

    /// From now on and in this thread, `times` visits of this point fail, after `skip` that do not.
    #[cfg(feature = "failpoints")]
    pub fn arm(self, skip: u64, times: u64) {
        armed::ARMED.with_borrow_mut(|armed| {
            armed.retain(|plan| plan.point != self);
            armed.push(armed::Plan {
                point: self,
                skip,
                times,
                seen: 0,
                failed: 0,
            });
        });
    }

    /// Lets it alone again, in this thread, and says how often it was visited and how often it failed.
    #[cfg(feature = "failpoints")]
    pub fn disarm(self) -> (u64, u64) {
        armed::ARMED.with_borrow_mut(|armed| {
            let at = armed.iter().position(|plan| plan.point == self);
            at.map_or((0, 0), |at| {
                let plan = armed.swap_remove(at);
                (plan.seen, plan.failed)
            })
        })
    }
}

#[cfg(feature = "failpoints")]
mod armed {
    use super::Failpoint;
    use alloc::vec::Vec;
    use core::cell::RefCell;

    pub(super) struct Plan {
        pub(super) point: Failpoint,
        pub(super) skip: u64,
        pub(super) times: u64,
        pub(super) seen: u64,
        pub(super) failed: u64,
    }

    std::thread_local! {
        pub(super) static ARMED: RefCell<Vec<Plan>> = const { RefCell::new(Vec::new()) };
    }
}
