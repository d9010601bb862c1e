//! Whether the books agree with each other and with the page table.

use alloc::vec::Vec;

use pageless_fault::Vspace;
use pageless_fault::sync::atomic::Ordering;
use pageless_pfn::PAGE_SIZE;

use crate::area::listing::AreaKind;
use crate::area::node::State;
use crate::area::space::{AreaSpace, Deferred};
use crate::area::span::{PageNumber, Span, offset};

impl<S: Vspace> AreaSpace<S> {
    /// Compares the books with each other and with the page table: every page of the space is in exactly one place, what is in use is
    /// mapped, what waits is not, nothing is mapped behind an area. Only while nobody else works on the space.
    ///
    /// # Errors
    ///
    /// What is wrong.
    pub fn self_check(&self) -> Result<(), &'static str> {
        let _turn = self.purge.turn(&self.space);
        let mut spans: Vec<Span> = Vec::new();
        {
            let free = self.free.lock();
            free.self_check()?;
            spans.extend(free.holes());
        }
        // Put off: addresses that were never mapped, and areas that have left the page table.
        let mut never: Vec<Span> = Vec::new();
        let mut leaving: Vec<PageNumber> = Vec::new();
        for _ in 0..self.deferred.len() {
            if let Some(deferred) = self.deferred.pop() {
                match &deferred {
                    Deferred::Never(span) => never.push(*span),
                    Deferred::Lazy(unflushed) => {
                        leaving.push(unflushed.range().start().get() / PAGE_SIZE);
                    }
                    _ => {}
                }
                self.deferred.push(deferred);
            }
        }
        let mut lazy = 0;
        for node in &self.nodes {
            spans.extend(node.pools.lock().spans());
            let areas = node.areas.lock();
            let mut waiting = 0;
            for (first, record) in &areas.records {
                if *first != record.span.first() {
                    return Err("areas: a record in the wrong place");
                }
                spans.push(record.span);
                never.retain(|span| span != &record.span);
                if record.pages + self.guard() > record.span.pages() {
                    return Err("areas: no room for the guard page");
                }
                let mapped = self.mapped(record.span);
                match record.state {
                    State::Busy(_) if mapped != record.pages => {
                        return Err("areas: pages in use that show nothing, or others that do");
                    }
                    State::Leaving if !leaving.contains(first) => {
                        return Err("areas: an unmapping that nobody will finish");
                    }
                    State::Leaving | State::Lazy | State::Quarantined if mapped > 0 => {
                        return Err("areas: something is mapped that is unmapped");
                    }
                    State::Leaving => lazy += record.span.pages(),
                    State::Lazy => {
                        lazy += record.span.pages();
                        waiting += 1;
                    }
                    _ => {}
                }
                if self.guard() > 0
                    && record.kind != AreaKind::RamBlock
                    && self
                        .space
                        .translate(offset(record.span.end() - 1))
                        .is_some()
                {
                    return Err("areas: a guard page shows something");
                }
            }
            if waiting != areas.lazy.len() + areas.flushed.len() {
                return Err("areas: not all that is unmapped is in a list");
            }
            if areas.flushed.len() as u64 != node.flushed.load(Ordering::Relaxed) {
                return Err("areas: count of those that have been shot down");
            }
            // They wait no more, but for being taken apart.
            lazy -= areas
                .flushed
                .iter()
                .map(|area| area.span.pages())
                .sum::<u64>();
        }
        spans.append(&mut never);
        for span in self.ram.used() {
            if self.mapped(span) != span.pages() {
                return Err("small mappings: a page in use that shows nothing");
            }
        }
        lazy += self.ram.waiting();
        if lazy != self.lazy_pages.sum() {
            return Err("count of pages that wait");
        }
        self.tiled(spans)
    }

    /// How many pages of `span` show a frame.
    fn mapped(&self, span: Span) -> u64 {
        let shown = |page: &PageNumber| self.space.translate(offset(*page)).is_some();
        (span.first()..span.end()).filter(shown).count() as u64
    }

    /// Whether `spans` are the whole space, without gaps and overlaps.
    fn tiled(&self, mut spans: Vec<Span>) -> Result<(), &'static str> {
        spans.sort_unstable();
        let mut end = self.whole.first();
        for span in spans {
            if span.first() < end {
                return Err("addresses that are in two places");
            }
            if span.first() > end {
                return Err("addresses that are nowhere");
            }
            end = span.end();
        }
        if end != self.whole.end() {
            return Err("addresses at the end that are nowhere");
        }
        Ok(())
    }
}
