//! The frame allocator, on a memory of a few hundred frames.

#![cfg(not(loom))]

extern crate alloc;

mod books;
mod foreign_blocks;
mod fragmentation;
mod injection;
mod machines;
mod memory;
mod oracle;
mod percpu;
mod reclaim;
mod threads;
mod watermarks;

use alloc::sync::Arc;

use memory::HeapMemory;
use pageless_pfn::FrameCount;
use pageless_vmap::frames::{FrameAllocator, FrameConfig, Order, PerCpuPlan, WatermarkPlan};

pub(crate) type Allocator = FrameAllocator<HeapMemory>;

pub(crate) fn order(order: u8) -> Order {
    Order::try_new(order).unwrap()
}

pub(crate) fn frames(count: u64) -> FrameCount {
    FrameCount::new(count)
}

/// One zone, no watermarks, no lists: what is free can be had.
pub(crate) fn bare() -> FrameConfig {
    FrameConfig {
        dma_frames: FrameCount::ZERO,
        watermarks: WatermarkPlan::None,
        percpu: PerCpuPlan::None,
        ..FrameConfig::default()
    }
}

/// `count` frames from frame `first` on, and one CPU.
pub(crate) fn allocator(first: u64, count: u64, config: FrameConfig) -> Allocator {
    Allocator::new(HeapMemory::new(first, count, 1), config).unwrap()
}

/// The same with several CPUs.
pub(crate) fn on_cpus(cpus: u16, count: u64, config: FrameConfig) -> Arc<Allocator> {
    Arc::new(Allocator::new(HeapMemory::new(0, count, cpus), config).unwrap())
}
