//! Pair mapping: an object that crosses a boundary is seen in one piece, without a copy, in a window of two pages that one CPU has for
//! itself.
//!
//! ```text
//!   slot 0             slot 1             slot 2              of a range of a Vspace
//!   +-----+-----+----+ +-----+-----+----+ +-----+-----+----+
//!   |     |     |    | | f 7 | f 3 |    | |     |     |    |   two pages, and one that nothing is ever mapped at
//!   +-----+-----+----+ +-----+-----+----+ +-----+-----+----+
//!    cpu 0's            cpu 1's, mapped    nobody's yet
//! ```
//!
//! # Why a flush on one CPU is enough
//!
//! A window is claimed by the CPU that asks for it and cannot leave it: [`PairWindow`] is not `Send`, and a mapping made, used or taken
//! away on another CPU, by a thread that has moved there, is refused. No other CPU is ever given an address in it. Hardware that looks
//! ahead may load a window's translations
//! on other CPUs as well, but there they are only cached, and never used: nothing is read or written through them. The one CPU that
//! uses them flushes its own, in order with its own accesses, before the object can move or its frames go back: the object stays held
//! inside the [`Unflushed`](pageless_fault::Unflushed) until then.
//!
//! What another CPU has cached by looking ahead does no harm for only as long as that CPU never gets the window. So a slot goes back to
//! the CPU that had it last, if possible, and before any other CPU gets it there is a shootdown, on all CPUs.
//!
//! In 2012 zsmalloc's local flush was objected to because other CPUs load translations ahead. The objection holds wherever an address
//! reaches a second CPU: with a task that is moved, with a window that is given out again, with an area that goes back to vmalloc.
//! Nothing in the interface of then kept it from that, and `vmap/tests` show on the model what comes of it: CPUs that take turns
//! at one window, under a lock and with a local flush each, read what is no longer there.

use alloc::vec;
use alloc::vec::Vec;
use core::fmt;
use core::ops::Deref;

use pageless_fault::shootdown::CpuId;
use pageless_fault::sync::Mutex;
use pageless_fault::{
    Cpus, MapError, MaySleep, NoSuchFrame, OwnRange, Protection, UnmapError, Untranslated, Vspace,
    WindowOffset, WindowRange,
};
use pageless_pfn::{FrameCount, PAGE_SIZE, Pfn, PfnRange};

use crate::mutant::Mutant;

use super::error::AccessError;
use super::handle::Handle;
use super::pool::{Held, Zsmalloc};
use super::source::FrameSource;

/// Pages of a window, and those with the guard behind it.
const WINDOW_PAGES: u64 = 2;
const SLOT_PAGES: u64 = WINDOW_PAGES + 1;

/// Who has a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Slot {
    /// Nobody has ever had it.
    Fresh,
    /// A CPU has it.
    Claimed,
    /// Nobody has it now; others than this CPU may have cached what was there.
    Left(CpuId),
    /// Something was mapped there and could not be flushed.
    Lost,
}

/// The windows of an address space, and who has which.
#[derive(Debug)]
pub struct PairWindows<P> {
    space: P,
    start: WindowOffset,
    slots: Mutex<Vec<Slot>>,
}

impl<P> PairWindows<P>
where
    P: Deref,
    P::Target: Vspace + Sized,
{
    /// As many windows as `range` of `space` has room for: each takes three pages. Nobody else uses the range as long as this
    /// lives; nothing is mapped there, and what was has been shot down. Nor does anybody after it, before all CPUs have been told to forget
    /// the range: an area that it was [lent](crate::area::Area::lend) from sees to that.
    ///
    /// # Panics
    ///
    /// `range` is not in the space.
    #[must_use]
    pub fn new(space: P, range: WindowRange) -> Self {
        assert!(
            range.end().get() <= space.len().get(),
            "windows outside their space"
        );
        let slots = range.len() / (SLOT_PAGES * PAGE_SIZE);
        PairWindows {
            space,
            start: range.start(),
            slots: Mutex::new(vec![Slot::Fresh; slots as usize]),
        }
    }

    /// The space.
    #[must_use]
    pub fn space(&self) -> &P::Target {
        &self.space
    }

    /// How many windows there are.
    #[must_use]
    pub fn slots(&self) -> usize {
        self.slots.lock().len()
    }

    fn range(&self, slot: usize) -> WindowRange {
        let start = self.start.checked_add(slot as u64 * SLOT_PAGES * PAGE_SIZE);
        let range = start.and_then(|at| WindowRange::try_new(at, WINDOW_PAGES * PAGE_SIZE));
        match range {
            Some(range) => range,
            None => unreachable!("a slot in a range that does not overflow"),
        }
    }

    /// A window for the calling CPU. If it has to be one that another CPU had, all CPUs are told to forget it first.
    ///
    /// # Errors
    ///
    /// See [`ClaimError`].
    pub fn claim(&self, ctx: &MaySleep) -> Result<PairWindow<'_, P>, ClaimError> {
        let cpu = self.space.current();
        let (slot, before) = self.choose(cpu)?;
        if before != Slot::Fresh
            && before != Slot::Left(cpu)
            && !Mutant::LocalFlushSharedWindow.active()
            && let Err(error) = self.flush_everywhere(slot, ctx)
        {
            self.slots.lock()[slot] = before;
            return Err(error.into());
        }
        Ok(PairWindow {
            own: OwnRange::claim(&*self.space, self.range(slot)),
            windows: self,
            slot,
            cpu,
            policy: MapPolicy::default(),
            state: State::Unmapped,
        })
    }

    /// Takes a slot for `cpu`, and says what it was before: best one that `cpu` had last, then one that nobody has had.
    fn choose(&self, cpu: CpuId) -> Result<(usize, Slot), ClaimError> {
        let mut slots = self.slots.lock();
        let find = |wanted: &dyn Fn(&Slot) -> bool| slots.iter().position(wanted);
        let slot = find(&|slot| *slot == Slot::Left(cpu))
            .or_else(|| find(&|slot| *slot == Slot::Fresh))
            .or_else(|| find(&|slot| matches!(slot, Slot::Left(_))));
        match slot {
            Some(slot) => Ok((slot, core::mem::replace(&mut slots[slot], Slot::Claimed))),
            None => Err(ClaimError::AllTaken {
                windows: slots.len(),
                lost: slots.iter().filter(|slot| **slot == Slot::Lost).count(),
            }),
        }
    }

    /// Nothing is mapped there any more, but CPUs that looked ahead may not know.
    fn flush_everywhere(&self, slot: usize, ctx: &MaySleep) -> Result<(), UnmapError> {
        let space = &*self.space;
        let down = space.take_down(self.range(slot), ());
        let down = down.map_err(|((), error)| error)?;
        let debt = space.shoot_down(vec![down]).map_err(|(_, error)| error)?;
        debt.settle(ctx).map_err(|(_, error)| error)?;
        Ok(())
    }
}

/// Why no window could be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ClaimError {
    /// Others have them all: wait, or copy.
    #[error("all of {windows} windows are taken, {lost} of them for good")]
    AllTaken {
        /// How many there are.
        windows: usize,
        /// How many can never be used again.
        lost: usize,
    },
    /// What another CPU had there could not be shot down.
    #[error(transparent)]
    Unmap(#[from] UnmapError),
}

/// When an object is mapped, and not shown in place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MapPolicy {
    /// When it crosses from one frame into another.
    #[default]
    Crossing,
    /// Always: to measure what mapping costs.
    Always,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Unmapped,
    Mapped,
    /// The mapping could not be flushed.
    Lost,
}

/// Two pages of address space that one CPU has for itself. It maps one object at a time: a second one while the first is mapped does
/// not compile.
///
/// ```compile_fail,E0499
/// use pageless_fault::{Protection, Vspace};
/// use pageless_vmap::zsmalloc::{FrameSource, Handle, PairWindow, Zsmalloc};
/// fn nested<S: Vspace, F: FrameSource>(w: &mut PairWindow<'_, &S>, zs: &Zsmalloc<F>, a: &Handle, b: &Handle) {
///     let first = w.map(zs, a, Protection::Read).unwrap();
///     let second = w.map(zs, b, Protection::Read).unwrap();
///     drop((first, second));
/// }
/// ```
///
/// ```
/// use pageless_fault::{Protection, Vspace};
/// use pageless_vmap::zsmalloc::{FrameSource, Handle, PairWindow, Zsmalloc};
/// fn in_turn<S: Vspace, F: FrameSource>(w: &mut PairWindow<'_, &S>, zs: &Zsmalloc<F>, a: &Handle, b: &Handle) {
///     let first = w.map(zs, a, Protection::Read).unwrap();
///     drop(first);
///     let second = w.map(zs, b, Protection::Read).unwrap();
///     drop(second);
/// }
/// ```
///
/// It stays with its CPU, unlike those that hand it out:
///
/// ```
/// fn sent<T: Send>() {}
/// sent::<pageless_vmap::zsmalloc::PairWindows<Box<pageless_fault::host::HostVspace>>>();
/// ```
///
/// ```compile_fail,E0277
/// fn sent<T: Send>() {}
/// sent::<pageless_vmap::zsmalloc::PairWindow<'static, Box<pageless_fault::host::HostVspace>>>();
/// ```
pub struct PairWindow<'w, P>
where
    P: Deref,
    P::Target: Vspace + Sized,
{
    windows: &'w PairWindows<P>,
    own: OwnRange,
    slot: usize,
    cpu: CpuId,
    policy: MapPolicy,
    state: State,
}

impl<'w, P> PairWindow<'w, P>
where
    P: Deref,
    P::Target: Vspace + Sized,
{
    /// The same window with another answer to when an object is mapped.
    #[must_use]
    pub fn with_policy(mut self, policy: MapPolicy) -> Self {
        self.policy = policy;
        self
    }

    /// The pages.
    #[must_use]
    pub fn range(&self) -> WindowRange {
        self.own.range()
    }

    fn space(&self) -> &'w P::Target {
        &self.windows.space
    }

    /// Makes an object visible in one piece until the mapping is dropped. With [`Protection::Read`] others may read it meanwhile;
    /// with [`Protection::ReadWrite`] it is held alone, and its readers are waited for.
    ///
    /// # Errors
    ///
    /// See [`PairError`]; nothing is mapped then, or the window is lost and the object stays held.
    pub fn map<'m, F: FrameSource>(
        &'m mut self,
        pool: &'m Zsmalloc<F>,
        handle: &'m Handle,
        protection: Protection,
    ) -> Result<PairMapping<'m, 'w, P, F>, PairError> {
        self.check_cpu()?;
        if self.state != State::Unmapped {
            return Err(PairError::Lost);
        }
        let held = pool.hold(handle, protection == Protection::ReadWrite)?;
        let place = if held.span.second.is_some() || self.policy == MapPolicy::Always {
            match self.map_span(&held, protection) {
                Ok(mapped) => Place::Window(mapped),
                Err(error) => {
                    if self.state == State::Lost {
                        // Some of it is still mapped.
                        core::mem::forget(held);
                    }
                    return Err(error);
                }
            }
        } else {
            Place::Direct
        };
        if let Place::Window(_) = place {
            self.state = State::Mapped;
        }
        Ok(PairMapping {
            window: self,
            pool,
            held: Some(held),
            place,
        })
    }

    fn check_cpu(&self) -> Result<(), UnmapError> {
        match self.space().current() {
            current if current == self.cpu => Ok(()),
            caller => Err(UnmapError::NotOwn {
                owner: self.cpu,
                caller,
            }),
        }
    }

    /// Maps the frame or the two frames of an object, and says which pages those are.
    fn map_span(&mut self, held: &Held<'_>, protection: Protection) -> Result<Mapped, PairError> {
        let start = self.range().start();
        let first = held.span.first.pfn();
        let second = held.span.second.map(|second| second.pfn());
        let pages = 1 + u64::from(second.is_some());
        let mapped = Mapped {
            range: part(start, 0, pages),
            object: part(start, 0, 1)
                .start()
                .checked_add(held.span.first.frame_offset().get())
                .unwrap_or(start),
        };
        let follows = first.checked_add(FrameCount::new(1)) == second;
        if follows {
            self.space().map(start, frames(first, 2), protection)?;
            return Ok(mapped);
        }
        self.space().map(start, frames(first, 1), protection)?;
        if let Some(second) = second {
            let at = part(start, 1, 1).start();
            if let Err(error) = self.space().map(at, frames(second, 1), protection) {
                // Nobody has used it, but the CPU may have looked ahead.
                self.take_away(part(start, 0, 1), ())?;
                return Err(error.into());
            }
        }
        Ok(mapped)
    }

    /// Takes what is mapped at `range` away, flushes it here, and lets go of `owned`.
    fn take_away<T>(&mut self, range: WindowRange, owned: T) -> Result<(), UnmapError> {
        self.state = State::Lost;
        let down = match self.space().take_down(range, owned) {
            Ok(down) => down,
            Err((owned, error)) => {
                // It is still mapped.
                core::mem::forget(owned);
                return Err(error);
            }
        };
        match self.space().shoot_down_here(&self.own, down) {
            Ok(flushed) => {
                drop(flushed.into_inner());
                self.state = State::Unmapped;
                Ok(())
            }
            // What is dropped here stays locked up.
            Err((_, error)) => Err(error),
        }
    }
}

impl<P> Drop for PairWindow<'_, P>
where
    P: Deref,
    P::Target: Vspace + Sized,
{
    fn drop(&mut self) {
        self.windows.slots.lock()[self.slot] = match self.state {
            State::Unmapped => Slot::Left(self.cpu),
            State::Mapped | State::Lost => Slot::Lost,
        };
    }
}

impl<P> fmt::Debug for PairWindow<'_, P>
where
    P: Deref,
    P::Target: Vspace + Sized,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PairWindow")
            .field("own", &self.own)
            .field("cpu", &self.cpu)
            .field("policy", &self.policy)
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}

/// Pages `skip..skip + pages` from `start` on.
fn part(start: WindowOffset, skip: u64, pages: u64) -> WindowRange {
    let start = start.checked_add(skip * PAGE_SIZE);
    match start.and_then(|start| WindowRange::try_new(start, pages * PAGE_SIZE)) {
        Some(range) => range,
        None => unreachable!("pages of a window"),
    }
}

fn frames(first: Pfn, count: u64) -> PfnRange {
    match PfnRange::try_new(first, FrameCount::new(count)) {
        Ok(frames) => frames,
        Err(_) => unreachable!("frames that exist"),
    }
}

/// Why an object could not be mapped, or not be reached through its mapping.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PairError {
    /// The object could not be reached.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// The frames could not be mapped.
    #[error(transparent)]
    Map(#[from] MapError),
    /// It is another CPU's window, or what was mapped could not be flushed.
    #[error(transparent)]
    Unmap(#[from] UnmapError),
    /// A mapping in this window was forgotten, or could not be flushed: claim another one.
    #[error("something is still mapped in the window")]
    Lost,
    /// It was mapped for reading.
    #[error("a write through a mapping for reading")]
    ReadOnly,
    /// Somebody else has unmapped a page of the window.
    #[error(transparent)]
    Untranslated(#[from] Untranslated),
}

impl From<NoSuchFrame> for PairError {
    fn from(error: NoSuchFrame) -> Self {
        PairError::Access(error.into())
    }
}

/// Where a mapped object is seen.
#[derive(Debug, Clone, Copy)]
struct Mapped {
    range: WindowRange,
    object: WindowOffset,
}

#[derive(Debug, Clone, Copy)]
enum Place {
    /// In its frame.
    Direct,
    Window(Mapped),
}

/// An object in one piece. Dropped, it is taken away and flushed on this CPU, and then let go of.
///
/// Forgotten ([`core::mem::forget`]), it costs the window, and the object can be neither freed nor moved any more.
#[must_use = "the object is mapped only as long as this lives"]
pub struct PairMapping<'m, 'w, P, F>
where
    P: Deref,
    P::Target: Vspace + Sized,
    F: FrameSource,
{
    window: &'m mut PairWindow<'w, P>,
    pool: &'m Zsmalloc<F>,
    /// Nothing once it has been unmapped.
    held: Option<Held<'m>>,
    place: Place,
}

impl<P, F> PairMapping<'_, '_, P, F>
where
    P: Deref,
    P::Target: Vspace + Sized,
    F: FrameSource,
{
    fn held(&self) -> &Held<'_> {
        match &self.held {
            Some(held) => held,
            None => unreachable!("it has not been dropped"),
        }
    }

    /// Bytes of the object.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "an object is never empty")]
    pub fn len(&self) -> usize {
        self.held().span.len()
    }

    /// Where in its space the object begins; `None` if it is shown in its frame.
    #[must_use]
    pub fn offset(&self) -> Option<WindowOffset> {
        match self.place {
            Place::Direct => None,
            Place::Window(mapped) => Some(mapped.object),
        }
    }

    /// Shows the whole object to `look`.
    ///
    /// # Errors
    ///
    /// This is not the CPU whose window it is; [`PairError::Untranslated`]; or the source handed out a frame that its memory does not have.
    pub fn with<R>(&self, look: impl FnOnce(&[u8]) -> R) -> Result<R, PairError> {
        let held = self.held();
        Ok(match self.place {
            Place::Direct => held.view_first(self.pool.memory(), look)?,
            Place::Window(mapped) => held.view_mapped(self.space_here()?, mapped.object, look)?,
        })
    }

    /// The space, for an access through the window. No other CPU than the one that flushes it may ever use what it shows.
    fn space_here(&self) -> Result<&P::Target, UnmapError> {
        self.window.check_cpu()?;
        Ok(self.window.space())
    }

    /// Copies bytes of the object out through the mapping, from `offset` on.
    ///
    /// # Errors
    ///
    /// The object has not so many; or as [`with`](Self::with).
    pub fn read(&self, offset: usize, into: &mut [u8]) -> Result<(), PairError> {
        let held = self.held();
        held.check(offset, into.len())?;
        match self.place {
            Place::Direct => held.span.read(self.pool.memory(), offset, into)?,
            Place::Window(mapped) => self.space_here()?.read(plus(mapped, offset), into)?,
        }
        Ok(())
    }

    /// Writes to the object through the mapping, from `offset` on.
    ///
    /// # Errors
    ///
    /// [`PairError::ReadOnly`]; the object has not so many bytes; or as [`with`](Self::with).
    pub fn write(&mut self, offset: usize, bytes: &[u8]) -> Result<(), PairError> {
        let Some(held) = &mut self.held else {
            unreachable!("it has not been dropped");
        };
        if !held.pin.is_alone() {
            return Err(PairError::ReadOnly);
        }
        held.check(offset, bytes.len())?;
        match self.place {
            Place::Direct => held.write(self.pool.memory(), offset, bytes)?,
            Place::Window(mapped) => {
                self.window.check_cpu()?;
                self.window.space().write(plus(mapped, offset), bytes)?;
            }
        }
        Ok(())
    }

    /// What dropping it does, with the answer: whether it was flushed.
    ///
    /// # Errors
    ///
    /// It was not. Then the window is lost, and the object stays held: never moved, never freed.
    pub fn unmap(mut self) -> Result<(), UnmapError> {
        self.take_away()
    }

    fn take_away(&mut self) -> Result<(), UnmapError> {
        let held = self.held.take();
        match (self.place, held) {
            (Place::Window(mapped), Some(held)) => self.window.take_away(mapped.range, held),
            _ => Ok(()),
        }
    }
}

fn plus(mapped: Mapped, offset: usize) -> WindowOffset {
    match mapped.object.checked_add(offset as u64) {
        Some(at) => at,
        None => unreachable!("an offset in a window"),
    }
}

impl<P, F> Drop for PairMapping<'_, '_, P, F>
where
    P: Deref,
    P::Target: Vspace + Sized,
    F: FrameSource,
{
    fn drop(&mut self) {
        // Refused, it is as if it had been forgotten: the window knows.
        let _ = self.take_away();
    }
}

impl<P, F> fmt::Debug for PairMapping<'_, '_, P, F>
where
    P: Deref,
    P::Target: Vspace + Sized,
    F: FrameSource,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PairMapping")
            .field("window", &self.window)
            .field("held", &self.held)
            .field("place", &self.place)
            .finish_non_exhaustive()
    }
}
