//! Where the bytes of an object are: in one frame, or in two.

use pageless_fault::{FrameMemory, NoSuchFrame};
use pageless_pfn::{ByteLen, PhysAddr};

/// One or two stretches of memory, the second of which goes on where the first ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) first: PhysAddr,
    pub(super) first_len: usize,
    /// Where the rest is; nothing if it is all in one frame.
    pub(super) second: Option<PhysAddr>,
    pub(super) second_len: usize,
}

impl Span {
    /// In bytes.
    pub(super) fn len(&self) -> usize {
        self.first_len + self.second_len
    }

    /// The stretches of memory of `len` bytes from `offset` on, each with where it begins and ends in those bytes.
    fn pieces(
        &self,
        offset: usize,
        len: usize,
    ) -> impl Iterator<Item = (PhysAddr, usize, usize)> + use<> {
        let in_first = self.first_len.saturating_sub(offset).min(len);
        let skipped = offset.saturating_sub(self.first_len);
        let first = (in_first > 0).then(|| (plus(self.first, offset), 0, in_first));
        let second = self.second.filter(|_| in_first < len);
        let second = second.map(|second| (plus(second, skipped), in_first, len));
        first.into_iter().chain(second)
    }

    /// Copies bytes out, from `offset` on. There are so many.
    pub(super) fn read(
        &self,
        memory: &impl FrameMemory,
        offset: usize,
        into: &mut [u8],
    ) -> Result<(), NoSuchFrame> {
        for (at, from, to) in self.pieces(offset, into.len()) {
            memory.read(at, &mut into[from..to])?;
        }
        Ok(())
    }

    /// Copies bytes in, from `offset` on. There is room for so many.
    pub(super) fn write(
        &self,
        memory: &impl FrameMemory,
        offset: usize,
        bytes: &[u8],
    ) -> Result<(), NoSuchFrame> {
        for (at, from, to) in self.pieces(offset, bytes.len()) {
            memory.write(at, &bytes[from..to])?;
        }
        Ok(())
    }
}

/// `bytes` further on.
pub(super) fn plus(at: PhysAddr, bytes: usize) -> PhysAddr {
    match at.checked_add(ByteLen::new(bytes as u64)) {
        Some(at) => at,
        None => unreachable!("an offset within a frame"),
    }
}
