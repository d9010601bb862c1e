//! One simulated CPU: its translation caches, its interrupts, and the one way in which it touches memory.
//!
//! A CPU belongs to the thread (or coroutine) that runs on it, and nobody else looks into its caches. While nothing runs on
//! it, its [`Core`] is parked at its seat, where an interrupt finds it: whoever sends one to an idle CPU executes the
//! handler in its place, as the CPU would have done on waking.
//!
//! One access is one instruction: interrupts are taken before it and after it, never between translation and effect. The walk of an
//! access belongs to its instruction. A speculative walk does not: it goes on across instructions and
//! interrupts, and only the CPU's own invalidations cancel it.
#![forbid(unsafe_code)]

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec;
use core::cell::{Cell, RefCell};
use core::fmt;

use super::detector::Incident;
use super::entry::Level;
use super::hooks;
use super::machine::{Seat, Shared, Speculation};
use super::memory::FrameTag;
use super::tlb::{Pcid, Tlb, Translation};
use super::walk::{FaultCause, PageFault, Progress, Walk};
use crate::mutant::Mutant;
use crate::shootdown::{CpuId, Generation, Invalidation, Moment, Processor, Signal, SpaceId};
use crate::sync::atomic::{AtomicU64, Ordering};

/// What a CPU keeps between two runs of code on it.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) tlb: Tlb,
    space: SpaceId,
    pcid: Pcid,
    root: (u64, FrameTag),
    /// Invalidations executed so far: a walk begun under an older count must not insert.
    invalidations: u64,
    /// A walk that no instruction waits for.
    speculative: Option<Walk>,
    /// Windows walked into since everything was last flushed, a bit for each.
    entered: u64,
    /// For each address space, and last for what is in all of them, up to which generation it has been flushed here.
    flushed: Box<[Generation]>,
    /// While parked: the modelled clock. A sleeping CPU's time passes when something wakes it.
    clock: u64,
}

const _: () = assert!(super::machine::WINDOWS_MOST as u32 <= u64::BITS);

impl Core {
    pub(crate) fn new(shared: &Shared) -> Self {
        let kernel = shared.space(SpaceId::new(0));
        let root = kernel.root().number();
        Core {
            tlb: Tlb::new(shared.config.tlb),
            space: SpaceId::new(0),
            pcid: kernel.pcid,
            root: (root, shared.memory.tag(root).unwrap_or(FrameTag(0))),
            invalidations: 0,
            speculative: None,
            entered: 0,
            flushed: vec![Generation::ZERO; usize::from(shared.config.user_spaces) + 2].into(),
            clock: 0,
        }
    }

    /// Up to which generation `space` has been flushed here. Spaces that the machine does not have count as every space, as they do
    /// in the engine.
    fn flushed(&mut self, space: SpaceId) -> &mut Generation {
        let last = self.flushed.len() - 1;
        &mut self.flushed[(space.get() as usize).min(last)]
    }

    /// The clocks of a new run begin at 0.
    #[cfg(feature = "std")]
    pub(crate) fn restart_clock(&mut self) {
        self.clock = 0;
    }
}

/// Instructions of the handler of a non-maskable interrupt. Long enough that others get somewhere meanwhile.
const NMI_READS: u32 = 8;

/// The seat is taken: something runs on this CPU already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SeatError {
    /// Something runs on this CPU already.
    #[error("{cpu} is in use already")]
    Taken {
        /// Which one.
        cpu: CpuId,
    },
    /// The machine has no such CPU.
    #[error("there is no {cpu}: the machine has {cpus}")]
    NoSuchCpu {
        /// Which one.
        cpu: CpuId,
        /// How many it has.
        cpus: u16,
    },
}

/// A simulated CPU, in the hands of whoever runs on it.
pub struct Cpu {
    shared: Arc<Shared>,
    id: CpuId,
    /// Whether it holds the seat, or only stands in for a CPU that sleeps.
    seated: bool,
    /// `None` only while parked.
    core: RefCell<Option<Core>>,
    /// Sections with interrupts off that are open.
    interrupts_off: Cell<u32>,
    /// Whether the handler is running: it is not interrupted itself.
    in_handler: Cell<bool>,
    ticks: Cell<u64>,
    until_tick: Cell<u32>,
    accesses: Cell<u64>,
    last_va: Cell<u64>,
    random: RefCell<fastrand::Rng>,
    /// The modelled clock of a sleeping CPU whose handler is executed by whoever rang; the task's own clock is the other CPU's.
    apart: Option<Cell<u64>>,
    /// While answers are read: the modelled moment up to which that has got.
    reading: Cell<u64>,
}

impl Cpu {
    /// Begins to run on CPU `id`: wakes it, which makes it forget whatever it slept through.
    pub(crate) fn claim(shared: &Arc<Shared>, id: CpuId) -> Result<Self, SeatError> {
        let seat = shared.seat(id).ok_or(SeatError::NoSuchCpu {
            cpu: id,
            cpus: shared.config.cpus,
        })?;
        // Acquire pairs with the Release in `drop`: the core is parked.
        if seat.taken.swap(true, Ordering::Acquire) {
            return Err(SeatError::Taken { cpu: id });
        }
        let Some(core) = seat.parked.lock().take() else {
            unreachable!("a free CPU without its caches")
        };
        let mut cpu = Cpu::around(shared, id, core);
        cpu.seated = true;
        cpu.wake();
        Ok(cpu)
    }

    fn around(shared: &Arc<Shared>, id: CpuId, core: Core) -> Self {
        Cpu {
            shared: Arc::clone(shared),
            id,
            seated: false,
            core: RefCell::new(Some(core)),
            interrupts_off: Cell::new(0),
            in_handler: Cell::new(false),
            ticks: Cell::new(0),
            until_tick: Cell::new(shared.config.tick_every),
            accesses: Cell::new(0),
            last_va: Cell::new(0),
            random: RefCell::new(fastrand::Rng::with_seed(
                shared.config.seed ^ u64::from(id.get()) << 32,
            )),
            apart: None,
            reading: Cell::new(0),
        }
    }

    /// Puts `ns` on the modelled clock.
    #[inline]
    fn charge(&self, ns: u64) {
        match &self.apart {
            None => hooks::charge(ns),
            Some(clock) => clock.set(clock.get().saturating_add(ns)),
        }
    }

    /// Which CPU this is.
    #[must_use]
    pub fn id(&self) -> CpuId {
        self.id
    }

    #[cfg(feature = "std")]
    pub(crate) fn is_of(&self, machine: &Arc<Shared>) -> bool {
        Arc::ptr_eq(&self.shared, machine)
    }

    /// Accesses made so far.
    #[must_use]
    pub fn accesses(&self) -> u64 {
        self.accesses.get()
    }

    #[inline]
    fn with_core<T>(&self, f: impl FnOnce(&mut Core) -> T) -> T {
        match self.core.borrow_mut().as_mut() {
            Some(core) => f(core),
            None => unreachable!("a parked CPU executes nothing"),
        }
    }

    /// The end of one instruction and the beginning of the next: others may act, interrupts are taken.
    #[inline(always)]
    fn boundary(&self, what: &'static str, of: u64) {
        hooks::step(what, of);
        self.take_signals();
        if self.shared.config.speculation != Speculation::Off {
            self.speculate();
        }
        let left = self.until_tick.get();
        if left == 1 {
            self.tick();
        } else if left > 1 {
            self.until_tick.set(left - 1);
        }
    }

    /// Executes what the interconnect brings, and takes an interrupt if one is pending and they are on.
    #[inline]
    pub(crate) fn take_signals(&self) {
        // Acquire pairs with the Release in `signal`: the letter is there when the bell rings.
        let attention = self.shared.seats[usize::from(self.id.get())]
            .attention
            .load(Ordering::Acquire);
        if attention != 0 {
            self.take_signals_slow();
        }
    }

    #[cold]
    fn take_signals_slow(&self) {
        let seat = &self.shared.seats[usize::from(self.id.get())];
        // Acquire as above. Cleared before the mailbox is read: what comes later rings again.
        if seat.attention.fetch_and(!FABRIC, Ordering::Acquire) & FABRIC != 0 {
            self.serve_fabric(seat);
        }
        if self.interrupts_on()
            && seat.attention.fetch_and(!INTERRUPT, Ordering::Acquire) & INTERRUPT != 0
        {
            // Acquire pairs with the Release in `signal`. One that came while interrupts were off has passed already.
            let arrival = seat.arrival.swap(0, Ordering::Acquire);
            if arrival > self.now() {
                self.advance_to(arrival);
                if self.apart.is_some() {
                    self.charge(self.shared.config.costs.idle_exit);
                }
            }
            self.in_handler.set(true);
            self.shared.engine.serve(self);
            self.in_handler.set(false);
        }
    }

    /// What the interconnect has brought is executed when it comes, by a sleeping CPU as well.
    fn serve_fabric(&self, seat: &Seat) {
        // Acquire pairs with the Release in `signal`.
        self.advance_to(seat.fabric_arrival.swap(0, Ordering::Acquire));
        self.shared.engine.serve_fabric(self);
    }

    #[cold]
    fn tick(&self) {
        self.until_tick.set(self.shared.config.tick_every);
        if self.interrupts_on() && !self.shared.is_tickless(self.id) {
            self.ticks.set(self.ticks.get() + 1);
            self.shared.engine.sweep(self);
        }
    }

    /// Translates and has the effect, as one instruction.
    #[inline(always)]
    fn access<T>(
        &self,
        va: u64,
        write: bool,
        effect: impl FnOnce(&AtomicU64) -> T,
    ) -> Result<T, PageFault> {
        self.boundary(if write { "write" } else { "read" }, va);
        self.accesses.set(self.accesses.get() + 1);
        self.last_va.set(va);
        self.charge(self.shared.config.costs.hit);
        let cached = self.with_core(|core| core.tlb.lookup(va, core.pcid));
        match cached {
            Some((translation, frame))
                if (!write || translation.writable && translation.dirty) && !translation.absent =>
            {
                Ok(self.effect(va, frame, translation, effect))
            }
            _ => self.access_slow(va, write, cached.map(|(found, _)| found), effect),
        }
    }

    #[inline(always)]
    fn effect<T>(
        &self,
        va: u64,
        frame: u64,
        translation: Translation,
        effect: impl FnOnce(&AtomicU64) -> T,
    ) -> T {
        let Some(word) = self.shared.memory.word(frame, (va >> 3 & 511) as usize) else {
            unreachable!("a translation to a frame outside the memory")
        };
        let result = effect(word);
        // Looked at last: nobody can free the frame of a translation in use without this CPU's acknowledgement, which it gives
        // between instructions.
        if self.shared.memory.tag(translation.frame) != Some(translation.tag) {
            self.stale_hit(va, translation.frame, translation.tag);
        }
        result
    }

    #[cold]
    fn stale_hit(&self, va: u64, frame: u64, made: FrameTag) {
        let Some(now) = self.shared.memory.tag(frame) else {
            return;
        };
        self.shared.detector.report(Incident::StaleHit {
            cpu: self.id,
            va,
            pfn: super::machine::pfn(frame),
            made,
            now,
            at: self.now(),
        });
    }

    #[cold]
    #[inline(never)]
    fn access_slow<T>(
        &self,
        va: u64,
        write: bool,
        cached: Option<Translation>,
        effect: impl FnOnce(&AtomicU64) -> T,
    ) -> Result<T, PageFault> {
        if let Some(translation) = cached {
            let cause = if translation.absent {
                Some(FaultCause::NotPresent)
            } else {
                (write && !translation.writable).then_some(FaultCause::Protection)
            };
            if let Some(cause) = cause {
                if !translation.absent {
                    self.forget_faulting(va);
                }
                return Err(PageFault { va, write, cause });
            }
        }
        let (frame, translation) =
            self.walk(va, write)
                .map_err(|cause| PageFault { va, write, cause })?;
        Ok(self.effect(va, frame, translation, effect))
    }

    /// A fault itself makes the CPU forget what it would use for `va` (SDM 4.10.4.1), a walk under way included: the next try
    /// begins at the root, so that a fault which memory does not justify comes once at most.
    fn forget_faulting(&self, va: u64) {
        self.with_core(|core| {
            core.tlb.heal(va, core.pcid);
            let same_page = |walk: &mut Walk| walk.va >> 12 == va >> 12;
            let _cancelled = core.speculative.take_if(same_page);
        });
    }

    /// The walk of an instruction: fills the TLB, and answers with the frame that `va` falls into.
    fn walk(&self, va: u64, write: bool) -> Result<(u64, Translation), FaultCause> {
        self.enter_window(va);
        let mut walk = self.begin_walk(va).for_write(write);
        loop {
            // Between two of its memory accesses others may act. Interrupts wait for the end of the instruction; the
            // interconnect does not.
            hooks::step("walk", va);
            self.charge(self.shared.config.costs.walk);
            self.take_fabric();
            let overtaken = self.with_core(|core| core.invalidations != walk.begun);
            if overtaken && !Mutant::FillNotRevalidated.active() {
                self.enter_window(va);
                walk = self.begin_walk(va).for_write(write);
                continue;
            }
            let progress = self.walk_step(&mut walk);
            self.fill(&walk, progress);
            match progress {
                Progress::Table { .. } => {}
                Progress::Leaf {
                    level, translation, ..
                } => {
                    let offset = match level {
                        Level::Table => 0,
                        _ => va >> 12 & 511,
                    };
                    return Ok((translation.frame + offset, translation));
                }
                Progress::Fault(cause) => {
                    self.forget_faulting(va);
                    if cause == FaultCause::NotPresent && Mutant::NotPresentCached.active() {
                        self.cache_absence(va);
                    }
                    return Err(cause);
                }
            }
        }
    }

    fn take_fabric(&self) {
        let seat = &self.shared.seats[usize::from(self.id.get())];
        // Acquire as in `take_signals`.
        if seat.attention.load(Ordering::Acquire) & FABRIC != 0
            && seat.attention.fetch_and(!FABRIC, Ordering::Acquire) & FABRIC != 0
        {
            self.serve_fabric(seat);
        }
    }

    fn cache_absence(&self, va: u64) {
        self.with_core(|core| {
            let absent = Translation {
                frame: 0,
                tag: FrameTag(0),
                writable: false,
                dirty: false,
                absent: true,
            };
            core.tlb.insert(va, Level::Table, core.pcid, true, absent);
        });
    }

    /// Makes this CPU a target of shootdowns in the window around `va`, before it reads an entry there.
    fn enter_window(&self, va: u64) {
        let Some(window) = self.shared.window_of(va) else {
            return;
        };
        // The bit is taken back by this CPU alone, so it knows.
        let known = self.with_core(|core| core.entered >> window & 1 == 1);
        if !known {
            self.shared.engine.enter(self.id, window);
            self.with_core(|core| core.entered |= 1 << window);
        }
    }

    fn begin_walk(&self, va: u64) -> Walk {
        self.with_core(|core| {
            let (root, tag) = core.root;
            let walk = Walk::new(va, core.pcid, root, tag, core.invalidations);
            match core.tlb.structure(va, core.pcid) {
                Some(cached) => walk.below_structure(&cached),
                None => walk,
            }
        })
    }

    /// One memory access of a walk.
    fn walk_step(&self, walk: &mut Walk) -> Progress {
        let step = walk.step(&self.shared.memory);
        if let Some(table) = step.stale_table {
            self.shared.detector.report(Incident::StaleWalk {
                cpu: self.id,
                va: walk.va,
                table: super::machine::pfn(table),
                at: self.now(),
            });
        }
        step.progress
    }

    /// Caches what a walk has read.
    fn fill(&self, walk: &Walk, read: Progress) {
        self.with_core(|core| match read {
            Progress::Table {
                level,
                table,
                tag,
                writable,
            } => {
                let at = (table, tag);
                core.tlb
                    .insert_structure(walk.va, level, walk.pcid, at, writable);
            }
            Progress::Leaf {
                level,
                global,
                translation,
            } => core
                .tlb
                .insert(walk.va, level, walk.pcid, global, translation),
            Progress::Fault(_) => {}
        });
    }

    /// What the hardware does unasked: begins a walk near the last access, or goes on with the one it has begun.
    fn speculate(&self) {
        let config = &self.shared.config;
        let Some(mut walk) = self.with_core(|core| core.speculative.take()) else {
            if self.coin("speculate", config.speculate_one_in) {
                let page = self.number("page", 4);
                let va = (self.last_va.get() & !0xfff).wrapping_add(page << 12);
                self.enter_window(va);
                let mut walk = self.begin_walk(va);
                if config.speculation == Speculation::WithoutAccessed {
                    walk = walk.unmarked();
                }
                self.with_core(|core| core.speculative = Some(walk));
            }
            return;
        };
        if self.coin("delay the walk", 2) {
            self.with_core(|core| core.speculative = Some(walk));
            return;
        }
        let overtaken = self.with_core(|core| core.invalidations != walk.begun);
        if overtaken && !Mutant::FillNotRevalidated.active() {
            return;
        }
        // Reading the entry and filling the TLB are two events, and there is time between them.
        if let Some(read) = walk.read {
            self.fill(&walk, read);
            return;
        }
        let progress = self.walk_step(&mut walk);
        match progress {
            Progress::Table { .. } => self.fill(&walk, progress),
            Progress::Leaf { .. } => walk.read = Some(progress),
            Progress::Fault(_) => return,
        }
        self.with_core(|core| core.speculative = Some(walk));
    }

    /// A non-maskable interrupt: its handler may touch anything that is mapped, and a fault is its own affair.
    fn perhaps_nmi(&self) {
        if self.coin("nmi", self.shared.config.nmi_one_in) {
            for _ in 0..NMI_READS {
                let _ = self.access(self.last_va.get(), false, |word| {
                    word.load(Ordering::Acquire)
                });
            }
        }
    }

    fn coin(&self, what: &'static str, one_in: u32) -> bool {
        if one_in == 0 {
            false
        } else if hooks::scheduled() {
            hooks::chance(what, one_in)
        } else {
            self.random.borrow_mut().u32(..one_in) == 0
        }
    }

    fn number(&self, what: &'static str, below: u64) -> u64 {
        if hooks::scheduled() {
            hooks::pick(what, below)
        } else {
            self.random.borrow_mut().u64(..below)
        }
    }
}

/// Bits of a seat's attention word: what a CPU looks at between two instructions.
///
/// | value | meaning |
/// |---|---|
/// | 0 | nothing |
/// | 1 | an interrupt is pending |
/// | 2 | the interconnect has brought something |
pub(crate) const INTERRUPT: u32 = 1;
pub(crate) const FABRIC: u32 = 2;

/// Accesses. Addresses are those of the CPU's current address space; an access that faults has had no effect.
impl Cpu {
    /// Reads 8 bytes.
    ///
    /// # Errors
    ///
    /// The page fault.
    pub fn load(&self, va: u64) -> Result<u64, PageFault> {
        self.access(va, false, |word| word.load(Ordering::Acquire))
    }

    /// Writes 8 bytes.
    ///
    /// # Errors
    ///
    /// The page fault.
    pub fn store(&self, va: u64, value: u64) -> Result<(), PageFault> {
        self.access(va, true, |word| word.store(value, Ordering::Release))
    }

    /// Reads 4 bytes.
    ///
    /// # Errors
    ///
    /// The page fault.
    pub fn load_u32(&self, va: u64) -> Result<u32, PageFault> {
        self.access(va, false, |word| {
            (word.load(Ordering::Acquire) >> shift(va)) as u32
        })
    }

    /// Replaces 4 bytes by what `change` makes of them, or leaves them if it says `None`: a locked instruction. Returns what
    /// was there.
    ///
    /// # Errors
    ///
    /// The page fault.
    #[inline]
    pub fn update_u32(
        &self,
        va: u64,
        mut change: impl FnMut(u32) -> Option<u32>,
    ) -> Result<u32, PageFault> {
        let shift = shift(va);
        self.access(va, true, |word| {
            let mut found = word.load(Ordering::Relaxed);
            loop {
                let old = (found >> shift) as u32;
                let Some(new) = change(old) else { return old };
                let others = found & !(0xffff_ffff << shift);
                // A locked instruction orders everything, in both directions.
                match word.compare_exchange(
                    found,
                    others | u64::from(new) << shift,
                    Ordering::SeqCst,
                    Ordering::SeqCst,
                ) {
                    Ok(_) => return old,
                    Err(now) => found = now,
                }
            }
        })
    }
}

/// Which half of an 8-byte word the 4 bytes at `va` are.
const fn shift(va: u64) -> u32 {
    if va & 4 == 0 { 0 } else { 32 }
}

/// What the system software on the CPU may do.
impl Cpu {
    /// INVLPG for the page around `va`, on this CPU only.
    pub fn invalidate_page(&self, va: u64) {
        self.invalidate(Invalidation::Pages {
            first: va,
            pages: 1,
        });
    }

    /// Forgets everything, global translations included, on this CPU only.
    pub fn invalidate_all(&self) {
        self.invalidate(Invalidation::Everything);
    }

    /// MOV to CR3: walks begin at the root of `space` from now on. Translations of its PCID are forgotten unless `keep`
    /// (bit 63); those of other PCIDs and global ones stay. The instruction alone: whoever leaves CPUs in other spaces out of a
    /// shootdown is not told, so that what the TLB keeps of `space` may be out of date. See [`switch_to`](Self::switch_to).
    pub fn load_cr3(&self, space: SpaceId, keep: bool) {
        let target = self.shared.space(space);
        let root = target.root().number();
        let tag = self.shared.memory.tag(root).unwrap_or(FrameTag(0));
        self.with_core(|core| {
            core.space = space;
            core.pcid = target.pcid;
            core.root = (root, tag);
            core.invalidations += 1;
            core.speculative = None;
            if !keep {
                core.tlb.invalidate_pcid(target.pcid);
            }
        });
    }

    /// Switches to `space` as an operating system does: says so first, then looks whether it was left out of any shootdown
    /// while it was away, and only then uses what its TLB still has of the space.
    pub fn switch_to(&self, space: SpaceId) {
        let engine = &self.shared.engine;
        let switch = engine.presence(self.id).begin_switch(space);
        hooks::step("switching to space", u64::from(space.get()));
        // Read before the flush: what is cleared after this is a later generation's.
        let now = engine.current(space);
        let flushed = self.with_core(|core| *core.flushed(space));
        let behind = engine.missed_away(&switch, flushed);
        hooks::step("looked what was missed", u64::from(behind));
        self.load_cr3(space, !behind);
        if behind {
            self.with_core(|core| *core.flushed(space) = now);
        }
        engine.presence(self.id).end_switch(switch);
        self.boundary("switched to space", u64::from(space.get()));
    }

    /// The address space in use.
    #[must_use]
    pub fn space(&self) -> SpaceId {
        self.with_core(|core| core.space)
    }

    /// Runs `f` with interrupts off.
    pub fn with_interrupts_off<T>(&self, f: impl FnOnce() -> T) -> T {
        self.interrupts_off.set(self.interrupts_off.get() + 1);
        let result = f();
        self.interrupts_off.set(self.interrupts_off.get() - 1);
        self.boundary("interrupts on", 0);
        result
    }

    /// One instruction that touches no memory.
    pub fn pause(&self) {
        self.charge(self.shared.config.costs.hit);
        self.boundary("pause", 0);
    }

    /// Sleeps for `turns` turns of the others: executes nothing, and on waking forgets what it slept through.
    pub fn idle(&self, turns: u32) {
        self.sleep();
        for turn in 0..turns {
            hooks::wait("idle", u64::from(turn));
            // Time passes, whether or not anybody else does something with it.
            hooks::step("still asleep", u64::from(turn));
        }
        let seat = &self.shared.seats[usize::from(self.id.get())];
        let core = seat.parked.lock().take();
        *self.core.borrow_mut() = core;
        self.wake();
    }

    /// Translations cached now.
    #[must_use]
    pub fn cached_translations(&self) -> usize {
        self.with_core(|core| core.tlb.len())
    }

    /// Paging-structure entries cached now.
    #[must_use]
    pub fn cached_structures(&self) -> usize {
        self.with_core(|core| core.tlb.structures_cached())
    }

    /// Whether a translation for `va` is cached.
    #[must_use]
    pub fn caches(&self, va: u64) -> bool {
        self.with_core(|core| core.tlb.lookup(va, core.pcid).is_some())
    }

    fn wake(&self) {
        let engine = &self.shared.engine;
        let awake = engine.presence(self.id).wake();
        hooks::step("awake", 0);
        let (space, flushed) = self.with_core(|core| {
            // Handlers that were executed meanwhile have taken their time.
            self.advance_to(core.clock);
            let everywhere = *core.flushed(SpaceId::EVERY);
            (core.space, (*core.flushed(core.space), everywhere))
        });
        if engine.missed_asleep(&awake, space, flushed) {
            self.invalidate(Invalidation::Everything);
        }
        // Records that were left for it before it slept need wait no longer for its next tick, if it has any.
        self.shared.engine.sweep(self);
        self.take_signals();
    }

    /// Goes to sleep, unless it sleeps already.
    pub(crate) fn rest(&self) {
        if self.core.borrow().is_some() {
            self.sleep();
        }
    }

    fn sleep(&self) {
        self.take_signals();
        self.shared.engine.presence(self.id).sleep();
        hooks::step("asleep", 0);
        let seat = &self.shared.seats[usize::from(self.id.get())];
        let mut core = self.core.borrow_mut().take();
        if let Some(core) = &mut core {
            core.clock = self.now();
        }
        *seat.parked.lock() = core;
        // Who rang after the look above has either found the core parked, or rang before that and is seen here.
        // Acquire pairs with the Release in `signal`.
        if seat.attention.load(Ordering::Acquire) != 0 {
            serve_parked(&self.shared, self.id);
        }
    }
}

/// An interrupt wakes an idle CPU, which executes the handler and goes on sleeping: done by whoever rang.
fn serve_parked(shared: &Arc<Shared>, id: CpuId) {
    let Some(seat) = shared.seat(id) else { return };
    let mut parked = seat.parked.lock();
    if let Some(core) = parked.take() {
        let clock = core.clock;
        let mut cpu = Cpu::around(shared, id, core);
        cpu.apart = hooks::scheduled().then(|| Cell::new(clock));
        cpu.take_signals();
        let mut core = cpu.core.borrow_mut().take();
        if let Some(core) = &mut core {
            core.clock = cpu.now();
        }
        *parked = core;
    }
}

impl Drop for Cpu {
    fn drop(&mut self) {
        if !self.seated {
            return;
        }
        self.rest();
        self.shared.engine.presence(self.id).retire();
        // Release pairs with the Acquire in `claim`.
        self.shared.seats[usize::from(self.id.get())]
            .taken
            .store(false, Ordering::Release);
    }
}

impl Processor for Cpu {
    fn id(&self) -> CpuId {
        self.id
    }

    fn invalidate(&self, what: Invalidation) {
        let costs = &self.shared.config.costs;
        let everything = match what {
            Invalidation::Everything => true,
            Invalidation::Pages { .. } => false,
        };
        // Read before the flush: what is cleared after this is a later generation's.
        let now = everything.then(|| self.shared.generations());
        if everything && Mutant::ResidencyClearedEarly.active() {
            self.leave_windows();
            hooks::step("between leaving and flushing", 0);
            self.perhaps_nmi();
        }
        self.with_core(|core| {
            core.invalidations += 1;
            match what {
                Invalidation::Everything => {
                    self.charge(costs.flush_all);
                    core.tlb.invalidate_all();
                    if let Some(now) = now {
                        core.flushed = now;
                    }
                }
                Invalidation::Pages { first, pages } => {
                    self.charge(costs.flush_page * pages);
                    for page in 0..pages {
                        core.tlb.invalidate_page(first + (page << 12), core.pcid);
                    }
                }
            }
        });
        if everything && !Mutant::ResidencyClearedEarly.active() {
            self.leave_windows();
        }
    }

    fn signal(&self, target: CpuId, how: Signal) {
        let Some(seat) = self.shared.seat(target) else {
            return;
        };
        let bit = match how {
            Signal::Interrupt => INTERRUPT,
            Signal::Fabric => FABRIC,
        };
        match how {
            Signal::Interrupt => {
                if self.shared.loses_interrupt() {
                    return;
                }
                let delivery = self.shared.config.costs.delivery(self.id, target);
                // Release pairs with the Acquire in `take_signals_slow`.
                seat.arrival
                    .fetch_max(self.now() + delivery, Ordering::Release);
            }
            Signal::Fabric => {
                // Release pairs with the Acquire in `serve_fabric`.
                seat.fabric_arrival.fetch_max(self.now(), Ordering::Release);
            }
        }
        // Release pairs with the Acquire in `take_signals`: the letter comes before the bell.
        seat.attention.fetch_or(bit, Ordering::Release);
        serve_parked(&self.shared, target);
    }

    fn interrupts_on(&self) -> bool {
        self.interrupts_off.get() == 0 && !self.in_handler.get()
    }

    fn relax(&self, turn: u32) {
        hooks::wait("relax", u64::from(turn));
        if self.core.borrow().is_none() {
            // Falling asleep, or waking, and waiting for the seat: whoever holds it serves in this CPU's place.
            return;
        }
        if !Mutant::WaitsUninterruptible.active() {
            self.take_signals();
        }
        // Who waits executes many instructions: the next tick is near.
        let left = self.until_tick.get().min(2);
        if left == 1 {
            self.tick();
        } else if left > 1 {
            self.until_tick.set(left - 1);
        }
    }

    fn ticks(&self) -> u64 {
        self.ticks.get()
    }

    fn at(&self, moment: Moment) {
        let costs = &self.shared.config.costs;
        let (what, of) = moment.describe();
        // Announced before it is charged: who looks at this CPU in between finds the clock of what has been done.
        hooks::step(what, of);
        let cost = costs.of(self.id, moment);
        match moment {
            Moment::Wait => self.reading.set(self.now()),
            Moment::AckRead { there, .. } => {
                // The CPU's own clock knows when the last answer came, not when the earlier ones were read.
                let read = self.reading.get().max(there) + cost;
                self.reading.set(read);
                self.advance_to(read);
            }
            // Begins when the wait does, whatever else has been waited for.
            Moment::FabricSync => self.advance_to(self.reading.get() + cost),
            _ => self.charge(cost),
        }
        if matches!(moment, Moment::Take { .. }) {
            self.perhaps_nmi();
        }
    }

    fn now(&self) -> u64 {
        match &self.apart {
            None => hooks::now(),
            Some(clock) => clock.get(),
        }
    }

    fn advance_to(&self, then: u64) {
        match &self.apart {
            None => hooks::advance_to(then),
            Some(clock) => clock.set(clock.get().max(then)),
        }
    }
}

impl Cpu {
    fn leave_windows(&self) {
        let entered = self.with_core(|core| core::mem::take(&mut core.entered));
        let mut left = entered;
        while left != 0 {
            let window = left.trailing_zeros();
            left &= left - 1;
            self.shared.engine.leave(self.id, window as usize);
        }
    }
}

impl fmt::Debug for Cpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cpu")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}
