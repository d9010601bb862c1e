//! What the books take, and how large blocks can be.

use pageless_fault::MaySleep;
use pageless_vmap::frames::{FrameConfig, Gfp, Order};

use crate::memory::HeapMemory;
use crate::{Allocator, bare, frames, order};

fn shared<T: Send + Sync>(_: &T) {}

#[test]
fn the_books_take_a_byte_and_a_quarter_for_each_frame() {
    const FRAMES: u64 = 1 << 20;
    for max_order in [order(0), order(10), Order::LARGEST] {
        let config = FrameConfig {
            max_order,
            ..FrameConfig::default()
        };
        let memory = HeapMemory::forgetful(1 << 30, FRAMES, 4);
        let allocator = Allocator::new(memory, config).unwrap();
        shared(&allocator);
        let bytes = allocator.book_bytes() as f64 / FRAMES as f64;
        assert!(bytes < 1.26, "{bytes} bytes for each frame");
        // Not less either than what says of each frame what it is.
        assert!(bytes > 1.125, "{bytes} bytes for each frame");
    }
}

#[test]
fn a_block_of_the_largest_order_is_four_gibibytes() {
    let ctx = MaySleep::claim();
    let config = FrameConfig {
        max_order: Order::LARGEST,
        ..bare()
    };
    // The block begins in the middle of memory: it stands at a multiple of its size.
    let memory = HeapMemory::forgetful(3 << 18, 3 << 19, 1);
    let allocator = Allocator::new(memory, config).unwrap();
    let block = allocator.alloc(&Gfp::kernel(&ctx), Order::LARGEST).unwrap();
    assert_eq!(block.pfn().get(), 1 << 20);
    assert_eq!(block.frames().count(), frames(1 << 20));
    assert!(allocator.alloc(&Gfp::kernel(&ctx), Order::LARGEST).is_err());
    let single = allocator.alloc(&Gfp::kernel(&ctx), order(0)).unwrap();
    allocator.self_check().unwrap();
    allocator.free(block);
    allocator.free(single);
    allocator.self_check().unwrap();
    assert_eq!(allocator.statistics().blocks().of(Order::LARGEST), 1);
}

#[test]
fn memory_of_one_frame_has_one_block() {
    for first in [0, 1, (1 << 52) - 1] {
        let allocator = Allocator::new(HeapMemory::forgetful(first, 1, 1), bare()).unwrap();
        let block = allocator.alloc(&Gfp::atomic(), order(0)).unwrap();
        assert_eq!(block.pfn().get(), first);
        assert!(allocator.alloc(&Gfp::atomic(), order(0)).is_err());
        allocator.free(block);
        allocator.self_check().unwrap();
    }
}
