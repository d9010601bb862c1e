//! Small mappings that come and go: pages of a block that one CPU has taken for many of them.
//!
//! A mapping costs a lock that is seldom fought over and a search in a bitmap; no addresses are taken, nothing is allocated,
//! nothing is written into the books of areas. (Linux: `vm_map_ram`, mm/vmalloc.c.)
//!
//! ```text
//!   a page of a block:   free ---map---> used ---unmap---> dirty ---purge looks---> flushing ---proved---> free
//! ```

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::fmt;
use core::mem::ManuallyDrop;

use pageless_fault::sync::Mutex;
use pageless_fault::{MapError, MaySleep, Protection, UnmapError, VirtAddr, Vspace, WindowOffset};
use pageless_pfn::{FrameCount, PfnRange};

use crate::area::listing::AreaKind;
use crate::area::space::{AllocAreaError, Area, AreaSpace, SpaceTag};
use crate::area::span::{PageNumber, Span, offset};
use crate::frames::{Context, Order};
use crate::mutant::Mutant;

/// The most pages of one small mapping: Linux's `VMAP_MAX_ALLOC`, the bits of a word.
pub const RAM_MOST: u64 = 64;
/// The most pages of a block.
const BLOCK_MOST: u64 = 1024;
const WORDS: usize = (BLOCK_MOST / 64) as usize;

/// A bit for each page of a block.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Bits([u64; WORDS]);

impl Bits {
    const NONE: Bits = Bits([0; WORDS]);

    fn set(&mut self, first: u64, pages: u64) {
        self.each_word(first, pages, |word, mask| *word |= mask);
    }

    fn clear(&mut self, first: u64, pages: u64) {
        self.each_word(first, pages, |word, mask| *word &= !mask);
    }

    /// Calls `change` with each word that has some of the bits, and those of them that it has.
    fn each_word(&mut self, first: u64, pages: u64, change: impl Fn(&mut u64, u64)) {
        let (mut bit, end) = (first, first + pages);
        while bit < end {
            let in_word = (64 - bit % 64).min(end - bit);
            let mask = (u64::MAX >> (64 - in_word)) << (bit % 64);
            change(&mut self.0[(bit / 64) as usize], mask);
            bit += in_word;
        }
    }

    fn get(&self, bit: u64) -> bool {
        self.0[(bit / 64) as usize] >> (bit % 64) & 1 != 0
    }

    fn is_empty(&self) -> bool {
        *self == Bits::NONE
    }

    fn count(&self) -> u64 {
        self.0.iter().map(|word| u64::from(word.count_ones())).sum()
    }

    /// The runs of set bits.
    fn runs(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        let mut bit = 0;
        core::iter::from_fn(move || {
            while bit < BLOCK_MOST && !self.get(bit) {
                // A whole word at a time where there is nothing.
                bit = match self.0[(bit / 64) as usize] >> (bit % 64) {
                    0 => (bit / 64 + 1) * 64,
                    rest => bit + u64::from(rest.trailing_zeros()),
                };
            }
            if bit >= BLOCK_MOST {
                return None;
            }
            let first = bit;
            while bit < BLOCK_MOST && self.get(bit) {
                // And here, where there is nothing else.
                let ones = (self.0[(bit / 64) as usize] >> (bit % 64)).trailing_ones();
                bit += u64::from(ones);
            }
            Some((first, bit - first))
        })
    }
}

/// A block of pages that one CPU hands out.
#[derive(Debug)]
struct RamBlock {
    /// Its addresses, guard included.
    span: Span,
    /// Pages that can be mapped.
    pages: u64,
    /// A word before which there is hardly anything free.
    hint: usize,
    /// Mapped, or being mapped.
    used: Bits,
    /// Unmapped, and no purge has looked yet.
    dirty: Bits,
    /// A purge has looked. If it fails, for ever.
    flushing: Bits,
}

impl RamBlock {
    /// Bits of pages that may not be mapped now, in one word.
    fn taken(&self, word: usize) -> u64 {
        if Mutant::DirtyPagesReused.active() {
            return self.used.0[word];
        }
        self.used.0[word] | self.dirty.0[word] | self.flushing.0[word]
    }

    /// The first of `pages` free pages in a row, beginning with the search at the hint.
    fn find(&mut self, pages: u64) -> Option<u64> {
        let words = (self.pages / 64) as usize;
        for n in 0..words {
            let word = (self.hint + n) % words;
            if self.taken(word) == u64::MAX {
                continue;
            }
            let next = if word + 1 < words {
                self.taken(word + 1)
            } else {
                u64::MAX
            };
            let mut run = !(u128::from(self.taken(word)) | u128::from(next) << 64);
            // Bit `i` of `run`: the `have` bits from `i` on are free.
            let mut have = 1;
            while have < pages {
                let step = have.min(pages - have);
                run &= run >> step;
                have += step;
            }
            let at = u64::from(run.trailing_zeros());
            if at < 64 {
                self.hint = word;
                return Some(word as u64 * 64 + at);
            }
        }
        None
    }

    fn is_free(&self) -> bool {
        self.used.is_empty() && self.dirty.is_empty() && self.flushing.is_empty()
    }
}

/// The blocks of one CPU.
#[derive(Debug, Default)]
struct CpuBlocks {
    /// By first page.
    blocks: BTreeMap<PageNumber, RamBlock>,
    /// Where there was room last.
    last: PageNumber,
    /// The number of the purge that looks here next: it covers what is dirty now.
    next_purge: u64,
    /// What has been done here so far. Under the lock that is taken anyway, and not in a shared word.
    done: RamCounts,
}

/// What has been done so far.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct RamCounts {
    /// Small mappings made.
    pub(crate) mapped: u64,
    /// Small mappings taken down.
    pub(crate) unmapped: u64,
    /// Blocks made.
    pub(crate) blocks: u64,
}

impl CpuBlocks {
    /// Marks `pages` free pages in a row as used.
    fn take(&mut self, pages: u64) -> Option<(PageNumber, u64)> {
        let mut found = None;
        if let Some(block) = self.blocks.get_mut(&self.last) {
            found = block.find(pages).map(|at| (self.last, at));
        }
        if found.is_none() {
            found = self
                .blocks
                .iter_mut()
                .find_map(|(&block, books)| Some((block, books.find(pages)?)));
        }
        let (block, at) = found?;
        self.last = block;
        self.done.mapped += 1;
        if let Some(books) = self.blocks.get_mut(&block) {
            books.used.set(at, pages);
        }
        Some((block, at))
    }
}

/// The blocks of all CPUs.
#[derive(Debug)]
pub(crate) struct RamBlocks {
    /// A CPU's blocks are its own only by habit: whoever unmaps, wherever he runs, comes to the CPU that mapped.
    cpus: Box<[OnItsOwnLine]>,
    /// Pages of a block.
    pages: u64,
}

#[derive(Debug)]
#[repr(align(128))]
struct OnItsOwnLine(Mutex<CpuBlocks>);

/// Pages in a row of one block.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RamRun {
    cpu: u16,
    block: PageNumber,
    /// In the block.
    first: u64,
    pages: u64,
}

impl RamRun {
    pub(crate) fn span(self) -> Span {
        Span::new(self.block + self.first, self.pages)
    }
}

impl RamBlocks {
    pub(crate) fn new(cpus: u16, pages: FrameCount) -> Self {
        RamBlocks {
            cpus: (0..cpus.max(1))
                .map(|_| OnItsOwnLine(Mutex::new(CpuBlocks::default())))
                .collect(),
            pages: pages.get().clamp(128, BLOCK_MOST).next_power_of_two(),
        }
    }

    /// Marks what is dirty as being flushed, for purge `number`, and says what that is.
    pub(crate) fn dirty_runs(&self, number: u64) -> Vec<RamRun> {
        let mut runs = Vec::new();
        for (cpu, blocks) in (0_u16..).zip(&self.cpus) {
            let mut blocks = blocks.0.lock();
            blocks.next_purge = number + 1;
            for (&block, books) in &mut blocks.blocks {
                let dirty = core::mem::take(&mut books.dirty);
                runs.extend(dirty.runs().map(|(first, pages)| RamRun {
                    cpu,
                    block,
                    first,
                    pages,
                }));
                for (flushing, dirty) in books.flushing.0.iter_mut().zip(dirty.0) {
                    *flushing |= dirty;
                }
            }
        }
        runs
    }

    /// The pages of `run` may be mapped again.
    pub(crate) fn flushed(&self, run: RamRun) {
        let mut blocks = self.cpus[usize::from(run.cpu)].0.lock();
        if let Some(books) = blocks.blocks.get_mut(&run.block) {
            books.flushing.clear(run.first, run.pages);
        }
    }

    /// Blocks in which nothing is mapped and nothing waits leave; but for one of each CPU, unless `all` of them are wanted.
    pub(crate) fn remove_empty(&self, all: bool) -> Vec<Span> {
        let mut spans = Vec::new();
        for blocks in &self.cpus {
            let mut blocks = blocks.0.lock();
            let last = blocks.last;
            blocks.blocks.retain(|&block, books| {
                let stays = !books.is_free() || (block == last && !all);
                if !stays {
                    spans.push(books.span);
                }
                stays
            });
        }
        spans
    }

    /// Pages that are unmapped, and that no purge has looked at yet.
    pub(crate) fn waiting(&self) -> u64 {
        self.cpus
            .iter()
            .map(|blocks| {
                let blocks = blocks.0.lock();
                blocks
                    .blocks
                    .values()
                    .map(|books| books.dirty.count())
                    .sum::<u64>()
            })
            .sum()
    }

    /// What all CPUs have done so far.
    pub(crate) fn done(&self) -> RamCounts {
        self.cpus.iter().fold(RamCounts::default(), |sum, blocks| {
            let done = blocks.0.lock().done;
            RamCounts {
                mapped: sum.mapped + done.mapped,
                unmapped: sum.unmapped + done.unmapped,
                blocks: sum.blocks + done.blocks,
            }
        })
    }

    /// Pages that are mapped now, with where they are.
    pub(crate) fn used(&self) -> Vec<Span> {
        let mut used = Vec::new();
        for blocks in &self.cpus {
            for (&block, books) in &blocks.0.lock().blocks {
                let runs = books.used.runs();
                used.extend(runs.map(|(first, pages)| Span::new(block + first, pages)));
            }
        }
        used
    }
}

/// A small mapping: up to [`RAM_MOST`] pages. No reference is taken: whoever maps keeps the frames, and gets them
/// back from [`Aliased`]. Dropped, its pages stay mapped.
#[must_use = "a small mapping that nobody unmaps stays"]
#[derive(Debug)]
pub struct RamMapping {
    tag: SpaceTag,
    run: RamRun,
    address: VirtAddr,
}

impl RamMapping {
    /// Its first address.
    #[must_use]
    pub const fn address(&self) -> VirtAddr {
        self.address
    }

    /// How long it is.
    #[must_use]
    pub const fn pages(&self) -> FrameCount {
        FrameCount::new(self.run.pages)
    }

    /// Where in the space it begins.
    #[must_use]
    pub const fn offset(&self) -> WindowOffset {
        offset(self.run.block + self.run.first)
    }
}

/// What was seen through a small mapping that is gone, and that some CPU may see through it still.
///
/// There is no way to the owned value but a purge that began later: [`AreaSpace::unaliased`]. Dropped, it leaks what it owns.
#[must_use = "what may still be seen through an old translation comes back only after a purge"]
pub struct Aliased<T> {
    tag: SpaceTag,
    /// The purge that covers it.
    number: u64,
    owned: ManuallyDrop<T>,
}

impl<T: fmt::Debug> fmt::Debug for Aliased<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Aliased")
            .field("owned", &*self.owned)
            .finish_non_exhaustive()
    }
}

/// Why there is no small mapping.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MapRamError {
    /// Nothing was to be mapped.
    #[error("a mapping of no pages")]
    Empty,
    /// More than fit: use an area.
    #[error("{asked} pages: a small mapping has at most {RAM_MOST}")]
    TooMany {
        /// Pages asked for.
        asked: u64,
    },
    /// No addresses for another block.
    #[error("no addresses for a block of small mappings")]
    Alloc(#[from] AllocAreaError),
    /// The machine did not map some of them; what it did map waits for a purge.
    #[error("page {index} cannot be mapped")]
    Map {
        /// The first page that is not mapped.
        index: u64,
        /// Why.
        #[source]
        source: MapError,
    },
}

impl<S: Vspace> AreaSpace<S> {
    /// Makes `runs`, which have `pages` frames, appear one behind the other somewhere in a block of the caller's CPU.
    ///
    /// # Errors
    ///
    /// See [`MapRamError`].
    ///
    /// # Panics
    ///
    /// The runs have more frames.
    #[track_caller]
    pub fn map_ram(
        &self,
        ctx: &MaySleep,
        pages: FrameCount,
        runs: impl IntoIterator<Item = PfnRange>,
        protection: Protection,
    ) -> Result<RamMapping, MapRamError> {
        let pages = pages.get();
        if pages == 0 {
            return Err(MapRamError::Empty);
        }
        if pages > RAM_MOST {
            return Err(MapRamError::TooMany { asked: pages });
        }
        self.catch_up(ctx);
        let run = self.take_ram(ctx, pages)?;
        let (context, mut mapped) = (Context::MaySleep(ctx), 0);
        if let Err(source) = self.map_in_a_row(context, run.span(), &mut mapped, runs, protection) {
            self.count_failure();
            self.undo_ram(run, mapped);
            return Err(MapRamError::Map {
                index: mapped,
                source,
            });
        }
        Ok(RamMapping {
            tag: self.tag,
            run,
            address: self.address_of(run.span().first()),
        })
    }

    /// Takes a small mapping down. `owned` is what it showed: the frames, or whatever keeps them. It comes back after the next purge
    /// ([`unaliased`](Self::unaliased)). Does not sleep and does not purge; not for interrupt handlers.
    ///
    /// # Errors
    ///
    /// The machine refused; all is as it was.
    ///
    /// # Panics
    ///
    /// It is another space's mapping.
    pub fn unmap_ram<T>(
        &self,
        mapping: RamMapping,
        owned: T,
    ) -> Result<Aliased<T>, (RamMapping, T, UnmapError)> {
        assert_eq!(mapping.tag, self.tag, "a mapping of another space");
        let run = mapping.run;
        if let Err(error) = self.space.clear(run.span().range()) {
            return Err((mapping, owned, error));
        }
        Ok(Aliased {
            tag: self.tag,
            number: self.dirty_ram(run, 1),
            owned: ManuallyDrop::new(owned),
        })
    }

    /// Gives back what was seen through a small mapping, if a purge has ended since that covers it. (What Linux's `vm_unmap_aliases`
    /// is called for; here it is [`purge`](Self::purge).)
    ///
    /// # Errors
    ///
    /// No such purge has ended, or it failed (then it never comes back): `aliased` does.
    ///
    /// # Panics
    ///
    /// It was unmapped from another space.
    pub fn unaliased<T>(&self, aliased: Aliased<T>) -> Result<T, Aliased<T>> {
        assert_eq!(aliased.tag, self.tag, "unmapped from another space");
        if self.purge.has_proved(aliased.number) {
            Ok(ManuallyDrop::into_inner(aliased.owned))
        } else {
            Err(aliased)
        }
    }

    /// Pages of a block of the caller's CPU; of a new one if there is no room.
    #[track_caller]
    fn take_ram(&self, ctx: &MaySleep, pages: u64) -> Result<RamRun, AllocAreaError> {
        let cpu = self.space.current().index() % self.ram.cpus.len();
        let blocks = &self.ram.cpus[cpu].0;
        let cpu = u16::try_from(cpu).unwrap_or(0);
        let run = |(block, first)| RamRun {
            cpu,
            block,
            first,
            pages,
        };
        if let Some(taken) = blocks.lock().take(pages) {
            return Ok(run(taken));
        }
        let context = Context::MaySleep(ctx);
        let area = self.alloc(
            context,
            FrameCount::new(self.ram.pages),
            Order::ZERO,
            AreaKind::RamBlock,
        )?;
        let (block, span) = Area::into_span(area);
        let mut used = Bits::NONE;
        used.set(0, pages);
        let books = RamBlock {
            span,
            pages: self.ram.pages,
            hint: 0,
            used,
            dirty: Bits::NONE,
            flushing: Bits::NONE,
        };
        let mut blocks = blocks.lock();
        blocks.blocks.insert(block, books);
        blocks.last = block;
        blocks.done.blocks += 1;
        blocks.done.mapped += 1;
        Ok(run((block, 0)))
    }

    /// Pages that are in no page table any more wait for the next purge: its number. With them, so many mappings have ended.
    fn dirty_ram(&self, run: RamRun, ended: u64) -> u64 {
        // Before it can be found, as with areas.
        self.lazy_pages.add(self.here(), run.pages);
        let mut blocks = self.ram.cpus[usize::from(run.cpu)].0.lock();
        if let Some(books) = blocks.blocks.get_mut(&run.block) {
            books.used.clear(run.first, run.pages);
            books.dirty.set(run.first, run.pages);
        }
        blocks.done.unmapped += ended;
        blocks.next_purge
    }

    /// A mapping that failed behind its first `mapped` pages.
    fn undo_ram(&self, run: RamRun, mapped: u64) {
        let (tried, never) = (
            RamRun {
                pages: mapped,
                ..run
            },
            RamRun {
                first: run.first + mapped,
                pages: run.pages - mapped,
                ..run
            },
        );
        {
            let mut blocks = self.ram.cpus[usize::from(run.cpu)].0.lock();
            if let Some(books) = blocks.blocks.get_mut(&run.block) {
                books.used.clear(never.first, never.pages);
            }
            // It was counted when its pages were taken.
            blocks.done.mapped -= 1;
        }
        if mapped == 0 {
            return;
        }
        match self.space.clear(tried.span().range()) {
            Ok(()) => {
                let _number = self.dirty_ram(tried, 0);
            }
            // Still mapped: never to be used again, and in the books as lost.
            Err(_) => self.purge.counts.quarantined_pages.add(mapped),
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
