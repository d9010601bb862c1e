//! What a test needs of a machine: an address space, frames to show there, CPUs to run on.

use alloc::sync::Arc;
use core::panic::AssertUnwindSafe;

use pageless_fault::{FrameMemory, Machine, MaySleep, VirtAddr, Vspace, Window};
use pageless_memmap::{Config, Memmap, Regions};
use pageless_pfn::{ByteLen, FrameCount, Pfn, PfnFlags, PfnRange, PfnT};
use pageless_vmap::area::{Vmalloc, VmallocConfig};

pub(crate) mod failing;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
pub(crate) mod host;
mod interposed;
pub(crate) mod sim;

/// What one CPU does, and the right to sleep that it has there.
pub(crate) type Body<'a> = Box<dyn FnOnce(&mut MaySleep) + Send + 'a>;

/// A machine to test on. Its space is used only in the bodies given to [`cpus`](Rig::cpus) and [`on_cpu`](Rig::on_cpu): on some
/// machines an access has to be made *by* somebody.
pub(crate) trait Rig: Sync + Sized {
    type Space: Vspace + 'static;
    type Window: Window + 'static;
    type Machine: Machine<Window = Self::Window>;
    type Memory: FrameMemory + 'static;

    /// How many of a thousand rounds of a stress test are made here.
    const PER_MILLE: u64;

    /// How often each test is run, each time on another machine.
    fn times() -> u64 {
        1
    }

    /// The machine for the `time`-th time, from 0.
    fn new(time: u64) -> Self;

    fn machine(&self) -> &Self::Machine;

    /// At least 1024 frames.
    fn memory(&self) -> &Arc<Self::Memory>;

    /// Address space of so many pages: a multiple of 512.
    fn space(&self, pages: u64) -> Self::Space;

    /// Runs each body on a CPU of its own, all at the same time, until the last one has ended.
    fn cpus(&self, bodies: Vec<Body<'_>>);

    /// Gives the other CPUs a turn.
    fn pause(&self);

    /// Fails the test if the machine has seen what no correct core does, whatever the core itself noticed.
    fn check(&self) {}

    /// Runs `body` on a CPU while all others are idle.
    fn on_cpu<T: Send>(&self, body: impl FnOnce(&mut MaySleep) -> T + Send) -> T {
        let mut result = None;
        self.cpus(vec![Box::new(|ctx: &mut MaySleep| {
            result = Some(body(ctx));
        })]);
        result.expect("a body that ended without a panic")
    }

    /// How many rounds of `full` a stress test makes here.
    fn rounds(full: u64) -> u64 {
        (full * Self::PER_MILLE / 1000).max(1)
    }

    /// Frame `n` of the memory.
    fn frame(&self, n: u64) -> Pfn {
        self.memory()
            .frames()
            .nth(n)
            .expect("a frame of the memory")
    }

    /// A vmalloc space of so many pages. The memmap describes every frame of the memory.
    fn vmalloc(&self, pages: u64, config: VmallocConfig) -> TestVmalloc<Self> {
        Vmalloc::new(self.space(pages), self.regions(), config)
    }

    /// The descriptors of all frames.
    fn regions(&self) -> Arc<Regions<Self::Window>> {
        let regions = Regions::new();
        let frames = self.memory().frames();
        let memmap = Memmap::attach(self.machine(), frames, Config::default()).unwrap();
        regions.attach(Arc::new(memmap)).unwrap();
        Arc::new(regions)
    }
}

pub(crate) type TestVmalloc<R> = Vmalloc<<R as Rig>::Space, Arc<Regions<<R as Rig>::Window>>>;

/// One node, so that what comes first is certain; a cap of so many pages; small blocks.
pub(crate) fn small(lazy_pages: u64) -> VmallocConfig {
    VmallocConfig::for_cpus(1)
        .lazy_max(ByteLen::new(lazy_pages * 4096))
        .ram_block(FrameCount::new(128))
}

/// A frame without a descriptor.
pub(crate) fn special(pfn: Pfn) -> PfnT {
    PfnT::new(pfn, PfnFlags::DEV)
}

/// A frame with one.
pub(crate) fn paged(pfn: Pfn) -> PfnT {
    PfnT::new(pfn, PfnFlags::DEV | PfnFlags::MAP)
}

/// How many references `pfn` has.
pub(crate) fn references<W: Window>(regions: &Regions<W>, ctx: &MaySleep, pfn: Pfn) -> u32 {
    let page = regions.get(ctx, paged(pfn).paged().unwrap()).unwrap();
    page.page().references() - 1
}

/// Writes `tag` to the beginning of a frame.
pub(crate) fn fill<R: Rig>(rig: &R, pfn: Pfn, tag: u64) {
    rig.memory().write(pfn.phys(), &tag.to_le_bytes()).unwrap();
}

/// What the first 8 bytes at `page` of the area at `address` say; `None` if nothing is to be seen there.
pub(crate) fn tag_at<S: Vspace>(space: &S, address: VirtAddr, page: u64) -> Option<u64> {
    let at = address.checked_add(page * 4096)?;
    let mut tag = [0; 8];
    space.read(space.offset_of(at)?, &mut tag).ok()?;
    Some(u64::from_le_bytes(tag))
}

/// The range of one frame.
pub(crate) fn one(pfn: Pfn) -> PfnRange {
    PfnRange::try_new(pfn, FrameCount::new(1)).unwrap()
}

/// Runs one test, as often as the rig says.
pub(crate) fn run<R: Rig>(test: fn(&R)) {
    for time in 0..R::times() {
        let _told = Told(time);
        let rig = R::new(time);
        test(&rig);
        rig.check();
    }
}

/// Says which time it was that a test failed.
struct Told(u64);

impl Drop for Told {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("that was time {} of this test", self.0);
        }
    }
}

/// What a CPU is to do.
pub(crate) fn cpu<'a>(body: impl FnOnce(&mut MaySleep) + Send + 'a) -> Body<'a> {
    Box::new(body)
}

/// [`Rig::cpus`] where any thread is a CPU.
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
pub(crate) fn threads(bodies: Vec<Body<'_>>) {
    let run = |body: Body<'_>| {
        std::panic::catch_unwind(AssertUnwindSafe(|| body(&mut MaySleep::claim())))
    };
    let ends: Vec<_> = std::thread::scope(|scope| {
        let all: Vec<_> = bodies
            .into_iter()
            .map(|body| scope.spawn(move || run(body)))
            .collect();
        all.into_iter()
            .map(|one| one.join().and_then(|end| end))
            .collect()
    });
    for end in ends {
        if let Err(panic) = end {
            std::panic::resume_unwind(panic);
        }
    }
}
