//! The world of one test: a machine, its frames, one address space for everything that maps, and what shares frames.

use alloc::boxed::Box;
use alloc::sync::Arc;

use pageless_fault::shootdown::{CpuId, PolicyKind};
use pageless_fault::sim::{SimConfig, SimMachine, SimRam, SimVspace, SimWindow, Speculation};
use pageless_fault::sync::Mutex;
use pageless_fault::{FrameMemory, MaySleep, WindowLen, WindowOffset, WindowRange};
use pageless_memmap::{Budget, ChunkSize, Config, Memmap};
use pageless_pfn::{ByteLen, FrameCount, PagedPfn, Pfn};
use pageless_vmap::area::{
    AreaSpace, Descriptors, ReferenceError, Release, Unreachable, Vmalloc, VmallocConfig,
};
use pageless_vmap::compound::Pages;
use pageless_vmap::frames::{FrameAllocator, FrameConfig, PageBlock, PerCpuPlan, WatermarkPlan};
use pageless_vmap::zsmalloc::{PairWindows, Zsmalloc};

use crate::space::{Fault, Space};

/// The frames of a test.
pub(crate) type Frames = FrameAllocator<SimRam>;

/// How hard it is on what is tested.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Setup {
    pub(crate) machine: SimConfig,
    /// Frames of memory.
    pub(crate) frames: u64,
    /// Pages of address space.
    pub(crate) pages: u64,
    /// Pages that may wait for a shootdown.
    pub(crate) lazy: u64,
    pub(crate) fault: Fault,
    /// Interrupts that are lost on their way, from the first on.
    pub(crate) lost: u32,
}

impl Setup {
    /// A machine that does unasked whatever it may, with just enough memory and addresses for `cpus` CPUs.
    pub(crate) fn new(cpus: u16, policy: PolicyKind, seed: u64) -> Self {
        let each = u64::from(cpus);
        let frames = 24 + 8 * each;
        Setup {
            machine: SimConfig {
                cpus,
                // Page tables and descriptors besides.
                frames: (frames + 96 + each / 2) as u32,
                policy,
                lazy_most: 3,
                speculation: if seed.is_multiple_of(2) {
                    Speculation::WithoutAccessed
                } else {
                    Speculation::Marked
                },
                speculate_one_in: 12,
                nmi_one_in: 4,
                tick_every: 16,
                mailbox: 2,
                seed,
                ..SimConfig::default()
            },
            frames,
            // A block of 128 pages for the small mappings of each CPU, and little more.
            pages: 64 + 140 * each,
            lazy: 8 + 2 * each,
            fault: Fault::None,
            lost: 0,
        }
    }
}

/// What the CPUs of a test share.
pub(crate) struct World {
    pub(crate) machine: SimMachine,
    pub(crate) frames: Arc<Frames>,
    pub(crate) areas: Arc<AreaSpace<Space>>,
    pub(crate) vmalloc: Vmalloc<Space, Sharing>,
    pub(crate) pages: Pages<SimRam, Space, SimWindow>,
    pub(crate) sharing: Sharing,
    pub(crate) windows: PairWindows<Box<SimVspace>>,
    pub(crate) store: Zsmalloc<Arc<Frames>>,
    /// Whether every shootdown can be proved.
    pub(crate) all_proved: bool,
}

impl World {
    pub(crate) fn new(setup: &Setup) -> Self {
        let machine = SimMachine::new(setup.machine).unwrap();
        let cpus = setup.machine.cpus;
        let ram = machine.ram(FrameCount::new(setup.frames)).unwrap();
        let pfns = ram.frames();
        let config = FrameConfig {
            dma_frames: FrameCount::ZERO,
            watermarks: WatermarkPlan::None,
            percpu: PerCpuPlan::Fixed {
                batch: FrameCount::new(1),
                high: FrameCount::new(2),
            },
            ..FrameConfig::default()
        };
        let frames = Arc::new(FrameAllocator::new(Arc::new(ram), config).unwrap());
        let reserve = |pages: u64| {
            let len = WindowLen::covering(pages * 4096).unwrap();
            machine.reserve_vspace(len).unwrap()
        };
        let config = VmallocConfig::for_cpus(cpus)
            .lazy_max(ByteLen::new(setup.lazy * 4096))
            .nodes(cpus.min(4))
            .ram_block(FrameCount::new(128));
        let space = Space {
            space: reserve(setup.pages),
            between: setup.fault,
        };
        let areas = Arc::new(AreaSpace::new(space, config));
        let config = Config {
            chunk: ChunkSize::MIN,
            budget: Budget::new(1 << 20, ChunkSize::MIN).unwrap(),
            ..Config::default()
        };
        let attach = |_: &_| Memmap::attach(&machine, pfns, config).unwrap();
        let memmap = machine.run_on(CpuId::new(0), attach).unwrap();
        let sharing = Sharing(Arc::new(Shared {
            frames: Arc::clone(&frames),
            of: pfns.iter().map(|_| Mutex::new(None)).collect(),
        }));
        // Fewer windows than CPUs: they go round.
        let slots = u64::from(cpus.div_ceil(2));
        let windows = reserve(3 * slots);
        let range = WindowRange::try_new(WindowOffset::new(0), 3 * slots * 4096).unwrap();
        World {
            vmalloc: Vmalloc::over(Arc::clone(&areas), sharing.clone()),
            pages: Pages::new(Arc::clone(&frames), Arc::new(memmap), Arc::clone(&areas)),
            windows: PairWindows::new(Box::new(windows), range),
            store: Zsmalloc::new(Arc::clone(&frames)),
            all_proved: setup.lost == 0,
            machine,
            frames,
            areas,
            sharing,
        }
    }

    /// Runs `f` on CPU 0 while nothing else runs.
    pub(crate) fn alone<T>(&self, f: impl FnOnce(&MaySleep) -> T) -> T {
        self.machine
            .run_on(CpuId::new(0), |_| f(&MaySleep::claim()))
            .unwrap()
    }

    /// What must hold when all CPUs have come to rest and have given everything back.
    pub(crate) fn assert_nothing_remains(&self) {
        self.alone(|ctx| {
            self.areas.purge(ctx).unwrap();
            self.areas.self_check().unwrap();
            self.frames.self_check().unwrap();
            self.store.self_check().unwrap();
            assert_eq!(self.pages.self_check(), Ok((0, 0)), "marks");
            let kept: Vec<_> = self.areas.areas();
            let blocks = |area: &pageless_vmap::area::AreaInfo| {
                area.kind == pageless_vmap::area::AreaKind::RamBlock
            };
            assert!(kept.iter().all(blocks), "areas: {kept:?}");
            let all = self.frames.memory().frames().count();
            assert_eq!(self.frames.statistics().free(), all, "frames");
            let memmap = self.pages.memmap();
            memmap.reclaim(ctx, 0).unwrap();
            assert_eq!(memmap.counters().live_bytes, 0, "references to descriptors");
        });
        let counters = self.machine.counters();
        assert_eq!(
            counters.sent,
            counters.received + counters.skipped + counters.deferred,
            "{counters:?}"
        );
    }
}

/// Frames that belong to whoever refers to them, all together: the last one gives them back. What page counts are for.
#[derive(Clone)]
pub(crate) struct Sharing(Arc<Shared>);

struct Shared {
    frames: Arc<Frames>,
    /// Of each frame that is shared: the frame, and how many share it.
    of: Box<[Mutex<Shares>]>,
}

/// A frame that is shared, and how many share it.
type Shares = Option<(PageBlock, u32)>;

/// One reference to a shared frame.
pub(crate) struct Share {
    shared: Arc<Shared>,
    pfn: Pfn,
}

impl Sharing {
    fn place(&self, pfn: Pfn) -> &Mutex<Shares> {
        self.0.place(pfn)
    }

    /// The first reference to a frame.
    pub(crate) fn share(&self, block: PageBlock) -> Share {
        let pfn = block.pfn();
        let before = self.place(pfn).lock().replace((block, 1));
        assert!(before.is_none(), "a frame that is out twice");
        Share {
            shared: Arc::clone(&self.0),
            pfn,
        }
    }
}

impl Shared {
    fn place(&self, pfn: Pfn) -> &Mutex<Shares> {
        let index = self.frames.memory().frames().index_of(pfn);
        &self.of[index.expect("a frame of the memory") as usize]
    }
}

impl Share {
    pub(crate) fn pfn(&self) -> Pfn {
        self.pfn
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut place = self.shared.place(self.pfn).lock();
        let last = match &mut *place {
            Some((_, 1)) => place.take(),
            Some((_, others)) => {
                *others -= 1;
                None
            }
            None => panic!("a reference to a frame that nobody has"),
        };
        drop(place);
        if let Some((block, _)) = last {
            self.shared.frames.free(block);
        }
    }
}

impl Descriptors for Sharing {
    type Reference = Share;

    fn reference(&self, _: &MaySleep, pfn: PagedPfn) -> Result<Share, ReferenceError> {
        let pfn = pfn.pfn();
        match &mut *self.place(pfn).lock() {
            Some((_, count)) => *count += 1,
            None => return Err(ReferenceError::NotAttached { pfn }),
        }
        Ok(Share {
            shared: Arc::clone(&self.0),
            pfn,
        })
    }
}

/// Frames that go back to their allocator when nobody can see them any more.
pub(crate) struct Returned {
    pub(crate) frames: Arc<Frames>,
    pub(crate) blocks: Vec<PageBlock>,
}

impl Release for Returned {
    fn release(self: Box<Self>, _: &Unreachable<'_>, _: &MaySleep) {
        for block in self.blocks {
            self.frames.free(block);
        }
    }
}
