//! What a cache is made with.

use alloc::sync::Arc;
use core::fmt;

use pageless_pfn::ByteLen;

use crate::frames::Order;

/// Writes what every new object holds; it is shown zeroes. Called once for each object of a new slab, and not for an object that was
/// free for a while: who frees one leaves it as it was constructed.
pub type Constructor = Arc<dyn Fn(&mut [u8]) + Send + Sync>;

/// What a cache is made with.
#[derive(Clone)]
pub struct SlabConfig {
    /// What it is called in listings.
    pub name: &'static str,
    /// Bytes of an object.
    pub object: ByteLen,
    /// Its address is a multiple of this: a power of two, of a page at most.
    pub align: ByteLen,
    /// Size of a slab.
    pub order: Order,
    /// A slab that becomes empty goes back if there are so many with free objects, itself included, beside those that CPUs have to themselves
    /// (`min_partial`).
    pub min_partial: usize,
    /// Whether free objects are filled with a pattern that is looked at again, and the space behind objects as well (`slub_debug=PZ`).
    pub debug: bool,
    /// What new objects hold; without one it is anything.
    pub constructor: Option<Constructor>,
}

impl SlabConfig {
    /// Objects of `object` bytes in slabs of `order`; aligned to 8 bytes, 5 partial slabs, nothing constructed, nothing checked.
    #[must_use]
    pub fn new(name: &'static str, object: ByteLen, order: Order) -> Self {
        SlabConfig {
            name,
            object,
            align: ByteLen::new(8),
            order,
            min_partial: 5,
            debug: false,
            constructor: None,
        }
    }
}

impl fmt::Debug for SlabConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SlabConfig")
            .field("name", &self.name)
            .field("object", &self.object)
            .field("align", &self.align)
            .field("order", &self.order)
            .field("min_partial", &self.min_partial)
            .field("debug", &self.debug)
            .field("constructor", &self.constructor.is_some())
            .finish()
    }
}
