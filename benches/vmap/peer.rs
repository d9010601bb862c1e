//! Another thread of the process, which runs on the other CPU while it is wanted and touches the same frames: so the kernel has to
//! interrupt it for every translation that it takes away.

use super::cpus;
use alloc::sync::Arc;
use core::hint;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use pageless_fault::FrameMemory;
use pageless_fault::host::HostRam;
use std::sync::OnceLock;
use std::thread::{self, Thread};

/// Frames that it goes round in.
const FRAMES: u64 = 16;

#[derive(Default)]
struct Shared {
    wanted: AtomicBool,
    turns: AtomicU64,
    thread: OnceLock<Thread>,
}

/// The other thread. It ends with the process.
#[derive(Clone)]
pub(crate) struct Peer(Arc<Shared>);

impl Peer {
    /// Starts it; it is not wanted yet. To be called by a thread that may run on any CPU: a new one may run where its maker may.
    pub(crate) fn start(ram: Arc<HostRam>) -> Self {
        let shared = Arc::new(Shared::default());
        let life = Arc::clone(&shared);
        let handle = thread::spawn(move || {
            cpus::pin(1);
            loop {
                while life.wanted.load(Ordering::Acquire) {
                    let turn = life.turns.fetch_add(1, Ordering::Relaxed);
                    let frame = ram.frames().nth(turn % FRAMES).unwrap();
                    ram.read(frame.phys(), &mut [0; 8]).unwrap();
                }
                thread::park();
            }
        });
        shared.thread.set(handle.thread().clone()).unwrap();
        Peer(shared)
    }

    /// From now on it runs, or does not.
    pub(crate) fn want(&self, wanted: bool) {
        self.0.wanted.store(wanted, Ordering::Release);
        if let Some(thread) = self.0.thread.get().filter(|_| wanted) {
            thread.unpark();
        }
    }

    /// If it is wanted, waits until it is seen running.
    pub(crate) fn see(&self) {
        if self.0.wanted.load(Ordering::Relaxed) {
            let before = self.0.turns.load(Ordering::Relaxed);
            while self.0.turns.load(Ordering::Relaxed) < before + 20 {
                hint::spin_loop();
            }
        }
    }
}
