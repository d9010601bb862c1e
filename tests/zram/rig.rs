//! The machines that the tests run on.

use core::sync::atomic::{AtomicU64, Ordering};
use std::sync::Mutex;

use pageless::fault::host::{HostFrames, HostRam, HostVspace};
use pageless::fault::shootdown::CpuId;
use pageless::fault::sim::{SimConfig, SimMachine, SimRam, SimVspace};
use pageless::fault::{Cpus, FrameMemory, MaySleep, Vspace, WindowLen, WindowOffset, WindowRange};
use pageless::pfn::{FrameCount, Pfn, PfnRange};
use pageless::vmap::frames::Gfp;
use pageless::vmap::zsmalloc::{Frame, FrameSource, NoFrame, PairWindows};

/// A machine with some memory and some address space.
pub(crate) trait Rig: Sized + 'static {
    type Memory: FrameMemory;
    type Space: Vspace + core::fmt::Debug;

    /// Runs `test` with `frames` frames of memory, all of which are back afterwards.
    fn run(frames: u64, test: impl FnOnce(&Frames<'_, Self>));

    /// Where the threads of a crowd run: each on a CPU of its own, if the machine has any to give.
    fn on_cpu(space: &Self::Space, cpu: u16, body: impl FnOnce());
}

/// Room for some windows of two pages.
fn len() -> WindowLen {
    WindowLen::covering(1 << 20).unwrap()
}

/// Memory and address space of this process.
pub(crate) struct Host;

impl Rig for Host {
    type Memory = HostRam;
    type Space = HostVspace;

    fn run(frames: u64, test: impl FnOnce(&Frames<'_, Host>)) {
        let start = Pfn::try_new(0x10_0000).unwrap();
        let range = PfnRange::try_new(start, FrameCount::new(frames)).unwrap();
        let ram = HostRam::new(range).unwrap();
        let space = HostVspace::reserve(HostFrames::of_ram(&ram).unwrap(), len()).unwrap();
        Frames::run(&ram, &space, test);
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

    fn run(frames: u64, test: impl FnOnce(&Frames<'_, Sim>)) {
        let config = SimConfig {
            frames: u32::try_from(frames + 1024).unwrap(),
            ..SimConfig::default()
        };
        let machine = SimMachine::new(config).unwrap();
        let ram = machine.ram(FrameCount::new(frames)).unwrap();
        let space = machine.reserve_vspace(len()).unwrap();
        machine
            .run_on(CpuId::new(0), |_| Frames::run(&ram, &space, test))
            .unwrap();
        assert_eq!(machine.stale_hits(), 0, "{:?}", machine.incidents());
    }

    fn on_cpu(space: &SimVspace, cpu: u16, body: impl FnOnce()) {
        let cpu = CpuId::new(cpu);
        space.machine().run_on(cpu, |_| body()).unwrap();
    }
}

/// All frames of a memory. No two that are handed out one after the other are neighbours: what crosses from one into the next does not go on there.
pub(crate) struct Frames<'m, R: Rig> {
    memory: &'m R::Memory,
    space: &'m R::Space,
    free: Mutex<Vec<Frame>>,
    /// How many more there are before it fails.
    left: AtomicU64,
}

impl<'m, R: Rig> Frames<'m, R> {
    fn run(memory: &'m R::Memory, space: &'m R::Space, test: impl FnOnce(&Self)) {
        let frames = memory.frames();
        let all = frames.count().get();
        let order = (0..all).step_by(2).chain((1..all).step_by(2));
        let free = order.map(|nth| Frame::from_unused(frames.nth(nth).unwrap()));
        let source = Self {
            memory,
            space,
            free: Mutex::new(free.collect()),
            left: AtomicU64::new(u64::MAX),
        };
        test(&source);
        let back = source.free.lock().unwrap().len() as u64;
        assert_eq!(back, all, "frames are missing, or have come back twice");
    }

    /// Windows for pair mappings: the first so many bytes of the space, for one user at a time.
    pub(crate) fn windows(&self, bytes: u64) -> PairWindows<&'m R::Space> {
        let range = WindowRange::try_new(WindowOffset::new(0), bytes).unwrap();
        PairWindows::new(self.space, range)
    }

    /// Runs `body` in as many threads at the same time, and waits for them: as a CPU waits, that serves the others' shootdowns.
    pub(crate) fn crowd(&self, threads: u16, body: impl Fn(u16) + Sync) {
        let left = AtomicU64::new(threads.into());
        std::thread::scope(|scope| {
            for thread in 0..threads {
                let (body, left) = (&body, &left);
                scope.spawn(move || {
                    // Also if it panics: nobody would end otherwise.
                    let _last = OnDrop(|| {
                        left.fetch_sub(1, Ordering::Release);
                    });
                    R::on_cpu(self.space, thread + 1, || body(thread));
                });
            }
            let mut turn = 0_u32;
            while left.load(Ordering::Acquire) != 0 {
                self.memory.relax(turn);
                turn = turn.saturating_add(1);
            }
        });
    }

    /// From now on there are only so many more, whatever comes back.
    pub(crate) fn leave(&self, frames: u64) {
        self.left.store(frames, Ordering::Relaxed);
    }
}

impl<R: Rig> FrameSource for Frames<'_, R> {
    type Memory = R::Memory;

    fn memory(&self) -> &R::Memory {
        self.memory
    }

    fn take(&self, _: &Gfp<'_>) -> Result<Frame, NoFrame> {
        let left = self.left.load(Ordering::Relaxed);
        self.left
            .store(left.checked_sub(1).ok_or(NoFrame)?, Ordering::Relaxed);
        self.free.lock().unwrap().pop().ok_or(NoFrame)
    }

    fn give_back(&self, frame: Frame) {
        let pfn = frame.pfn();
        self.memory
            .retire(PfnRange::try_new(pfn, FrameCount::new(1)).unwrap());
        self.free.lock().unwrap().push(frame);
    }
}

/// The right to sleep, of a test.
pub(crate) fn ctx() -> MaySleep {
    MaySleep::claim()
}

struct OnDrop<F: Fn()>(F);

impl<F: Fn()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}
