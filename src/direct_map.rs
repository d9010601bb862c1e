//! Memory by frame number, for bios.
#![expect(unsafe_code, reason = "spans of memory that others may write to")]

use core::ops::Deref;

use pageless_block::{AccessError, FrameAccess, Span};
use pageless_fault::FrameMemory;
use pageless_pfn::{ByteLen, PAGE_SIZE, Pfn, PfnRange, PhysSegment};

/// Bytes of a frame, as Rust counts them.
const FRAME: usize = PAGE_SIZE as usize;

/// Reaches the frames of a [`FrameMemory`] for bios, as drivers in a kernel reach memory through the direct map.
///
/// A bio of [`block`](crate::block) names frames, and memory of [`vmap`](crate::vmap) consists of frames, whether it is contiguous or seen in one piece
/// through a mapping. `P` points to the memory: a reference, or an `Arc` for a device that lives longer.
///
/// Where the process has the memory at an address (on the host), bytes are copied straight from and to it. Where it has not (on the
/// modelled machine), they go through a copy of up to a frame, of which what was changed is written back.
///
/// Whoever submits a bio keeps its memory until it has completed: a bio holds no reference to a block or an area.
///
/// ```
/// use std::sync::Arc;
/// use pageless::DirectMap;
/// use pageless::block::{Bio, Op, Pmem, PmemFrames, Sector, submit_sync};
/// use pageless::fault::MaySleep;
/// use pageless::pfn::{ByteLen, FrameCount, Pfn};
/// use pageless::vmap::frames::{Fragmentation, Gfp, Order};
/// use pageless::vmap::host::HostMm;
///
/// let mm = HostMm::new(FrameCount::new(4096))?;
/// let device = PmemFrames::memfd(Pfn::try_new(1 << 30)?, ByteLen::new(1 << 20))?;
/// let device = Pmem::new(device, DirectMap::new(Arc::clone(mm.frames().memory())));
///
/// // 64 KiB, in pieces and at one address.
/// let (ctx, order) = (MaySleep::claim(), Order::try_new(4)?);
/// let _taken = mm.frames().fragment(Fragmentation { order, keep_free: 333, seed: 1 })?;
/// let block = mm.pages().alloc(&Gfp::kernel(&ctx).virtual_fallback(), order)?;
/// block.write(4090, b"across a boundary")?;
///
/// let mut write = Bio::new(Op::Write, Sector::new(8));
/// write.extend(block.segments());
/// submit_sync(&device, write)?.result()?;
/// block.write(4090, &[0; 17])?;
///
/// let mut read = Bio::new(Op::Read, Sector::new(8));
/// read.extend(block.segments());
/// submit_sync(&device, read)?.result()?;
/// let mut found = [0; 17];
/// block.read(4090, &mut found)?;
/// assert_eq!(&found, b"across a boundary");
/// # Ok::<(), Box<dyn core::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct DirectMap<P>(P);

impl<P: Deref<Target: FrameMemory>> DirectMap<P> {
    /// All frames of `memory`.
    pub const fn new(memory: P) -> Self {
        Self(memory)
    }

    /// Which frames.
    pub fn frames(&self) -> PfnRange {
        self.0.frames()
    }
}

impl<P: Deref<Target: FrameMemory>> FrameAccess for DirectMap<P> {
    fn covers(&self, pfn: Pfn) -> bool {
        self.frames().contains(pfn)
    }

    fn with<R>(
        &self,
        segment: PhysSegment,
        f: impl FnOnce(Span<'_>) -> R,
    ) -> Result<R, AccessError> {
        let pfn = segment.frame().pfn();
        let not_backed = AccessError::NotBacked { pfn };
        let len = inside(self.frames(), segment).ok_or(not_backed)?;
        if let Some(cells) = self.0.cells(segment.phys(), len) {
            // SAFETY: the cells are borrowed until `f` has returned, what is in a cell may be written through a reference to it, and the
            // memory permits that (`FrameMemory::cells`). Nobody has a reference to the bytes in them but by `FrameMemory::view`, whose
            // caller has promised that nobody writes there, by a bio or otherwise.
            let span = unsafe { Span::from_raw(cells.as_ptr().cast_mut().cast(), cells.len()) };
            return Ok(f(span));
        }
        through_a_copy(&*self.0, segment, len, f).ok_or(not_backed)
    }
}

/// How many bytes of the segment, from its first, lie in `frames`. It may run on into the frames of another provider.
fn inside(frames: PfnRange, segment: PhysSegment) -> Option<usize> {
    let before = segment.phys().checked_offset_from(frames.start().phys())?;
    let here = frames.count().bytes()?.checked_sub(before)?;
    let len = here.min(segment.len());
    // Less than there are is no error either.
    (len > ByteLen::ZERO).then(|| usize::try_from(len.get()).unwrap_or(usize::MAX))
}

/// Has `f` see a copy of up to a frame, and writes back from the first byte that it has changed to the last. What it only reads is not
/// written: somebody else may be writing there. `None` if there are no such bytes.
fn through_a_copy<M: FrameMemory + ?Sized, R>(
    memory: &M,
    segment: PhysSegment,
    len: usize,
    f: impl FnOnce(Span<'_>) -> R,
) -> Option<R> {
    let (mut copy, mut before) = ([0; FRAME], [0; FRAME]);
    let len = len.min(FRAME);
    let (copy, before) = (&mut copy[..len], &mut before[..len]);
    memory.read(segment.phys(), copy).ok()?;
    before.copy_from_slice(copy);
    // SAFETY: the copy is borrowed here and nobody else's, and not looked at before `f` has returned.
    let result = f(unsafe { Span::from_raw(copy.as_mut_ptr(), len) });
    let changed = |at: &usize| copy[*at] != before[*at];
    if let (Some(first), Some(last)) = ((0..len).find(changed), (0..len).rfind(changed)) {
        let at = segment.phys().checked_add(ByteLen::new(first as u64))?;
        memory.write(at, &copy[first..=last]).ok()?;
    }
    Some(result)
}
