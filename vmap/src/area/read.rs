//! Reading across areas, whatever is mapped there.

use pageless_fault::{VirtAddr, Vspace};
use pageless_pfn::PAGE_SIZE;

use crate::area::listing::AreaState;
use crate::area::space::AreaSpace;
use crate::area::span::offset;

/// What a read found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Vread {
    /// Bytes that came from frames.
    pub read: usize,
    /// Bytes that nothing is mapped for: they were filled with zeroes.
    pub zeroed: usize,
}

impl<S: Vspace> AreaSpace<S> {
    /// Reads the space from `address` on, across areas and what lies between them: zeroes come from where nothing is mapped. Never
    /// faults, and never looks at what has been unmapped. (Linux: `vread_iter`.)
    ///
    /// An area that is unmapped meanwhile is read, or not, page by page.
    pub fn vread(&self, address: VirtAddr, into: &mut [u8]) -> Vread {
        let mut found = Vread::default();
        let mut rest = into;
        let mut at = address.get();
        // The last area looked up: its addresses, and whether it is in use.
        let mut area: Option<(u64, u64, bool)> = None;
        while !rest.is_empty() {
            let in_page = PAGE_SIZE - at % PAGE_SIZE;
            let len = usize::try_from(in_page).map_or(rest.len(), |most| most.min(rest.len()));
            let (bytes, behind) = rest.split_at_mut(len);
            if !matches!(area, Some((start, end, _)) if start <= at && at < end) {
                area = self.find(VirtAddr::new(at)).map(|info| {
                    let busy = info.state == AreaState::Busy;
                    (info.start.get(), info.end.get(), busy)
                });
            }
            if matches!(area, Some((_, _, true))) && self.read_page(at, bytes) {
                found.read += len;
            } else {
                bytes.fill(0);
                found.zeroed += len;
            }
            rest = behind;
            let Some(next) = at.checked_add(len as u64) else {
                break;
            };
            at = next;
        }
        rest.fill(0);
        found.zeroed += rest.len();
        found
    }

    /// Reads within one page. False if nothing is mapped there.
    fn read_page(&self, address: u64, into: &mut [u8]) -> bool {
        let address = VirtAddr::new(address);
        let (Some(page), Some(at)) = (self.page_of(address), self.space.offset_of(address)) else {
            return false;
        };
        // The page table is asked first: a CPU that still has the translation of what is gone must not use it.
        self.space.translate(offset(page)).is_some() && self.space.read(at, into).is_ok()
    }
}
