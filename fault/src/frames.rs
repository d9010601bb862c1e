//! Memory by frame number: what the direct map of a kernel is for.

use core::cell::UnsafeCell;

use pageless_pfn::{PfnRange, PhysAddr};

use crate::cpus::Cpus;
use crate::vspace::VirtAddr;

/// A stretch of memory, reached by the number of its frames and not through a translation that could be taken away.
///
/// Whoever reads and writes a frame here owns it, or has been lent it by its owner: the memory keeps no books of who may.
pub trait FrameMemory: Cpus + Send + Sync {
    /// The frames there are.
    fn frames(&self) -> PfnRange;

    /// Where the first frame is in the direct map. On a machine without one, where Linux would have it
    /// (`page_offset_base`, Documentation/arch/x86/x86_64/mm.rst): an address that means something to whoever asks, and to no CPU.
    fn direct_map(&self) -> VirtAddr {
        let start = self.frames().start().phys().get();
        VirtAddr::new(0xffff_8880_0000_0000 + start)
    }

    /// Copies `into.len()` bytes out of memory, from `at` on, across frames if need be.
    ///
    /// # Errors
    ///
    /// Some of the bytes lie outside [`frames`](Self::frames); nothing has been read.
    fn read(&self, at: PhysAddr, into: &mut [u8]) -> Result<(), NoSuchFrame>;

    /// Copies `from` into memory, from `at` on, across frames if need be.
    ///
    /// # Errors
    ///
    /// Some of the bytes lie outside [`frames`](Self::frames); nothing has been written.
    fn write(&self, at: PhysAddr, from: &[u8]) -> Result<(), NoSuchFrame>;

    /// Fills whole frames with zeroes.
    ///
    /// # Errors
    ///
    /// Some of the frames are outside [`frames`](Self::frames); nothing has been written.
    fn zero(&self, frames: PfnRange) -> Result<(), NoSuchFrame>;

    /// Ends the life of `frames`: whoever owned them has given them back, and every translation to them has been proved gone. A
    /// modelled machine fills them with poison and takes any later access through an older translation for the bug that it is.
    fn retire(&self, frames: PfnRange);

    /// The `len` bytes from `at` on, where this process has them at an address: for whoever can copy while others write. `None` where memory
    /// is only ever [read](Self::read) and [written](Self::write), as it is unless a machine says otherwise, and where some of the bytes
    /// lie outside [`frames`](Self::frames).
    ///
    /// A machine that answers permits that anybody copies from and to those bytes at any time, as by `read` and `write`.
    fn cells(&self, _at: PhysAddr, _len: usize) -> Option<&[UnsafeCell<u8>]> {
        None
    }

    /// Shows `len` bytes from `at` on to `look`: the memory itself where the machine can, a copy where it cannot.
    ///
    /// # Errors
    ///
    /// Some of the bytes lie outside [`frames`](Self::frames); `look` has not been called.
    ///
    /// # Safety
    ///
    /// Nobody writes to those bytes while `look` runs.
    #[expect(
        unsafe_code,
        reason = "what is shown may be memory that others can write"
    )]
    unsafe fn view<R>(
        &self,
        at: PhysAddr,
        len: usize,
        look: impl FnOnce(&[u8]) -> R,
    ) -> Result<R, NoSuchFrame>;
}

/// Not a frame of this memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{len} bytes at physical {at:#x} lie outside the memory, which is frames {frames:?}")]
pub struct NoSuchFrame {
    /// Physical address asked for.
    pub at: u64,
    /// Bytes asked for.
    pub len: u64,
    /// What there is.
    pub frames: PfnRange,
}
