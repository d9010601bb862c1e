//! The machines that the tests run on, with memory in pieces.

use alloc::sync::Arc;

use pageless::DirectMap;
use pageless::block::{
    Bio, BlkError, BlockDevice, FrameAccess, HeapFrames, Op, Pmem, PmemFrames, Sector, submit_sync,
};
use pageless::fault::host::{HostFrames, HostMachine, HostRam, HostVspace, HostWindow};
use pageless::fault::shootdown::CpuId;
use pageless::fault::sim::{SimConfig, SimMachine, SimRam, SimVspace, SimWindow};
use pageless::fault::{FrameMemory, MaySleep, VirtAddr, Vspace, Window, WindowLen};
use pageless::memmap::{Config, Memmap};
use pageless::pfn::{ByteLen, FrameCount, Pfn, PfnRange, PhysSegment};
use pageless::vmap::area::{AreaSpace, NoDescriptors, Vmalloc, VmallocConfig};
use pageless::vmap::buffer_pool::Buffer;
use pageless::vmap::compound::{Page, Pages};
use pageless::vmap::frames::{FrameAllocator, FrameConfig, Gfp, Order, PerCpuPlan, WatermarkPlan};

/// Frames of memory.
const FRAMES: u64 = 2048;
/// Bytes of address space: few, so that addresses are used again.
const ADDRESSES: u64 = 1 << 20;
/// Bytes of a device.
pub(crate) const DEVICE: u64 = 1 << 20;

/// What the bios of the tests may be about: memory of a machine, and memory that has nothing to do with it.
pub(crate) type Memory<R> = (DirectMap<Arc<<R as Rig>::Memory>>, Arc<HeapFrames>);

/// A machine.
pub(crate) trait Rig: Sized + 'static {
    type Memory: FrameMemory + 'static;
    type Space: Vspace + 'static;
    type Window: Window + 'static;

    /// Runs `test` where everything can be used.
    fn run(test: impl FnOnce(&Mm<Self>));

    /// Where the threads of a crowd run: each on a CPU of its own, if the machine has any to give.
    fn on_cpu(space: &Self::Space, cpu: u16, body: impl FnOnce());
}

pub(crate) type AllPages<R> = Pages<<R as Rig>::Memory, <R as Rig>::Space, <R as Rig>::Window>;

/// Memory, and addresses to see it at.
pub(crate) struct Mm<R: Rig> {
    pub(crate) pages: Arc<AllPages<R>>,
    pub(crate) vmalloc: Vmalloc<R::Space, NoDescriptors>,
    pub(crate) ctx: MaySleep,
    /// Memory that the tests look at devices with.
    scratch: Arc<HeapFrames>,
}

impl<R: Rig> Mm<R> {
    fn new(memory: R::Memory, space: R::Space, memmap: Memmap<R::Window>) -> Self {
        let config = FrameConfig {
            dma_frames: FrameCount::ZERO,
            watermarks: WatermarkPlan::None,
            percpu: PerCpuPlan::None,
            ..FrameConfig::default()
        };
        let frames = Arc::new(FrameAllocator::new(Arc::new(memory), config).unwrap());
        let areas = Arc::new(AreaSpace::new(space, VmallocConfig::for_cpus(1)));
        let scratch = HeapFrames::new(Pfn::try_new(1 << 28).unwrap(), FrameCount::new(256));
        Mm {
            pages: Arc::new(Pages::new(frames, Arc::new(memmap), Arc::clone(&areas))),
            vmalloc: Vmalloc::over(areas, NoDescriptors),
            ctx: MaySleep::claim(),
            scratch: Arc::new(scratch.unwrap()),
        }
    }

    pub(crate) fn gfp(&self) -> Gfp<'_> {
        Gfp::kernel(&self.ctx)
    }

    pub(crate) fn frames(&self) -> &Arc<FrameAllocator<R::Memory>> {
        self.pages.frames()
    }

    pub(crate) fn ram(&self) -> &Arc<R::Memory> {
        self.frames().memory()
    }

    /// What drivers reach memory through.
    pub(crate) fn memory(&self) -> Memory<R> {
        (
            DirectMap::new(Arc::clone(self.ram())),
            Arc::clone(&self.scratch),
        )
    }

    pub(crate) fn pmem(&self) -> Pmem<Memory<R>> {
        let frames = PmemFrames::memfd(Pfn::try_new(1 << 30).unwrap(), ByteLen::new(DEVICE));
        Pmem::new(frames.unwrap(), self.memory())
    }

    /// Carries out a bio from or to `sector` on; how it ended, and after how many bytes.
    pub(crate) fn transfer(
        device: &impl BlockDevice,
        op: Op,
        sector: u64,
        segments: impl IntoIterator<Item = PhysSegment>,
    ) -> Result<(), (BlkError, u64)> {
        let mut bio = Bio::new(op, Sector::new(sector));
        bio.extend(segments);
        let done = submit_sync(device, bio).unwrap();
        done.result().map_err(|error| (error, done.done().get()))
    }

    /// Makes a device all zeroes.
    pub(crate) fn clear(&self, device: &impl BlockDevice) {
        let all = Bio::discard(Sector::new(0), ByteLen::new(DEVICE));
        submit_sync(device, all).unwrap().result().unwrap();
    }

    /// Puts bytes onto a device, by other memory.
    pub(crate) fn store(&self, device: &impl BlockDevice, sector: u64, bytes: &[u8]) {
        let buffer = self.scratch.segment(0, ByteLen::new(bytes.len() as u64));
        let buffer = buffer.unwrap();
        self.scratch.write_bytes(buffer, bytes).unwrap();
        Self::transfer(device, Op::Write, sector, [buffer]).unwrap();
    }

    /// What is on a device, by other memory.
    pub(crate) fn load(&self, device: &impl BlockDevice, sector: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0x5a; len];
        let buffer = self.scratch.segment(0, ByteLen::new(len as u64)).unwrap();
        self.scratch.write_bytes(buffer, &bytes).unwrap();
        Self::transfer(device, Op::Read, sector, [buffer]).unwrap();
        self.scratch.read_bytes(buffer, &mut bytes).unwrap();
        bytes
    }

    /// Fails the test unless every frame, address, reference and mark has gone back.
    pub(crate) fn nothing_remains(&self) {
        let areas = self.pages.areas();
        areas.purge(&self.ctx).unwrap();
        let all = self.ram().frames().count();
        assert_eq!(self.frames().statistics().free(), all, "frames");
        assert_eq!(areas.areas(), [], "areas");
        areas.self_check().unwrap();
        self.frames().self_check().unwrap();
        assert_eq!(self.pages.self_check(), Ok((0, 0)), "marks");
        let memmap = self.pages.memmap();
        memmap.reclaim(&self.ctx, 0).unwrap();
        assert_eq!(memmap.counters().live_bytes, 0, "references to descriptors");
    }
}

/// This process's own MMU.
pub(crate) struct Host;

impl Rig for Host {
    type Memory = HostRam;
    type Space = HostVspace;
    type Window = HostWindow;

    fn run(test: impl FnOnce(&Mm<Self>)) {
        let start = Pfn::try_new(0x1_0000).unwrap();
        let pfns = PfnRange::try_new(start, FrameCount::new(FRAMES)).unwrap();
        let ram = HostRam::new(pfns).unwrap();
        let len = WindowLen::covering(ADDRESSES).unwrap();
        let space = HostVspace::reserve(HostFrames::of_ram(&ram).unwrap(), len).unwrap();
        let machine = HostMachine::new().unwrap();
        let memmap = Memmap::attach(&machine, pfns, Config::default()).unwrap();
        test(&Mm::new(ram, space, memmap));
    }

    fn on_cpu(_: &HostVspace, _: u16, body: impl FnOnce()) {
        body();
    }
}

/// The modelled machine.
pub(crate) struct Sim;

impl Rig for Sim {
    type Memory = SimRam;
    type Space = SimVspace;
    type Window = SimWindow;

    fn run(test: impl FnOnce(&Mm<Self>)) {
        let config = SimConfig {
            frames: u32::try_from(FRAMES + 1024).unwrap(),
            ..SimConfig::default()
        };
        let machine = SimMachine::new(config).unwrap();
        let ram = machine.ram(FrameCount::new(FRAMES)).unwrap();
        let space = machine.reserve_vspace(WindowLen::covering(ADDRESSES).unwrap());
        let space = space.unwrap();
        machine
            .run_on(CpuId::new(0), |_| {
                let memmap = Memmap::attach(&machine, ram.frames(), Config::default());
                test(&Mm::new(ram, space, memmap.unwrap()));
            })
            .unwrap();
        assert_eq!(machine.stale_hits(), 0, "{:?}", machine.incidents());
        assert_eq!(machine.stale_walks(), 0, "{:?}", machine.incidents());
    }

    fn on_cpu(space: &SimVspace, cpu: u16, body: impl FnOnce()) {
        let cpu = CpuId::new(cpu);
        space.machine().run_on(cpu, |_| body()).unwrap();
    }
}

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

pub(crate) fn order(order: u8) -> Order {
    Order::try_new(order).unwrap()
}

/// Bytes that are not the same anywhere else.
pub(crate) fn pattern(seed: u64, len: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(seed);
    core::iter::repeat_with(|| random.u8(..))
        .take(len)
        .collect()
}

/// Memory that is seen at one address, and its frames.
pub(crate) trait OnePiece {
    fn len(&self) -> usize;
    fn segments(&self) -> Vec<PhysSegment>;
    fn read(&self, at: u64, into: &mut [u8]);
    fn write(&self, at: u64, from: &[u8]);
}

impl<M: FrameMemory, S: Vspace, W: Window> OnePiece for Page<'_, M, S, W> {
    fn len(&self) -> usize {
        self.bytes() as usize
    }
    fn segments(&self) -> Vec<PhysSegment> {
        self.segments().collect()
    }
    fn read(&self, at: u64, into: &mut [u8]) {
        self.read(at, into).unwrap();
    }
    fn write(&self, at: u64, from: &[u8]) {
        self.write(at, from).unwrap();
    }
}

impl<M: FrameMemory, S: Vspace, W: Window> OnePiece for Buffer<M, S, W> {
    fn len(&self) -> usize {
        self.len().get() as usize
    }
    fn segments(&self) -> Vec<PhysSegment> {
        self.segments().collect()
    }
    fn read(&self, at: u64, into: &mut [u8]) {
        self.read(at, into).unwrap();
    }
    fn write(&self, at: u64, from: &[u8]) {
        self.write(at, from).unwrap();
    }
}

/// Some of an area from `vmalloc`.
pub(crate) struct Vmalloced<'m, R: Rig> {
    pub(crate) mm: &'m Mm<R>,
    pub(crate) start: VirtAddr,
    pub(crate) len: u64,
}

impl<R: Rig> OnePiece for Vmalloced<'_, R> {
    fn len(&self) -> usize {
        self.len as usize
    }
    fn segments(&self) -> Vec<PhysSegment> {
        let segments = self
            .mm
            .vmalloc
            .vmalloc_to_segments(self.start, ByteLen::new(self.len));
        segments.unwrap()
    }
    fn read(&self, at: u64, into: &mut [u8]) {
        let space = self.mm.vmalloc.space();
        let at = self
            .start
            .checked_add(at)
            .and_then(|at| space.offset_of(at));
        space.read(at.unwrap(), into).unwrap();
    }
    fn write(&self, at: u64, from: &[u8]) {
        let space = self.mm.vmalloc.space();
        let at = self
            .start
            .checked_add(at)
            .and_then(|at| space.offset_of(at));
        space.write(at.unwrap(), from).unwrap();
    }
}

/// Reads all of it at its address, by pieces that begin and end anywhere.
pub(crate) fn seen(memory: &impl OnePiece) -> Vec<u8> {
    let mut bytes = vec![0xa5; memory.len()];
    for (n, piece) in bytes.chunks_mut(5003).enumerate() {
        memory.read(n as u64 * 5003, piece);
    }
    bytes
}
