//! What a block device is.

use alloc::boxed::Box;
use alloc::sync::Arc;

use crate::bio::Bio;
use crate::limits::LimitError;
use crate::position::SECTOR_SIZE;
use crate::request::{Done, QueueId, Request};
use crate::status::BlkError;
use pageless_pfn::ByteLen;

/// A block device. Writing one takes two methods; the other two are for devices that finish a
/// request later than they take it.
///
/// ```
/// use pageless_block::{BlkError, BlockDevice, DeviceInfo, FrameAccess, Op, Request};
/// use pageless_pfn::ByteLen;
///
/// /// Reads as zeroes, takes every write.
/// struct Zero<M>(M);
///
/// impl<M: FrameAccess> BlockDevice for Zero<M> {
///     fn info(&self) -> DeviceInfo {
///         DeviceInfo::new(ByteLen::new(1 << 40))
///     }
///
///     fn execute(&self, request: &Request) -> Result<(), BlkError> {
///         match request.op() {
///             Op::Read => request.segments().try_for_each(|s| Ok(self.0.zero_bytes(s)?)),
///             Op::Write | Op::WriteZeroes | Op::Flush => Ok(()),
///             _ => Err(BlkError::NotSupported),
///         }
///     }
/// }
/// ```
///
/// Devices are shared by reference among the threads that own their queues; `&D`, `Box<D>` and
/// `Arc<D>` are devices too.
pub trait BlockDevice {
    /// Capacity and limits; must not change while a queue exists.
    fn info(&self) -> DeviceInfo;

    /// Carries `request` out and says how it went.
    ///
    /// The request lies within the device, is aligned to its logical block and no longer than
    /// its limit. Bytes move through a [`FrameAccess`](crate::FrameAccess) that the device owns
    /// or borrows.
    ///
    /// A device that finishes later waits here until it has: this is how
    /// [`submit_sync`](crate::submit_sync) reaches it, from any thread.
    ///
    /// # Errors
    /// Whatever the completion shall report.
    fn execute(&self, request: &Request) -> Result<(), BlkError>;

    /// Takes `request` in. A device that keeps it (`None`) completes it later, in
    /// [`BlockDevice::poll`]; `Some` completes this very request. The queue panics at a driver that
    /// answers with another one.
    #[inline]
    fn submit(&self, request: Request) -> Option<Done> {
        let result = self.execute(&request);
        Some(request.complete(result))
    }

    /// Hands over the requests of `queue` that have been completed since the last time. Called
    /// by the thread that owns the queue, and only while the device holds some of its requests.
    fn poll(&self, queue: QueueId, done: &mut dyn FnMut(Done)) {
        let _ = (queue, done);
    }
}

macro_rules! forward {
    ($($pointer:ty),*) => {$(
        impl<D: BlockDevice + ?Sized> BlockDevice for $pointer {
            #[inline]
            fn info(&self) -> DeviceInfo {
                (**self).info()
            }

            #[inline]
            fn execute(&self, request: &Request) -> Result<(), BlkError> {
                (**self).execute(request)
            }

            #[inline]
            fn submit(&self, request: Request) -> Option<Done> {
                (**self).submit(request)
            }

            #[inline]
            fn poll(&self, queue: QueueId, done: &mut dyn FnMut(Done)) {
                (**self).poll(queue, done);
            }
        }
    )*};
}

forward!(&D, Box<D>, Arc<D>);

/// Capacity and limits of a device.
///
/// ```
/// use pageless_block::DeviceInfo;
/// use pageless_pfn::ByteLen;
/// let info = DeviceInfo::new(ByteLen::new(6 << 40))
///     .with_logical_block(ByteLen::new(4096))?
///     .with_max_request(ByteLen::new(1 << 20))?;
/// assert_eq!(info.logical_block().get(), 4096);
/// assert!(DeviceInfo::new(ByteLen::ZERO).with_logical_block(ByteLen::new(100)).is_err());
/// # Ok::<(), pageless_block::LimitError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceInfo {
    capacity: u64,
    /// A power of two, at least a sector.
    logical_block: u64,
    /// A multiple of `logical_block`.
    max_request: u64,
    accepts_pageless: bool,
}

impl DeviceInfo {
    /// A device of this size: logical block of one sector, no limit on a request, frames without
    /// descriptors welcome.
    pub const fn new(capacity: ByteLen) -> Self {
        Self {
            capacity: capacity.get(),
            logical_block: SECTOR_SIZE,
            max_request: u64::MAX - (u64::MAX % SECTOR_SIZE),
            accepts_pageless: true,
        }
    }

    /// The same with a logical block of this many bytes, to which everything must be aligned.
    ///
    /// # Errors
    /// [`LimitError`] unless it is a power of two, at least a sector, and no longer than the
    /// longest request.
    pub const fn with_logical_block(mut self, len: ByteLen) -> Result<Self, LimitError> {
        let block = len.get();
        if !block.is_power_of_two() || block < SECTOR_SIZE || block > self.max_request {
            return Err(LimitError::LogicalBlock { len });
        }
        self.logical_block = block;
        self.max_request -= self.max_request % block;
        Ok(self)
    }

    /// The same with requests of at most this many bytes, rounded down to a logical block.
    /// Longer bios are split.
    ///
    /// # Errors
    /// [`LimitError`] if that is less than one logical block.
    pub const fn with_max_request(mut self, len: ByteLen) -> Result<Self, LimitError> {
        let max = len.get() - len.get() % self.logical_block;
        if max == 0 {
            return Err(LimitError::MaxRequest {
                len,
                logical_block: ByteLen::new(self.logical_block),
            });
        }
        self.max_request = max;
        Ok(self)
    }

    /// The same for a device that insists on frames which may have a descriptor. Bios with
    /// others fail with [`BlkError::NotSupported`].
    #[must_use]
    pub const fn without_pageless(mut self) -> Self {
        self.accepts_pageless = false;
        self
    }

    /// Its size.
    pub const fn capacity(&self) -> ByteLen {
        ByteLen::new(self.capacity)
    }

    /// What positions and lengths must be multiples of.
    pub const fn logical_block(&self) -> ByteLen {
        ByteLen::new(self.logical_block)
    }

    /// The longest request; a multiple of the logical block.
    pub const fn max_request(&self) -> ByteLen {
        ByteLen::new(self.max_request)
    }

    /// Whether frames without descriptors are welcome.
    pub const fn accepts_pageless(&self) -> bool {
        self.accepts_pageless
    }

    /// The longest piece of a bio that goes to the device in one request.
    #[inline]
    pub(crate) const fn piece(&self) -> u64 {
        self.max_request
    }

    /// Whether the device is to see a well-formed `bio` at all.
    #[inline]
    pub(crate) fn admit(&self, bio: &Bio) -> Result<(), BlkError> {
        // Well-formed: neither this product nor the sum overflows.
        let start = bio.sector().get().wrapping_mul(SECTOR_SIZE);
        let len = bio.len().get();
        if len > self.capacity || start > self.capacity - len {
            return Err(BlkError::Io);
        }
        if (start | len) & (self.logical_block - 1) != 0 {
            return Err(BlkError::Invalid);
        }
        if !self.accepts_pageless && !bio.segments().iter().all(|s| s.frame().paged().is_ok()) {
            return Err(BlkError::NotSupported);
        }
        Ok(())
    }
}
