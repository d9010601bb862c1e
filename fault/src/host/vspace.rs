//! Address space of the host in which any frame can be mapped anywhere: one reservation, and a mapping for each stretch of frames.
//!
//! The kernel's page tables cannot be read, so the entries are kept once more, here: [`Vspace::translate`] looks them up, and
//! [`Vspace::clear`] takes them out. What the CPUs use changes at [`Vspace::shoot`]: the reservation is mapped over the ranges again,
//! and the kernel flushes every CPU before that returns.
//!
//! # What a shootdown costs
//!
//! The kernel interrupts the other CPUs once for each call, so ranges with little between them are one call, if what is between them
//! shows nothing: areas and the guard pages behind them, most of all. It interrupts them again for each mapping with a *dirty* entry,
//! whatever the call, and makes an entry dirty that may be written if its page has ever been. Frames mapped with
//! [`Protection::Read`] are several times cheaper to shoot down than others while threads run on other CPUs.
#![expect(unsafe_code, reason = "shows memory to others")]

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Range;
use core::sync::atomic::{AtomicU64, Ordering};
use std::os::fd::BorrowedFd;
use std::sync::{OnceLock, PoisonError, RwLock};

use pageless_pfn::{FrameCount, Pfn, PfnRange};

use super::exception;
use super::frames::HostFrames;
use super::regions::{self, Registration};
use super::signal;
use super::sys::{ForkCanary, Mapping};
use crate::context::MaySleep;
use crate::debt::{Completion, Flushed};
use crate::machine::{ReserveError, Translations, UnmapError};
use crate::sync::Mutex;
use crate::vspace::{MapError, Protection, Untranslated, VirtAddr, Vspace};
use crate::window::{LEAF_TABLE_SPAN, WindowLen, WindowOffset, WindowRange};

const PAGE: u64 = 4096;
/// Pages that one leaf of the books covers.
const LEAF: u64 = 512;
/// Pages that may lie between ranges that are shot down by one call.
const GAP_MOST: u64 = 16;

/// Our copy of 512 page-table entries.
///
/// | value | meaning | written by |
/// |---|---|---|
/// | 0 | shows nothing | [`Vspace::clear`] |
/// | pfn + 1 | shows that frame | [`Vspace::map`] |
#[derive(Debug)]
struct Leaf([AtomicU64; LEAF as usize]);

/// Address space of this process.
///
/// # Invariants
///
/// `mapping` is reserved from the reservation to the drop; parts of it are mapped over by stretches of files, and by the reservation again.
#[derive(Debug)]
pub struct HostVspace {
    // Dropped in this order: out of the handler's table first, the addresses last.
    registration: Option<Registration>,
    frames: Arc<HostFrames>,
    leaves: Box<[OnceLock<Box<Leaf>>]>,
    /// Held by many who map, from looking whether a page is free until the books say what it shows; by one who maps the reservation
    /// over pages that he has not been asked for. It costs no parallelism: so does the kernel with its own.
    mapping_over: RwLock<()>,
    canary: ForkCanary,
    mapping: Mapping,
    /// What is given up when the kernel's limit of mappings has been reached: to take something away takes a mapping, too, before it
    /// gives two back.
    spare: Mutex<Option<Mapping>>,
    len: WindowLen,
}

/// Frames of one file: how many, which file, and where in it.
type Stretch<'f> = (FrameCount, BorrowedFd<'f>, u64);

/// A host shootdown: complete when [`Vspace::shoot`] returns, since the kernel waits for it.
#[derive(Debug)]
pub struct HostVspaceTicket(());

impl HostVspace {
    /// Reserves address space that can show `frames`.
    ///
    /// # Errors
    ///
    /// [`ReserveError::AddressSpace`], [`ReserveError::Resources`], [`ReserveError::TooManyWindows`].
    pub fn reserve(frames: Arc<HostFrames>, len: WindowLen) -> Result<Self, ReserveError> {
        signal::install()?;
        let out_of_space = ReserveError::AddressSpace { asked: len.get() };
        let bytes = usize::try_from(len.get()).map_err(|_| out_of_space)?;
        let mapping =
            Mapping::reserve_empty(bytes, LEAF_TABLE_SPAN as usize).map_err(|_| out_of_space)?;
        let canary = ForkCanary::new()?;
        let registration = regions::register(mapping.start(), mapping.end()).ok_or(
            ReserveError::TooManyWindows {
                limit: regions::LIMIT,
            },
        )?;
        let leaves = (0..len.get() / LEAF_TABLE_SPAN)
            .map(|_| OnceLock::new())
            .collect();
        Ok(HostVspace {
            registration: Some(registration),
            frames,
            leaves,
            mapping_over: RwLock::new(()),
            canary,
            mapping,
            spare: Mutex::new(Mapping::apart().ok()),
            len,
        })
    }

    /// Our copy of the entry of page number `page`, whose leaf must have been made.
    fn entry(&self, page: u64) -> Option<&AtomicU64> {
        let leaf = self.leaves.get((page / LEAF) as usize)?.get()?;
        leaf.0.get((page % LEAF) as usize)
    }

    /// The same, making the leaf.
    fn entry_or_new(&self, page: u64) -> Option<&AtomicU64> {
        let leaf = self.leaves.get((page / LEAF) as usize)?;
        let leaf = leaf.get_or_init(|| Box::new(Leaf(core::array::from_fn(|_| AtomicU64::new(0)))));
        leaf.0.get((page % LEAF) as usize)
    }

    fn check(&self, range: WindowRange) -> Result<(), UnmapError> {
        if self.canary.is_child() {
            return Err(UnmapError::Foreign);
        }
        if range.end().get() > self.len.get() {
            return Err(UnmapError::Refused {
                bytes: range.len(),
                errno: libc::EFAULT,
            });
        }
        Ok(())
    }

    /// The first of `pages` that shows something.
    fn shown(&self, mut pages: Range<u64>) -> Option<u64> {
        pages.find(|page| {
            self.entry(*page)
                .is_some_and(|entry| entry.load(Ordering::Relaxed) != 0)
        })
    }

    /// Maps the reservation over the first of `ranges` and over those behind it that the same call can reach; answers the others. They
    /// are sorted, lie in the space, and do not touch.
    fn take_away<'r>(&self, ranges: &'r [(u64, u64)]) -> Result<&'r [(u64, u64)], UnmapError> {
        let [(start, end), rest @ ..] = ranges else {
            return Ok(ranges);
        };
        let (start, mut end, mut rest) = (*start, *end, rest);
        let near = |end: u64, next: u64| next - end <= GAP_MOST * PAGE;
        // Nobody maps anything between the look and the call. What was cleared there and waits for its own shootdown may as well go now.
        let _alone = rest.first().filter(|(next, _)| near(end, *next)).map(|_| {
            self.mapping_over
                .write()
                .unwrap_or_else(PoisonError::into_inner)
        });
        while let [(next, until), others @ ..] = rest
            && near(end, *next)
            && self.shown(end / PAGE..*next / PAGE).is_none()
        {
            (end, rest) = (*until, others);
        }
        let again = || {
            // SAFETY: the range lies in the reservation. Who unmaps parts of it has made sure that nobody uses their addresses any more
            // (the contract of `Vspace::shoot`); the others show nothing, and whoever would map something there waits for us.
            unsafe {
                self.mapping
                    .reserve_again(start as usize, (end - start) as usize)
            }
        };
        let mut spare = self.spare.lock();
        let done = match again() {
            Err(libc::ENOMEM) if spare.take().is_some() => again(),
            done => done,
        };
        done.map_err(|errno| UnmapError::Refused {
            bytes: end - start,
            errno,
        })?;
        if spare.is_none() {
            *spare = Mapping::apart().ok();
        }
        Ok(rest)
    }

    /// The stretches of files that `frames` are; in place of one that is missing, the number of its first frame, and no more.
    fn stretches(&self, frames: PfnRange) -> impl Iterator<Item = Result<Stretch<'_>, Pfn>> {
        let mut rest = frames;
        core::iter::from_fn(move || {
            if rest.is_empty() {
                return None;
            }
            let found = self.frames.locate(rest);
            let next = rest.start();
            let count = found.map_or(rest.count(), |(count, ..)| count);
            rest = rest.split_at(count)?.1;
            Some(found.ok_or(next))
        })
    }

    /// Bytes of `len` from `at` on that lie in the space.
    fn inside(&self, at: WindowOffset, len: usize) -> usize {
        self.len.get().saturating_sub(at.get()).min(len as u64) as usize
    }

    /// `done` of `len` bytes at `at` have been copied.
    fn copied(
        &self,
        at: WindowOffset,
        len: usize,
        done: usize,
        write: bool,
    ) -> Result<(), Untranslated> {
        if done == len {
            return Ok(());
        }
        let at = (at.get() + done as u64).min(self.len.get());
        Err(Untranslated { at, write })
    }
}

impl Translations for HostVspace {
    type Ticket = HostVspaceTicket;

    fn wait(&self, _ticket: &HostVspaceTicket, _ctx: &MaySleep) -> Result<Completion, UnmapError> {
        Ok(Completion::WalkQuiescent)
    }
}

impl Vspace for HostVspace {
    fn len(&self) -> WindowLen {
        self.len
    }

    fn base(&self) -> VirtAddr {
        VirtAddr::new(self.mapping.start())
    }

    fn map(
        &self,
        at: WindowOffset,
        frames: PfnRange,
        protection: Protection,
    ) -> Result<(), MapError> {
        if self.canary.is_child() {
            return Err(MapError::Foreign);
        }
        let pages = frames.count().get();
        let first = at.get() / PAGE;
        let fits = first
            .checked_add(pages)
            .is_some_and(|end| end <= self.len.get() / PAGE);
        if !at.get().is_multiple_of(PAGE) || !fits {
            return Err(MapError::Outside {
                at: at.get(),
                pages,
                len: self.len,
            });
        }
        for stretch in self.stretches(frames) {
            let missing = |pfn| MapError::NoSuchFrame { pfn };
            stretch.map_err(missing)?;
        }
        let _shared = self
            .mapping_over
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        let present = self.shown(first..first + pages);
        if let Some(page) = present {
            return Err(MapError::Occupied { at: page * PAGE });
        }
        let mut done = at.get() as usize;
        for (count, file, offset) in self.stretches(frames).flatten() {
            let bytes = count.get() as usize * 4096;
            // SAFETY: the pages lie in the reservation, as just checked, and show nothing, so nobody has been given their addresses.
            let mapped = unsafe { self.mapping.map_over(done, bytes, file, offset, protection) };
            if let Err(errno) = mapped {
                let start = at.get() as usize;
                if done > start {
                    // SAFETY: as above. If it fails, the next mapping here takes it away.
                    let _ = unsafe { self.mapping.reserve_again(start, done - start) };
                }
                return Err(MapError::NoRoom { pages, errno });
            }
            done += bytes;
        }
        for (page, frame) in (first..).zip(frames.iter()) {
            if let Some(entry) = self.entry_or_new(page) {
                // Release pairs with the Acquire in `translate`.
                entry.store(frame.get() + 1, Ordering::Release);
            }
        }
        Ok(())
    }

    fn translate(&self, at: WindowOffset) -> Option<Pfn> {
        // Acquire pairs with the Release in `map`.
        let entry = self.entry(at.get() / PAGE)?.load(Ordering::Acquire);
        Pfn::try_new(entry.checked_sub(1)?).ok()
    }

    fn clear(&self, range: WindowRange) -> Result<(), UnmapError> {
        self.check(range)?;
        for page in range.start().get() / PAGE..range.end().get() / PAGE {
            if let Some(entry) = self.entry(page) {
                entry.store(0, Ordering::Release);
            }
        }
        Ok(())
    }

    fn shoot(&self, ranges: &[WindowRange]) -> Result<HostVspaceTicket, UnmapError> {
        for range in ranges {
            self.check(*range)?;
        }
        let mut sorted: Vec<_> = ranges
            .iter()
            .map(|range| (range.start().get(), range.end().get()))
            .collect();
        sorted.sort_unstable();
        sorted.dedup_by(|next, before| {
            let touches = next.0 <= before.1;
            if touches {
                before.1 = before.1.max(next.1);
            }
            touches
        });
        let mut rest = sorted.as_slice();
        while !rest.is_empty() {
            rest = self.take_away(rest)?;
        }
        Ok(HostVspaceTicket(()))
    }

    fn flush_here(&self, range: WindowRange) -> Result<Flushed<()>, UnmapError> {
        self.shoot(&[range])
            .map(|HostVspaceTicket(())| Flushed::by_its_only_user(()))
    }

    fn read(&self, at: WindowOffset, into: &mut [u8]) -> Result<(), Untranslated> {
        let inside = self.inside(at, into.len());
        let from = self.mapping.base().as_ptr().wrapping_add(at.get() as usize);
        // SAFETY: `inside` bytes from there lie in the reservation; where nothing is mapped the copy ends early. `into` is at least
        // as long.
        let done = unsafe { exception::copy(into.as_mut_ptr(), from, inside) };
        self.copied(at, into.len(), done, false)
    }

    fn write(&self, at: WindowOffset, from: &[u8]) -> Result<(), Untranslated> {
        let inside = self.inside(at, from.len());
        let into = self.mapping.base().as_ptr().wrapping_add(at.get() as usize);
        // SAFETY: as in `read`; what is mapped there is shared memory that no Rust reference covers, but those of `view`, whose caller
        // has promised that nobody writes.
        let done = unsafe { exception::copy(into, from.as_ptr(), inside) };
        self.copied(at, from.len(), done, true)
    }

    unsafe fn view<R>(
        &self,
        at: WindowOffset,
        len: usize,
        look: impl FnOnce(&[u8]) -> R,
    ) -> Result<R, Untranslated> {
        if len == 0 {
            // Of no bytes no page is looked at, and their address may be any.
            return Ok(look(&[]));
        }
        let end = at.get().saturating_add(len as u64);
        let missing = (at.get() / PAGE..end.div_ceil(PAGE))
            .find(|page| self.translate(WindowOffset::new(page * PAGE)).is_none());
        if let Some(page) = missing {
            return Err(Untranslated {
                at: (page * PAGE).max(at.get()),
                write: false,
            });
        }
        // SAFETY: all pages are mapped, as just checked, and stay so, unwritten, by the caller's word.
        Ok(look(unsafe { self.mapping.bytes(at.get() as usize, len) }))
    }
}

impl Drop for HostVspace {
    fn drop(&mut self) {
        // Before the addresses can belong to anybody else.
        self.registration.take();
    }
}
