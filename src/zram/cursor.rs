//! The memory of a request, a page at a time, wherever its segments begin and end.

use pageless_block::{AccessError, BlkError, Memory, MemorySegment};
use pageless_pfn::ByteLen;

use pageless_vmap::compress::PAGE;

/// How far the memory of a request has been used.
#[derive(Debug)]
pub(super) struct Cursor<'a, D> {
    parts: Memory<'a, D>,
    /// What is left of the segment before those.
    rest: Option<MemorySegment<D>>,
}

impl<'a, D: Copy> Cursor<'a, D> {
    pub(super) fn new(parts: Memory<'a, D>) -> Self {
        Self { parts, rest: None }
    }

    /// Hands the parts of the next page to `each`, with their places in it. A request that ends within a page, which no
    /// queue lets through, is an I/O error.
    pub(super) fn next_page(
        &mut self,
        mut each: impl FnMut(MemorySegment<D>, usize) -> Result<(), AccessError>,
    ) -> Result<(), BlkError> {
        let mut at = 0;
        while at < PAGE {
            let whole = self.rest.take().or_else(|| self.parts.next());
            let whole = whole.ok_or(BlkError::Io)?;
            let len = whole.len().get().min((PAGE - at) as u64);
            let (here, left) = (ByteLen::new(len), whole.len().get() - len);
            self.rest = whole.slice(here, ByteLen::new(left));
            let part = whole.slice(ByteLen::ZERO, here).ok_or(BlkError::Io)?;
            each(part, at)?;
            at += len as usize;
        }
        Ok(())
    }
}
