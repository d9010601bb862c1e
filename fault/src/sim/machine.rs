//! The simulated machine: its memory, its address spaces, its CPUs and their seats.
#![forbid(unsafe_code)]

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

use pageless_pfn::Pfn;
use x86_64::structures::paging::PageTableFlags as Flags;

use super::cost::Costs;
use super::cpu::{Core, Cpu, SeatError};
use super::detector::{Detector, Incident};
use super::entry::{Entry, Level};
use super::memory::{Memory, OwnedFrame};
use super::space::{MapError, Space};
use super::tlb::{Pcid, TlbShape};
use super::unmapped::Unmapped;
use crate::mutant::Mutant;
use crate::shootdown::{
    CpuId, CpuSet, Generation, Layout, Place, PolicyKind, Shootdown, ShootdownCounters, SpaceId,
};
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

/// Where windows begin: Linux's vmalloc area on x86-64 (Documentation/arch/x86/x86_64/mm.rst).
pub(crate) const WINDOWS: u64 = 0xffff_c900_0000_0000;
/// Bytes of address space for each window: 4 GiB.
pub(crate) const WINDOW_STRIDE: u64 = 1 << 32;
/// Windows there can be at a time.
pub(crate) const WINDOWS_MOST: u16 = 64;

const _: () =
    assert!(WINDOWS.is_multiple_of(1 << 39) && WINDOW_STRIDE * (WINDOWS_MOST as u64) <= 1 << 39);

/// What the hardware does unasked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speculation {
    /// Nothing: the TLB is filled by instructions alone.
    Off,
    /// Walks near recent accesses, in their own time, that set accessed bits as the manual says.
    Marked,
    /// The same without accessed bits: worse than the manual allows. Breaks whoever takes a clear accessed bit for "in no TLB".
    WithoutAccessed,
}

/// What a simulated machine is made of.
#[derive(Debug, Clone, Copy)]
pub struct SimConfig {
    /// CPUs: 1 to 1024.
    pub cpus: u16,
    /// Frames of memory, of 4 KiB each.
    pub frames: u32,
    /// Address spaces beside the kernel's: at most 4095, each has a PCID of its own.
    pub user_spaces: u16,
    /// What a CPU can cache.
    pub tlb: TlbShape,
    /// How windows are shot down.
    pub policy: PolicyKind,
    /// What the hardware does unasked.
    pub speculation: Speculation,
    /// One in how many instructions begins a speculative walk.
    pub speculate_one_in: u32,
    /// One in how many requests taken out by a handler is preceded by a non-maskable interrupt, whose handler reads where the CPU last
    /// was; 0 for none. An early acknowledgement has been given by then, and nothing is invalidated.
    pub nmi_one_in: u32,
    /// Instructions between two timer ticks; 0 for none.
    pub tick_every: u32,
    /// A CPU whose timer is stopped.
    pub tickless: Option<CpuId>,
    /// Requests that a mailbox has room for: a power of two.
    pub mailbox: u16,
    /// Turns that an initiator waits before it gives up.
    pub patience: u32,
    /// Pages that [`PolicyKind::LazyPurge`] puts off at most (Linux: 32 MiB times `fls` of the CPUs).
    pub lazy_most: usize,
    /// Whether windows free page tables that become empty.
    pub frees_leaf_tables: bool,
    /// What things cost on the modelled clock.
    pub costs: Costs,
    /// For what the hardware does unasked while CPUs are threads. Under a scheduler its own seed decides.
    pub seed: u64,
}

impl Default for SimConfig {
    /// Four CPUs, 16 MiB, interrupts as Linux sends them, no speculation.
    fn default() -> Self {
        SimConfig {
            cpus: 4,
            frames: 4096,
            user_spaces: 0,
            tlb: TlbShape::default(),
            policy: PolicyKind::ConcurrentIpi,
            speculation: Speculation::Off,
            speculate_one_in: 16,
            nmi_one_in: 0,
            tick_every: 64,
            tickless: None,
            mailbox: 4,
            patience: 1_000_000,
            lazy_most: 16,
            frees_leaf_tables: true,
            costs: Costs::HASWELL_2019,
            seed: 0,
        }
    }
}

/// Why a machine could not be built.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BuildError {
    /// More CPUs than any policy can address, or none.
    #[error("a machine of {cpus} CPUs: 1 to 1024 are possible")]
    Cpus {
        /// How many were asked for.
        cpus: u16,
    },
    /// A mailbox of that size cannot be.
    #[error("a mailbox for {letters} requests: a power of two is needed")]
    Mailbox {
        /// How many were asked for.
        letters: u16,
    },
    /// More address spaces than there are PCIDs to keep them apart.
    #[error("{spaces} address spaces beside the kernel's: there are PCIDs for 4095")]
    Spaces {
        /// How many were asked for.
        spaces: u16,
    },
    /// Not even the roots of the address spaces fit.
    #[error("{frames} frames do not hold the page tables of {spaces} address spaces")]
    Frames {
        /// How many there are.
        frames: u32,
        /// Address spaces asked for.
        spaces: u16,
    },
}

/// Where a CPU rests while nothing runs on it, and where others ring.
#[derive(Debug)]
pub(crate) struct Seat {
    /// See [`INTERRUPT`](super::cpu::interrupts::INTERRUPT).
    pub(crate) attention: AtomicU32,
    /// When the last interrupt arrives, on the modelled clock.
    pub(crate) arrival: AtomicU64,
    /// The same of what the interconnect brings.
    pub(crate) fabric_arrival: AtomicU64,
    /// Whether something runs on the CPU, or sleeps on it: nobody else may.
    pub(crate) taken: AtomicBool,
    /// What its CPU caches, while it is free or asleep.
    pub(crate) parked: Mutex<Option<Core>>,
}

/// What all CPUs share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) config: SimConfig,
    pub(crate) memory: Memory,
    spaces: Box<[Space]>,
    pub(crate) engine: Shootdown,
    pub(crate) seats: Box<[Seat]>,
    pub(crate) detector: Detector,
    /// Places for windows, by number; `false` is free.
    #[cfg(feature = "std")]
    windows: Mutex<Vec<bool>>,
    /// Interrupts still to be lost.
    losing: AtomicU32,
    /// Unmapped, and put off: in order of unmapping.
    pub(crate) parked: Mutex<VecDeque<Unmapped>>,
}

impl Shared {
    pub(crate) fn space(&self, id: SpaceId) -> &Space {
        // What is in every space is in the kernel's.
        self.spaces
            .get(id.get() as usize)
            .unwrap_or(&self.spaces[0])
    }

    /// The generation of each space, and last of what is in all of them.
    pub(crate) fn generations(&self) -> Box<[Generation]> {
        (0..self.spaces.len() as u32)
            .map(SpaceId::new)
            .chain([SpaceId::EVERY])
            .map(|space| self.engine.current(space))
            .collect()
    }

    pub(crate) fn seat(&self, cpu: CpuId) -> Option<&Seat> {
        self.seats.get(cpu.index())
    }

    pub(crate) fn is_tickless(&self, cpu: CpuId) -> bool {
        self.config.tickless == Some(cpu)
    }

    pub(crate) fn loses_interrupt(&self) -> bool {
        // Relaxed: whoever asks for losses does so before the CPUs run.
        self.losing
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
                left.checked_sub(1)
            })
            .is_ok()
    }

    /// The clocks of a new run begin at 0, those of sleeping CPUs as well.
    #[cfg(feature = "std")]
    pub(crate) fn restart_clocks(&self) {
        for seat in &self.seats {
            seat.arrival.store(0, Ordering::Relaxed);
            seat.fabric_arrival.store(0, Ordering::Relaxed);
            if let Some(core) = seat.parked.lock().as_mut() {
                core.restart_clock();
            }
        }
    }

    /// The window that `va` lies in.
    #[inline]
    pub(crate) fn window_of(&self, va: u64) -> Option<usize> {
        let at = va.checked_sub(WINDOWS)? / WINDOW_STRIDE;
        (at < u64::from(WINDOWS_MOST)).then_some(at as usize)
    }

    #[cfg(feature = "std")]
    pub(crate) fn take_window(&self) -> Option<u16> {
        let mut windows = self.windows.lock();
        let at = windows.iter().position(|taken| !taken)?;
        windows[at] = true;
        Some(at as u16)
    }

    #[cfg(feature = "std")]
    pub(crate) fn give_window_back(&self, window: u16) {
        self.windows.lock()[usize::from(window)] = false;
    }
}

/// A simulated machine. Cheap to clone: all clones are one machine.
///
/// ```
/// use pageless_fault::sim::{SimConfig, SimMachine};
/// use pageless_fault::shootdown::{CpuId, SpaceId};
/// let machine = SimMachine::new(SimConfig::default())?;
/// let cpu = machine.cpu(CpuId::new(0))?;
/// let frame = machine.alloc().unwrap();
/// machine.map(SpaceId::new(0), 0x1000, frame, true)?;
/// cpu.store(0x1008, 7)?;
/// assert_eq!(cpu.load(0x1008)?, 7);
/// assert!(cpu.load(0x2000).is_err());
/// # Ok::<(), Box<dyn core::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct SimMachine {
    pub(crate) shared: Arc<Shared>,
}

impl SimMachine {
    /// A machine whose CPUs are all idle.
    ///
    /// # Errors
    ///
    /// See [`BuildError`].
    pub fn new(config: SimConfig) -> Result<Self, BuildError> {
        if !(1..=1024).contains(&config.cpus) {
            return Err(BuildError::Cpus { cpus: config.cpus });
        }
        if !config.mailbox.is_power_of_two() {
            return Err(BuildError::Mailbox {
                letters: config.mailbox,
            });
        }
        let too_many = BuildError::Spaces {
            spaces: config.user_spaces,
        };
        Pcid::try_new(config.user_spaces).ok_or(too_many)?;
        let no_frames = BuildError::Frames {
            frames: config.frames,
            spaces: config.user_spaces + 1,
        };
        let memory = Memory::new(config.frames);
        let mut spaces = Vec::new();
        for id in 0..=config.user_spaces {
            let pcid = Pcid::try_new(id).ok_or(too_many)?;
            spaces.push(Space::new(&memory, pcid).ok_or(no_frames)?);
        }
        // One table of the kernel's half is in every space, so that windows are.
        spaces[0]
            .prepare(&memory, WINDOWS, Level::Pointers)
            .map_err(|_| no_frames)?;
        let shared_entry = spaces[0].entry(&memory, WINDOWS, Level::Root);
        for space in &spaces[1..] {
            space
                .map(&memory, WINDOWS, Level::Root, shared_entry)
                .map_err(|_| no_frames)?;
        }
        let shared = Shared {
            engine: Shootdown::new(&Layout {
                cpus: config.cpus,
                spaces: u32::from(config.user_spaces) + 1,
                windows: WINDOWS_MOST,
                mailbox: config.mailbox,
                records: 16 * config.cpus.min(64),
                patience: config.patience,
            }),
            seats: (0..config.cpus)
                .map(|_| Seat {
                    attention: AtomicU32::new(0),
                    arrival: AtomicU64::new(0),
                    taken: AtomicBool::new(false),
                    fabric_arrival: AtomicU64::new(0),
                    parked: Mutex::new(None),
                })
                .collect(),
            detector: Detector::new(),
            #[cfg(feature = "std")]
            windows: Mutex::new(alloc::vec![false; usize::from(WINDOWS_MOST)]),
            losing: AtomicU32::new(0),
            parked: Mutex::new(VecDeque::new()),
            spaces: spaces.into(),
            memory,
            config,
        };
        for (id, seat) in (0..config.cpus).zip(&shared.seats) {
            *seat.parked.lock() = Some(Core::new(&shared, CpuId::new(id)));
        }
        Ok(SimMachine {
            shared: Arc::new(shared),
        })
    }

    /// How it was built.
    #[must_use]
    pub fn config(&self) -> &SimConfig {
        &self.shared.config
    }

    /// Begins to run on a CPU, in this thread.
    ///
    /// # Errors
    ///
    /// See [`SeatError`].
    pub fn cpu(&self, id: CpuId) -> Result<Cpu, SeatError> {
        Cpu::claim(&self.shared, id)
    }

    /// The memory.
    #[must_use]
    pub fn memory(&self) -> &Memory {
        &self.shared.memory
    }

    /// The shootdown engine.
    #[must_use]
    pub fn engine(&self) -> &Shootdown {
        &self.shared.engine
    }

    /// A zeroed frame; `None` if there is none.
    pub fn alloc(&self) -> Option<OwnedFrame> {
        self.shared.memory.alloc()
    }

    /// Maps `frame` at `va` as a 4 KiB page, not global. Establishing a translation needs no shootdown. Returns the frame's number; the
    /// frame itself belongs to the page table until [`unmap`](Self::unmap).
    ///
    /// # Errors
    ///
    /// See [`MapError`]; the frame is lost then.
    pub fn map(
        &self,
        space: SpaceId,
        va: u64,
        frame: OwnedFrame,
        writable: bool,
    ) -> Result<Pfn, MapError> {
        let mut flags = Flags::PRESENT;
        flags.set(Flags::WRITABLE, writable);
        self.map_with(space, va, frame, flags)
    }

    /// [`map`](Self::map) with flags of one's own choice.
    ///
    /// # Errors
    ///
    /// See [`MapError`]; the frame is lost then.
    pub fn map_with(
        &self,
        space: SpaceId,
        va: u64,
        frame: OwnedFrame,
        flags: Flags,
    ) -> Result<Pfn, MapError> {
        let pfn = frame.pfn();
        let leaf = Entry::new(frame.number(), flags).owning();
        self.shared
            .space(space)
            .map(&self.shared.memory, va, Level::Table, leaf)?;
        Ok(pfn)
    }

    /// Publishes a leaf of any kind: for experiments with what the manual says. Nobody owns what it maps.
    ///
    /// # Errors
    ///
    /// See [`MapError`].
    pub fn map_entry(
        &self,
        space: SpaceId,
        va: u64,
        level: Level,
        entry: Entry,
    ) -> Result<(), MapError> {
        self.shared
            .space(space)
            .map(&self.shared.memory, va, level, entry.not_owning())
    }

    /// Replaces the entry of `level` for `va` in one step, whatever it was; a frame that it owned is lost, and nobody owns what the new one
    /// maps. CPUs that have it cached are not told.
    pub fn replace_entry(&self, space: SpaceId, va: u64, level: Level, entry: Entry) -> Entry {
        self.shared
            .space(space)
            .swap(&self.shared.memory, va, level, entry.not_owning(), || {
                super::hooks::step("between load and store", va);
            })
    }

    /// The entry of `level` for `va`.
    #[must_use]
    pub fn entry(&self, space: SpaceId, va: u64, level: Level) -> Entry {
        self.shared
            .space(space)
            .entry(&self.shared.memory, va, level)
    }

    /// The frame of the root table of `space`.
    #[must_use]
    pub fn root(&self, space: SpaceId) -> Pfn {
        self.shared.space(space).root().pfn()
    }

    pub(crate) fn aim_early(&self, cpu: &Cpu, kind: PolicyKind, place: Place) -> Option<CpuSet> {
        Mutant::TargetsBeforeClear.active().then(|| {
            let aimed = self.shared.engine.aim(kind, cpu.id(), place);
            super::hooks::step("aimed", super::hooks::NOTHING);
            aimed
        })
    }

    pub(crate) fn place(&self, space: SpaceId, va: u64) -> Place {
        match self.shared.window_of(va) {
            Some(window) => Place {
                space: SpaceId::EVERY,
                window: Some(window as u16),
            },
            None => Place {
                space,
                window: None,
            },
        }
    }

    /// The next `count` interrupts are lost on their way.
    pub fn lose_interrupts(&self, count: u32) {
        self.shared.losing.store(count, Ordering::Relaxed);
    }

    /// What the engine has done.
    #[must_use]
    pub fn counters(&self) -> ShootdownCounters {
        self.shared.engine.counters()
    }

    /// Accesses through translations that were made before their frame was last freed. Must be 0.
    #[must_use]
    pub fn stale_hits(&self) -> u64 {
        self.shared.detector.stale_hits()
    }

    /// Walks through page tables that had been freed. Must be 0.
    #[must_use]
    pub fn stale_walks(&self) -> u64 {
        self.shared.detector.stale_walks()
    }

    /// The first few of both.
    #[must_use]
    pub fn incidents(&self) -> Vec<Incident> {
        self.shared.detector.first()
    }
}

impl fmt::Debug for SimMachine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimMachine")
            .field("config", &self.shared.config)
            .finish_non_exhaustive()
    }
}

pub(crate) fn pfn(number: u64) -> Pfn {
    match Pfn::try_new(number) {
        Ok(pfn) => pfn,
        Err(_) => unreachable!("a frame number of more than 40 bits"),
    }
}
