//! Where in a slab things are.
//!
//! ```text
//!   plain                        constructed, or checked
//!   +------+-----------+-----+   +-----------+----------+------+-----+
//!   | link | object .. | pad |   | object .. | red zone | link | pad |     each of them a stride
//!   +------+-----------+-----+   +-----------+----------+------+-----+
//!     of a free one: the object's own bytes
//! ```

use pageless_fault::VirtAddr;
use pageless_pfn::{ByteLen, PAGE_SIZE};

use super::config::SlabConfig;
use super::error::SlabConfigError;
use crate::frames::Order;

/// Bytes of a link: the number of the next free object, counted from 1, or 0.
pub(super) const LINK: u64 = 4;
/// Bytes behind an object that nobody may write.
pub(super) const RED_ZONE: u64 = 8;

/// Where in a slab things are. All in bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Layout {
    pub(super) object: u64,
    /// Of the link, in an object that is free.
    pub(super) link_at: u64,
    pub(super) stride: u64,
    /// Objects in a slab.
    pub(super) objects: u32,
    pub(super) order: Order,
    pub(super) is_checked: bool,
}

impl Layout {
    pub(super) fn of(config: &SlabConfig) -> Result<Self, SlabConfigError> {
        let (object, align) = (config.object.get(), config.align.get());
        if object == 0 {
            return Err(SlabConfigError::Empty);
        }
        if !align.is_power_of_two() || align > PAGE_SIZE {
            return Err(SlabConfigError::Align {
                align: config.align,
            });
        }
        let slab = config.order.frames().get() * PAGE_SIZE;
        let too_large = |object| SlabConfigError::Large {
            object: ByteLen::new(object),
            slab: ByteLen::new(slab),
        };
        let zone = if config.debug { RED_ZONE } else { 0 };
        let keeps = config.debug || config.constructor.is_some();
        let stride = if keeps {
            let behind = object.checked_add(zone);
            behind.and_then(|end| end.checked_next_multiple_of(LINK)?.checked_add(LINK))
        } else {
            Some(object.max(LINK))
        };
        let stride = stride.and_then(|bytes| bytes.checked_next_multiple_of(align.max(LINK)));
        let stride = stride.ok_or_else(|| too_large(u64::MAX))?;
        let objects = slab / stride;
        if objects == 0 {
            return Err(too_large(stride));
        }
        let numbered = u32::try_from(objects)
            .ok()
            .filter(|&objects| objects < u32::MAX);
        Ok(Layout {
            object,
            link_at: if keeps {
                (object + zone).next_multiple_of(LINK)
            } else {
                0
            },
            stride,
            objects: numbered.ok_or(SlabConfigError::Many { objects })?,
            order: config.order,
            is_checked: config.debug,
        })
    }

    /// The address of object `index` of a slab that begins at `base`.
    pub(super) fn address(&self, base: VirtAddr, index: u32) -> VirtAddr {
        match base.checked_add(u64::from(index) * self.stride) {
            Some(address) => address,
            None => unreachable!("a slab that ends behind the last address"),
        }
    }

    /// Which object of a slab at `base` begins at `address`.
    pub(super) fn index(&self, base: VirtAddr, address: VirtAddr) -> Option<u32> {
        let at = address.checked_offset_from(base)?;
        let index = u32::try_from(at / self.stride).ok()?;
        (at.is_multiple_of(self.stride) && index < self.objects).then_some(index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(object: u64, order: u8, debug: bool) -> Result<Layout, SlabConfigError> {
        let order = Order::try_new(order).unwrap();
        let config = SlabConfig {
            debug,
            ..SlabConfig::new("test", ByteLen::new(object), order)
        };
        Layout::of(&config)
    }

    #[test]
    fn an_object_lies_at_the_multiples_of_its_stride_and_nowhere_else() {
        let layout = layout(600, 3, false).unwrap();
        assert_eq!((layout.stride, layout.objects), (600, 54));
        let base = VirtAddr::new(0x1000);
        for index in 0..layout.objects {
            let address = layout.address(base, index);
            assert_eq!(layout.index(base, address), Some(index));
            assert_eq!(layout.index(base, VirtAddr::new(address.get() + 8)), None);
        }
        assert_eq!(layout.index(base, VirtAddr::new(0x1000 + 54 * 600)), None);
        assert_eq!(layout.index(base, VirtAddr::new(0xfff)), None);
    }

    #[test]
    fn what_lies_behind_a_checked_object_does_not_overlap_it() {
        let layout = layout(61, 0, true).unwrap();
        assert!(layout.link_at >= 61 + RED_ZONE);
        assert!(layout.stride >= layout.link_at + LINK);
        assert_eq!(layout.objects, 4096 / 80);
    }

    #[test]
    fn sizes_that_are_none_are_refused() {
        assert_eq!(layout(0, 0, false).unwrap_err(), SlabConfigError::Empty);
        for object in [4097, u64::MAX] {
            let error = layout(object, 0, false).unwrap_err();
            assert!(matches!(error, SlabConfigError::Large { .. }), "{error}");
            let error = layout(object, 0, true).unwrap_err();
            assert!(matches!(error, SlabConfigError::Large { .. }), "{error}");
        }
        assert_eq!(layout(1, 0, false).unwrap().objects, 512);
    }
}
