//! Whether the marks agree with each other.

use alloc::format;
use alloc::string::String;

use pageless_fault::{FrameMemory, Vspace, Window};
use pageless_pfn::Pfn;

use super::mark::{HEAD, Mark, Marked, TAIL, VIRTUAL};
use super::pages::Pages;

impl<M, S, W> Pages<M, S, W>
where
    M: FrameMemory + 'static,
    S: Vspace + 'static,
    W: Window + 'static,
{
    /// Whether the marks of all pages agree with each other, while nobody works on them, and what the blocks are: how many, of how many
    /// pages.
    ///
    /// # Errors
    ///
    /// The first page that contradicts another.
    pub fn self_check(&self) -> Result<(u64, u64), String> {
        let (mut blocks, mut pages, mut tails) = (0, 0, 0);
        for pfn in self.ram.frames.memory().frames().iter() {
            let Some(found) = self.ram.look(pfn) else {
                continue;
            };
            let mark = found.mark();
            if mark == Mark::NONE {
                continue;
            }
            if mark.has(HEAD) == mark.has(TAIL) {
                return Err(format!("page {pfn}: {mark:?} is neither head nor tail"));
            }
            if mark.has(TAIL) {
                tails += 1;
                self.check_tail(pfn, mark)?;
                continue;
            }
            blocks += 1;
            pages += mark.order().frames().get();
            if found.count() == 0 {
                return Err(format!("page {pfn}: a head without references"));
            }
            for n in 0..mark.order().frames().get() {
                let nth = self
                    .nth(pfn, &found, n)
                    .ok_or_else(|| format!("page {pfn}: has no page {n}"))?;
                if self.compound_head(nth) != Some(pfn) || self.compound_index(nth) != Some(n) {
                    return Err(format!("page {nth}: is not page {n} of {pfn}"));
                }
            }
        }
        if pages != blocks + tails {
            return Err(format!(
                "{blocks} heads and {tails} tails, but blocks of {pages} pages"
            ));
        }
        Ok((blocks, pages))
    }

    fn check_tail(&self, pfn: Pfn, mark: Mark) -> Result<(), String> {
        let head = self.compound_head(pfn);
        let of_head = head.and_then(|head| Some(self.ram.look(head)?.mark()));
        match of_head {
            Some(of_head) if of_head.has(HEAD) && of_head.has(VIRTUAL) == mark.has(VIRTUAL) => {
                Ok(())
            }
            _ => Err(format!("page {pfn}: a tail whose head {head:?} is none")),
        }
    }
}
