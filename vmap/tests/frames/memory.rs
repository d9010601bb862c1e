//! A memory in this process's heap, whose CPUs are whatever threads say they are.

use alloc::sync::Arc;
use core::cell::Cell;
use core::sync::atomic::{AtomicU64, Ordering};
use std::sync::Mutex;

use pageless_fault::shootdown::CpuId;
use pageless_fault::{Cpus, FrameMemory, NoSuchFrame};
use pageless_pfn::{ByteLen, FrameCount, PAGE_SIZE, Pfn, PfnRange, PhysAddr};

/// What retired frames are filled with.
pub(crate) const POISON: u8 = 0xa5;

thread_local! {
    static CPU: Cell<u16> = const { Cell::new(0) };
}

/// The calling thread runs on `cpu` from now on.
pub(crate) fn run_on(cpu: u16) {
    CPU.set(cpu);
}

#[derive(Debug)]
pub(crate) struct HeapMemory {
    frames: PfnRange,
    cpus: u16,
    /// Empty: what is in the frames does not matter.
    bytes: Vec<Mutex<Box<[u8]>>>,
    retired: AtomicU64,
}

impl HeapMemory {
    pub(crate) fn new(first: u64, count: u64, cpus: u16) -> Arc<Self> {
        let frame = || Mutex::new(vec![POISON; PAGE_SIZE as usize].into_boxed_slice());
        let bytes = (0..count).map(|_| frame()).collect();
        Self::with_bytes(first, count, cpus, bytes)
    }

    /// A memory that forgets what is written.
    pub(crate) fn forgetful(first: u64, count: u64, cpus: u16) -> Arc<Self> {
        Self::with_bytes(first, count, cpus, Vec::new())
    }

    fn with_bytes(first: u64, count: u64, cpus: u16, bytes: Vec<Mutex<Box<[u8]>>>) -> Arc<Self> {
        let first = Pfn::try_new(first).unwrap();
        Arc::new(HeapMemory {
            frames: PfnRange::try_new(first, FrameCount::new(count)).unwrap(),
            cpus,
            bytes,
            retired: AtomicU64::new(0),
        })
    }

    /// How many frames have been retired so far.
    pub(crate) fn retired(&self) -> u64 {
        self.retired.load(Ordering::Relaxed)
    }

    fn fill(&self, frames: PfnRange, byte: u8) -> Result<(), NoSuchFrame> {
        for pfn in frames {
            let at = self.place(pfn.phys(), PAGE_SIZE)?;
            if let Some(frame) = self.bytes.get(at / PAGE_SIZE as usize) {
                frame.lock().unwrap().fill(byte);
            }
        }
        Ok(())
    }

    /// The byte offset from the first frame, if `len` bytes from there on exist.
    fn place(&self, at: PhysAddr, len: u64) -> Result<usize, NoSuchFrame> {
        let bytes = self.frames.count().bytes().unwrap().get();
        at.get()
            .checked_sub(self.frames.start().phys().get())
            .filter(|&from| from.checked_add(len).is_some_and(|end| end <= bytes))
            .map(|from| from as usize)
            .ok_or(NoSuchFrame {
                at: at.get(),
                len,
                frames: self.frames,
            })
    }

    fn each(
        &self,
        at: PhysAddr,
        len: usize,
        mut copy: impl FnMut(&mut u8, usize),
    ) -> Result<(), NoSuchFrame> {
        let from = self.place(at, ByteLen::new(len as u64).get())?;
        for n in 0..len {
            let at = from + n;
            let mut frame = self.bytes[at / PAGE_SIZE as usize].lock().unwrap();
            copy(&mut frame[at % PAGE_SIZE as usize], n);
        }
        Ok(())
    }
}

impl Cpus for HeapMemory {
    fn cpus(&self) -> u16 {
        self.cpus
    }

    fn current(&self) -> CpuId {
        CpuId::new(CPU.get() % self.cpus)
    }

    fn may_wait(&self) -> bool {
        true
    }

    fn relax(&self, _turn: u32) {
        std::thread::yield_now();
    }
}

impl FrameMemory for HeapMemory {
    fn frames(&self) -> PfnRange {
        self.frames
    }

    fn read(&self, at: PhysAddr, into: &mut [u8]) -> Result<(), NoSuchFrame> {
        self.each(at, into.len(), |byte, n| into[n] = *byte)
    }

    fn write(&self, at: PhysAddr, from: &[u8]) -> Result<(), NoSuchFrame> {
        self.each(at, from.len(), |byte, n| *byte = from[n])
    }

    fn zero(&self, frames: PfnRange) -> Result<(), NoSuchFrame> {
        self.fill(frames, 0)
    }

    fn retire(&self, frames: PfnRange) {
        self.fill(frames, POISON).unwrap();
        self.retired
            .fetch_add(frames.count().get(), Ordering::Relaxed);
    }

    // SAFETY: what `look` is shown is a copy.
    unsafe fn view<R>(
        &self,
        at: PhysAddr,
        len: usize,
        look: impl FnOnce(&[u8]) -> R,
    ) -> Result<R, NoSuchFrame> {
        let mut copy = vec![0; len];
        self.read(at, &mut copy)?;
        Ok(look(&copy))
    }
}
