//! The machines that the tests run on, and a source of frames that can fail.

use std::collections::HashSet;

use pageless_fault::host::{HostFrames, HostRam, HostVspace};
use pageless_fault::shootdown::CpuId;
use pageless_fault::sim::{SimConfig, SimMachine, SimRam, SimVspace};
use pageless_fault::sync::Mutex;
use pageless_fault::{FrameMemory, MaySleep, Vspace, WindowLen};
use pageless_pfn::{FrameCount, Pfn, PfnRange};
use pageless_vmap::frames::Gfp;
use pageless_vmap::zsmalloc::{Frame, FrameSource, NoFrame, Zsmalloc};

/// A machine with some memory and some address space.
pub(crate) trait Rig {
    type Memory: FrameMemory;
    type Space: Vspace;

    /// Runs `test` where the space can be used, with `frames` frames of memory.
    fn run(frames: u64, test: impl FnOnce(&Self::Memory, &Self::Space));
}

fn len() -> WindowLen {
    WindowLen::covering(4 << 20).unwrap()
}

/// Memory of this process.
pub(crate) fn host_ram(frames: u64) -> HostRam {
    let start = Pfn::try_new(0x1_0000).unwrap();
    HostRam::new(PfnRange::try_new(start, FrameCount::new(frames)).unwrap()).unwrap()
}

/// This process's own MMU.
pub(crate) struct Host;

impl Rig for Host {
    type Memory = HostRam;
    type Space = HostVspace;

    fn run(frames: u64, test: impl FnOnce(&HostRam, &HostVspace)) {
        let ram = host_ram(frames);
        let space = HostVspace::reserve(HostFrames::of_ram(&ram).unwrap(), len()).unwrap();
        test(&ram, &space);
    }
}

/// The modelled machine.
pub(crate) struct Sim;

impl Rig for Sim {
    type Memory = SimRam;
    type Space = SimVspace;

    fn run(frames: u64, test: impl FnOnce(&SimRam, &SimVspace)) {
        let machine = SimMachine::new(SimConfig::default()).unwrap();
        let ram = machine.ram(FrameCount::new(frames)).unwrap();
        let space = machine.reserve_vspace(len()).unwrap();
        machine
            .run_on(CpuId::new(0), |_| test(&ram, &space))
            .unwrap();
        assert_eq!(machine.stale_hits(), 0, "{:?}", machine.incidents());
    }
}

/// All frames of a memory, scattered, one at a time.
pub(crate) struct Frames<'m, M> {
    memory: &'m M,
    state: Mutex<State>,
}

struct State {
    free: Vec<Frame>,
    out: HashSet<Pfn>,
    /// How many more there are before it fails.
    left: u64,
}

impl<'m, M: FrameMemory> Frames<'m, M> {
    pub(crate) fn new(memory: &'m M) -> Self {
        let all: Vec<Pfn> = memory.frames().iter().collect();
        // Neighbours in a zspage are no neighbours in memory.
        let (even, odd): (Vec<_>, Vec<_>) = all.iter().partition(|pfn| pfn.get() % 2 == 0);
        let free = even.into_iter().chain(odd).map(Frame::from_unused);
        Frames {
            memory,
            state: Mutex::new(State {
                free: free.collect(),
                out: HashSet::new(),
                left: u64::MAX,
            }),
        }
    }

    /// Lets `left` more requests succeed.
    pub(crate) fn fail_after(&self, left: u64) {
        self.state.lock().left = left;
    }

    /// Frames that have not come back.
    pub(crate) fn out(&self) -> u64 {
        self.state.lock().out.len() as u64
    }
}

impl<M: FrameMemory> FrameSource for Frames<'_, M> {
    type Memory = M;

    fn memory(&self) -> &M {
        self.memory
    }

    fn take(&self, _: &Gfp<'_>) -> Result<Frame, NoFrame> {
        let mut state = self.state.lock();
        state.left = state.left.checked_sub(1).ok_or(NoFrame)?;
        let frame = state.free.pop().ok_or(NoFrame)?;
        assert!(state.out.insert(frame.pfn()), "handed out twice");
        Ok(frame)
    }

    fn give_back(&self, frame: Frame) {
        let range = PfnRange::try_new(frame.pfn(), FrameCount::new(1)).unwrap();
        self.memory.retire(range);
        let mut state = self.state.lock();
        assert!(state.out.remove(&frame.pfn()), "given back twice");
        state.free.push(frame);
    }
}

/// An object that holds `bytes`.
pub(crate) fn store<F: FrameSource>(
    pool: &Zsmalloc<F>,
    bytes: &[u8],
) -> pageless_vmap::zsmalloc::Handle {
    let ctx = MaySleep::claim();
    let handle = pool.malloc(&Gfp::kernel(&ctx), bytes.len()).unwrap();
    pool.write(&handle, bytes).unwrap();
    handle
}

/// `len` bytes that no other `seed` gives.
pub(crate) fn text(seed: u64, len: usize) -> Vec<u8> {
    let mut rng = fastrand::Rng::with_seed(seed);
    (0..len).map(|_| rng.u8(..)).collect()
}

/// Runs each test on both machines.
#[macro_export]
macro_rules! on_each_machine {
    ($($test:ident)*) => {
        mod host {
            $(#[test] fn $test() { super::$test::<$crate::rig::Host>(); })*
        }
        mod sim {
            $(#[test] fn $test() { super::$test::<$crate::rig::Sim>(); })*
        }
    };
}
