//! Hazard: somewhere between limits, splits, merges, plugs, schedulers, flushes and completions a byte
//! goes astray.
//!
//! Random bios go through random queues to a device that checks every request, and what comes back is
//! held against one vector of bytes.

extern crate alloc;

#[path = "oracle/driver.rs"]
mod driver;
#[path = "oracle/plan.rs"]
mod plan;
#[path = "oracle/strict.rs"]
mod strict;

use alloc::sync::Arc;

use pageless_block::{Limits, RamFrames, RequestQueue};
use pageless_pfn::{FrameCount, Pfn};
use proptest::prelude::*;

use driver::Driver;
use plan::{Shape, Step};
use strict::{Manner, Strict};

/// Rounds of asking everybody, after which a bio is lost.
const PATIENCE: u64 = 10_000;

fn check_in_one_thread(limits: Limits, manner: Manner, shape: Shape, steps: &[Step]) {
    let ram = RamFrames::new(Pfn::try_new(0x100).unwrap(), FrameCount::new(1024)).unwrap();
    let device = Strict::new(limits, Arc::new(ram), manner, shape.depth);
    let queue = RequestQueue::try_new(device, shape.config()).unwrap();
    let mut driver = Driver::new(&queue, &shape, 0..shape.contexts, 0, 1, PATIENCE);
    driver.run(steps);
    let (requests, requeues) = driver.finish();
    assert_eq!((queue.in_flight(), queue.device().here()), (0, 0));
    let seen = queue.device().seen();
    assert_eq!((requests, requeues), (seen.requests, seen.busy), "counters");
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        max_shrink_time: 20_000,
        ..ProptestConfig::default()
    })]

    #[test]
    fn whatever_is_submitted_the_device_holds_what_one_vector_would(
        limits in plan::limits(),
        manner in plan::manner(),
        shape in plan::shape(),
        steps in plan::steps(40),
    ) {
        check_in_one_thread(limits, manner, shape, &steps);
    }
}
