//! A block that is not this allocator's, or not any more.

use pageless_vmap::frames::{FrameConfig, Gfp, PerCpuPlan};

use crate::{Allocator, HeapMemory, allocator, bare, frames, order};

/// Two allocators of the same frames: every block of one is a foreign one to the other.
fn twins(config: FrameConfig) -> (Allocator, Allocator) {
    let memory = HeapMemory::new(32, 64, 1);
    let twin = || Allocator::new(memory.clone(), config).unwrap();
    (twin(), twin())
}

#[test]
fn a_block_that_was_never_handed_out_comes_back_to_whoever_offers_it() {
    let (ours, theirs) = twins(bare());
    for wanted in 0..4 {
        let block = theirs.alloc(&Gfp::atomic(), order(wanted)).unwrap();
        let (block, error) = ours.try_free(block).unwrap_err();
        assert_eq!((error.pfn, error.order), (block.pfn(), block.order()));
        ours.self_check().unwrap();
        assert_eq!(ours.statistics().free(), frames(64));
        theirs.free(block);
    }
    assert_eq!(ours.statistics().events.refused, 4);
    assert_eq!(ours.memory().retired(), 1 + 2 + 4 + 8);
}

#[test]
fn a_block_that_came_back_already_is_refused() {
    for percpu in [PerCpuPlan::None, PerCpuPlan::BySize] {
        let (ours, theirs) = twins(FrameConfig { percpu, ..bare() });
        for wanted in 0..4 {
            let (one, same) = (
                ours.alloc(&Gfp::atomic(), order(wanted)).unwrap(),
                theirs.alloc(&Gfp::atomic(), order(wanted)).unwrap(),
            );
            assert_eq!(one, same);
            ours.free(one);
            let refused = ours.try_free(same);
            assert!(refused.is_err(), "order {wanted} came back twice");
            ours.self_check().unwrap();
            assert_eq!(ours.statistics().free(), frames(64));
            theirs.free(refused.unwrap_err().0);
        }
    }
}

#[test]
fn a_block_of_another_order_is_refused() {
    let (ours, theirs) = twins(bare());
    let block = ours.alloc(&Gfp::atomic(), order(3)).unwrap();
    let smaller = theirs.alloc(&Gfp::atomic(), order(2)).unwrap();
    assert_eq!(block.pfn(), smaller.pfn());
    assert!(ours.try_free(smaller).is_err());
    // A frame in the middle of it.
    let tail = theirs.alloc(&Gfp::atomic(), order(0)).unwrap();
    assert!(block.frames().contains(tail.pfn()) && tail.pfn() != block.pfn());
    assert!(ours.try_free(tail).is_err());
    ours.free(block);
    ours.self_check().unwrap();
}

#[test]
fn a_block_of_other_frames_is_refused() {
    let ours = allocator(32, 64, bare());
    for first in [0, 96, 1 << 40] {
        let theirs = allocator(first, 8, bare());
        let block = theirs.alloc(&Gfp::atomic(), order(3)).unwrap();
        let (block, _) = ours.try_free(block).unwrap_err();
        theirs.free(block);
    }
    assert_eq!(ours.memory().retired(), 0);
}

#[test]
#[should_panic(expected = "no block of order 1 at 0x20 is out")]
fn freeing_a_foreign_block_panics() {
    let (ours, theirs) = twins(bare());
    ours.free(theirs.alloc(&Gfp::atomic(), order(1)).unwrap());
}

#[test]
#[should_panic(expected = "no block of order 1 at 0x20 is out")]
fn splitting_a_foreign_block_panics() {
    let (ours, theirs) = twins(bare());
    let _ = ours.split(theirs.alloc(&Gfp::atomic(), order(1)).unwrap());
}

#[test]
fn a_split_block_comes_back_frame_by_frame_and_not_as_a_whole() {
    let (ours, theirs) = twins(bare());
    let whole = theirs.alloc(&Gfp::atomic(), order(4)).unwrap();
    let block = ours.alloc(&Gfp::atomic(), order(4)).unwrap();
    let mut parts: Vec<_> = ours.split(block).collect();
    assert_eq!(parts.len(), 16);
    ours.self_check().unwrap();
    assert!(ours.try_free(whole).is_err());
    for part in parts.drain(3..) {
        ours.free(part);
    }
    ours.self_check().unwrap();
    assert_eq!(ours.statistics().owned(), frames(3));
    parts.into_iter().for_each(|part| ours.free(part));
    assert_eq!(ours.statistics().blocks().of(order(5)), 2);
}
