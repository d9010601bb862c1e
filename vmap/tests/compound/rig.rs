//! The machines that the tests run on, with all that blocks of pages need.

use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::Mutex;

use pageless_fault::host::{HostFrames, HostMachine, HostRam, HostVspace, HostWindow};
use pageless_fault::shootdown::CpuId;
use pageless_fault::sim::{SimConfig, SimMachine, SimRam, SimVspace, SimWindow};
use pageless_fault::{
    FrameMemory, MapError, MaySleep, Protection, UnmapError, Vspace, Window, WindowLen,
    WindowOffset, WindowRange,
};
use pageless_memmap::{Budget, Config, Memmap};
use pageless_pfn::{FrameCount, Pfn, PfnRange};
use pageless_vmap::area::{AreaSpace, VmallocConfig};
use pageless_vmap::compound::{Page, Pages};
use pageless_vmap::frames::{FrameAllocator, FrameConfig, Order, PerCpuPlan, WatermarkPlan};

use interposed::{Between, Interposed};

#[path = "../area/rig/interposed.rs"]
mod interposed;

/// How big everything is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Size {
    /// Frames of memory.
    pub(crate) frames: u64,
    /// Pages of address space.
    pub(crate) pages: u64,
    /// Bytes of descriptors.
    pub(crate) descriptors: u64,
}

impl Default for Size {
    fn default() -> Self {
        Size {
            frames: 4096,
            pages: 16384,
            descriptors: 1 << 20,
        }
    }
}

/// What a test works with.
pub(crate) struct World<R: Rig> {
    pub(crate) pages: Arc<AllPages<R>>,
    pub(crate) ctx: MaySleep,
    pub(crate) rig: R,
}

pub(crate) type AllPages<R> =
    Pages<<R as Rig>::Memory, Failing<<R as Rig>::Space>, <R as Rig>::Window>;

pub(crate) type Block<'w, R> =
    Page<'w, <R as Rig>::Memory, Failing<<R as Rig>::Space>, <R as Rig>::Window>;

/// A machine.
pub(crate) trait Rig: Sized {
    type Memory: FrameMemory + 'static;
    type Space: Vspace + 'static;
    type Window: Window + 'static;

    /// Runs `test` where everything can be used.
    fn run(size: Size, test: impl FnOnce(World<Self>));

    /// What has been told to other CPUs so far, where that can be seen.
    fn shootdowns(&self) -> Option<u64>;

    /// Runs `f` with interrupts off, where there are any.
    fn with_interrupts_off<T>(&self, f: impl FnOnce() -> T) -> T;
}

fn world<R: Rig>(
    rig: R,
    memory: R::Memory,
    space: R::Space,
    memmap: Memmap<R::Window>,
) -> World<R> {
    let config = FrameConfig {
        dma_frames: FrameCount::ZERO,
        watermarks: WatermarkPlan::None,
        percpu: PerCpuPlan::Fixed {
            batch: FrameCount::new(4),
            high: FrameCount::new(16),
        },
        ..FrameConfig::default()
    };
    let frames = Arc::new(FrameAllocator::new(Arc::new(memory), config).unwrap());
    let areas = AreaSpace::new(Failing::new(space), VmallocConfig::for_cpus(1));
    World {
        pages: Arc::new(Pages::new(frames, Arc::new(memmap), Arc::new(areas))),
        ctx: MaySleep::claim(),
        rig,
    }
}

fn config(size: Size) -> Config {
    let config = Config::default();
    Config {
        budget: Budget::new(size.descriptors, config.chunk).unwrap(),
        ..config
    }
}

/// This process's own MMU.
pub(crate) struct Host;

impl Rig for Host {
    type Memory = HostRam;
    type Space = HostVspace;
    type Window = HostWindow;

    fn run(size: Size, test: impl FnOnce(World<Self>)) {
        let start = Pfn::try_new(0x1_0000).unwrap();
        let pfns = PfnRange::try_new(start, FrameCount::new(size.frames)).unwrap();
        let ram = HostRam::new(pfns).unwrap();
        let len = WindowLen::covering(size.pages * 4096).unwrap();
        let space = HostVspace::reserve(HostFrames::of_ram(&ram).unwrap(), len).unwrap();
        let memmap = Memmap::attach(&HostMachine::new().unwrap(), pfns, config(size)).unwrap();
        test(world(Host, ram, space, memmap));
    }

    fn shootdowns(&self) -> Option<u64> {
        None
    }

    fn with_interrupts_off<T>(&self, f: impl FnOnce() -> T) -> T {
        f()
    }
}

/// The modelled machine.
pub(crate) struct Sim(SimMachine);

impl Rig for Sim {
    type Memory = SimRam;
    type Space = SimVspace;
    type Window = SimWindow;

    fn run(size: Size, test: impl FnOnce(World<Self>)) {
        let machine = SimMachine::new(SimConfig {
            frames: (size.frames + size.descriptors / 4096 + 512) as u32,
            ..SimConfig::default()
        })
        .unwrap();
        let ram = machine.ram(FrameCount::new(size.frames)).unwrap();
        let pfns = ram.frames();
        let len = WindowLen::covering(size.pages * 4096).unwrap();
        let space = machine.reserve_vspace(len).unwrap();
        machine
            .run_on(CpuId::new(0), |_| {
                let memmap = Memmap::attach(&machine, pfns, config(size)).unwrap();
                test(world(Sim(machine.clone()), ram, space, memmap));
            })
            .unwrap();
        assert_eq!(machine.stale_hits(), 0, "{:?}", machine.incidents());
        assert_eq!(machine.stale_walks(), 0, "{:?}", machine.incidents());
    }

    fn shootdowns(&self) -> Option<u64> {
        Some(self.0.counters().shootdowns)
    }

    fn with_interrupts_off<T>(&self, f: impl FnOnce() -> T) -> T {
        let mut f = Some(f);
        let ran = self
            .0
            .on_current(|cpu| cpu.with_interrupts_off(|| f.take().map(|f| f())));
        ran.flatten().expect("runs on a CPU")
    }
}

impl<R: Rig> World<R> {
    /// Frames that are free, after everything that waits has been flushed.
    pub(crate) fn free_frames(&self) -> u64 {
        self.pages.areas().purge(&self.ctx).unwrap();
        self.pages.frames().statistics().free().get()
    }

    /// Fails the test unless every frame, address, reference and mark has gone back.
    pub(crate) fn nothing_remains(&self) {
        let frames = self.pages.frames();
        let all = frames.memory().frames().count().get();
        assert_eq!(self.free_frames(), all, "frames");
        let areas = self.pages.areas();
        assert_eq!(areas.areas(), [], "areas");
        assert_eq!(areas.space().mapped(), 0, "pages that are still mapped");
        areas.self_check().unwrap();
        frames.self_check().unwrap();
        assert_eq!(self.pages.self_check(), Ok((0, 0)), "marks");
        let memmap = self.pages.memmap();
        memmap.reclaim(&self.ctx, 0).unwrap();
        assert_eq!(memmap.counters().live_bytes, 0, "references to descriptors");
    }
}

/// A space that can be told to fail, and counts its pages.
pub(crate) type Failing<S> = Interposed<S, Count>;

/// What such a space counts.
pub(crate) struct Count {
    /// Maps that still succeed.
    left: AtomicU64,
    mapped: AtomicU64,
    /// Whether the next `clear`, and the next `shoot`, are refused.
    refuses_clear: AtomicBool,
    refuses_shoot: AtomicBool,
    before_clear: Mutex<Option<Hook>>,
}

type Hook = Box<dyn FnOnce() + Send>;

impl<S> Failing<S> {
    fn new(space: S) -> Self {
        let between = Count {
            left: AtomicU64::new(u64::MAX),
            mapped: AtomicU64::new(0),
            refuses_clear: AtomicBool::new(false),
            refuses_shoot: AtomicBool::new(false),
            before_clear: Mutex::new(None),
        };
        Failing { space, between }
    }
}

impl Count {
    /// Calls `hook` when something is about to be taken out of the page table for the next time.
    pub(crate) fn before_clear(&self, hook: impl FnOnce() + Send + 'static) {
        *self.before_clear.lock().unwrap() = Some(Box::new(hook));
    }

    /// Makes all maps fail but the next `left`.
    pub(crate) fn fail_after(&self, left: u64) {
        self.left.store(left, Ordering::Relaxed);
    }

    /// Refuses to take anything out of the page table, the next time.
    pub(crate) fn refuse_clear(&self) {
        self.refuses_clear.store(true, Ordering::Relaxed);
    }

    /// Refuses to shoot anything down, the next time.
    pub(crate) fn refuse_shoot(&self) {
        self.refuses_shoot.store(true, Ordering::Relaxed);
    }

    /// Pages that show something.
    pub(crate) fn mapped(&self) -> u64 {
        self.mapped.load(Ordering::Relaxed)
    }
}

impl<S: Vspace> Between<S> for Count {
    fn map(
        &self,
        space: &S,
        at: WindowOffset,
        frames: PfnRange,
        protection: Protection,
    ) -> Result<(), MapError> {
        let pages = frames.count().get();
        let left = self
            .left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
                left.checked_sub(1)
            });
        if left.is_err() {
            return Err(MapError::NoRoom { pages, errno: 12 });
        }
        space.map(at, frames, protection)?;
        self.mapped.fetch_add(pages, Ordering::Relaxed);
        Ok(())
    }

    fn clear(&self, space: &S, range: WindowRange) -> Result<(), UnmapError> {
        let hook = self.before_clear.lock().unwrap().take();
        if let Some(hook) = hook {
            hook();
        }
        if self.refuses_clear.swap(false, Ordering::Relaxed) {
            return Err(refused(range.len()));
        }
        let pages = (range.start().get()..range.end().get()).step_by(4096);
        let shown = pages.filter(|page| space.translate(WindowOffset::new(*page)).is_some());
        let shown = shown.count() as u64;
        space.clear(range)?;
        self.mapped.fetch_sub(shown, Ordering::Relaxed);
        Ok(())
    }

    fn shoot(&self, space: &S, ranges: &[WindowRange]) -> Result<S::Ticket, UnmapError> {
        if self.refuses_shoot.swap(false, Ordering::Relaxed) {
            return Err(refused(ranges.iter().map(|range| range.len()).sum()));
        }
        space.shoot(ranges)
    }
}

/// What a machine says that does not do it.
pub(crate) fn refused(bytes: u64) -> UnmapError {
    UnmapError::Refused { bytes, errno: 110 }
}

/// An order that is one.
pub(crate) fn order(order: u8) -> Order {
    Order::try_new(order).unwrap()
}

/// Each test on each machine.
macro_rules! on_each_machine {
    ($($test:ident)*) => {
        mod host {
            $(#[test] fn $test() { super::$test::<crate::rig::Host>(); })*
        }
        mod sim {
            $(#[test] fn $test() { super::$test::<crate::rig::Sim>(); })*
        }
    };
}
pub(crate) use on_each_machine;
