//! A disk in memory that takes room only where it was written.

use core::fmt;

use pageless_pfn::ByteLen;

use crate::access::FrameAccess;
use crate::device::{BlockDevice, Submitted};
use crate::frames::sparse::SparseFrames;
use crate::limits::{Features, LimitError, Limits};
use crate::op::Op;
use crate::request::Request;
use crate::request::data::Data;
use crate::status::BlkError;

/// What brd is (drivers/block/brd.c): frames come into being with the first write to them, holes
/// read as zeroes, and a discard gives back the frames that it covers as a whole. Write-zeroes
/// gives those back, too, and writes to the others. Nothing outlives the device.
///
/// Memory for a frame that is not to be had is [`BlkError::NoSpace`], and what came before it is
/// done.
///
/// ```
/// use pageless_block::{Bio, HeapFrames, Ram, Sector, submit_sync};
/// use pageless_pfn::{ByteLen, FrameCount, Pfn};
/// let memory = HeapFrames::new(Pfn::try_new(0x100)?, FrameCount::new(1))?;
/// let buffer = memory.segment(0, ByteLen::new(4096)).unwrap();
/// // 1 TiB, of which a frame is in memory.
/// let disk = Ram::new(ByteLen::new(1 << 40), memory);
/// submit_sync(&disk, Bio::write(Sector::new(1 << 30), buffer))?.result()?;
/// assert_eq!(disk.store().resident(), FrameCount::new(1));
/// # Ok::<(), Box<dyn core::error::Error>>(())
/// ```
pub struct Ram<M> {
    store: SparseFrames,
    memory: M,
    limits: Limits,
}

impl<M: FrameAccess> Ram<M> {
    /// A disk of this size, all zeroes, for bios whose memory is `memory`'s.
    pub fn new(capacity: ByteLen, memory: M) -> Self {
        Self::with_store(SparseFrames::new(capacity), memory)
    }

    /// A disk of what is in `store`.
    pub fn with_store(store: SparseFrames, memory: M) -> Self {
        let mut limits = Limits::new(store.capacity());
        limits.max_discard = Limits::UNLIMITED;
        limits.max_write_zeroes = Limits::UNLIMITED;
        limits.features |= Features::SYNCHRONOUS | Features::NOWAIT;
        Self {
            store,
            memory,
            limits,
        }
    }

    /// The same with other limits: whatever `change` makes of its own. The capacity stays.
    ///
    /// # Errors
    /// [`LimitError`] if the limits make no sense then.
    pub fn with_limits(mut self, change: impl FnOnce(&mut Limits)) -> Result<Self, LimitError> {
        change(&mut self.limits);
        self.limits.capacity = self.store.capacity();
        self.limits.validate()?;
        Ok(self)
    }

    /// What is on it.
    pub const fn store(&self) -> &SparseFrames {
        &self.store
    }
}

impl<M> fmt::Debug for Ram<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ram")
            .field("store", &self.store)
            .finish_non_exhaustive()
    }
}

impl<M: FrameAccess> BlockDevice for Ram<M> {
    #[inline]
    fn limits(&self) -> Limits {
        self.limits
    }

    #[inline]
    fn submit(&self, request: Request) -> Submitted {
        request.run(|request| {
            let (at, len) = (request.position(), request.len());
            match (request.data(), request.op()) {
                (Data::ToMemory(_) | Data::FromMemory(_), _) => {
                    super::transfer(&self.store, &self.memory, request, at, len)
                }
                (Data::None, Op::Discard) => Ok(self.store.discard(at, len)?),
                (Data::None, Op::WriteZeroes) => Ok(self.store.zero(at, len)?),
                // Nothing is volatile but all of it.
                (Data::None, Op::Flush) => Ok(()),
                (Data::None, _) => Err(BlkError::NotSupported.into()),
            }
        })
    }
}
