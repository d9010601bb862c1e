//! Hazard: a driver forgets a request, and somebody waits for its frames for ever.

extern crate alloc;

mod rig;

use core::any::Any;
use core::panic::AssertUnwindSafe;
use std::panic::catch_unwind;

use pageless_block::{
    Bio, BlockDevice, Limits, QueueConfig, QueueId, Request, RequestQueue, Sector, Submitted,
    submit_sync,
};
use pageless_pfn::ByteLen;

fn limits() -> Limits {
    let mut limits = Limits::new(ByteLen::new(1 << 20));
    limits.max_discard = Limits::UNLIMITED;
    limits
}

fn message(panic: Box<dyn Any + Send>) -> String {
    match panic.downcast::<String>() {
        Ok(text) => *text,
        Err(panic) => panic.downcast_ref::<&str>().unwrap().to_string(),
    }
}

/// What the panic says when a 4 KiB write to sector 24 goes to queue 3 of `device`.
fn panic_of(device: &impl BlockDevice) -> String {
    let bio = Bio::write(Sector::new(24), rig::memory(4096));
    let panic = catch_unwind(AssertUnwindSafe(|| {
        let config = QueueConfig {
            hw_queues: 4,
            depth: 8,
            ..QueueConfig::default()
        };
        let queue = RequestQueue::try_new(device, config).unwrap();
        let mut context = queue.context(QueueId::new(3)).unwrap();
        context.submit(bio).unwrap();
    }));
    message(panic.unwrap_err())
}

#[derive(Debug)]
struct DropsRequests;

impl BlockDevice for DropsRequests {
    fn limits(&self) -> Limits {
        limits()
    }

    fn submit(&self, request: Request) -> Submitted {
        drop(request);
        Submitted::Kept
    }
}

#[derive(Debug)]
struct DropsCompletions;

impl BlockDevice for DropsCompletions {
    fn limits(&self) -> Limits {
        limits()
    }

    fn submit(&self, request: Request) -> Submitted {
        drop(request.complete(Ok(())));
        Submitted::Kept
    }
}

#[derive(Debug)]
struct Panics;

impl BlockDevice for Panics {
    fn limits(&self) -> Limits {
        limits()
    }

    fn submit(&self, request: Request) -> Submitted {
        request.run(|_| panic!("the driver's own trouble"))
    }
}

#[test]
fn a_dropped_request_panics_and_says_which_it_was() {
    let text = panic_of(&DropsRequests);
    for part in [
        "request lost",
        "WRITE",
        "4096 bytes",
        "sector 24",
        "queue 3",
        "tag 0",
    ] {
        assert!(text.contains(part), "{part:?} is not in {text:?}");
    }
}

#[test]
fn a_completion_that_goes_nowhere_is_as_loud() {
    assert!(panic_of(&DropsCompletions).contains("request lost"));
}

#[test]
fn a_driver_that_panics_is_heard_itself_and_the_request_is_not_a_second_panic() {
    // A second panic would abort the whole test program.
    assert_eq!(panic_of(&Panics), "the driver's own trouble");
    let bio = Bio::write(Sector::new(0), rig::memory(512));
    let sync = catch_unwind(AssertUnwindSafe(|| submit_sync(&Panics, bio)));
    assert_eq!(message(sync.unwrap_err()), "the driver's own trouble");
}

#[test]
#[cfg_attr(miri, ignore = "starts a process")]
fn a_request_lost_while_panicking_is_printed() {
    const CHILD: &str = "PAGELESS_LOSE_A_REQUEST";
    if std::env::var_os(CHILD).is_some() {
        rig::run(&Panics, Bio::discard(Sector::new(40), ByteLen::new(512)));
    }
    let child = std::process::Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "a_request_lost_while_panicking_is_printed",
            "--nocapture",
        ])
        .env(CHILD, "1")
        .output()
        .unwrap();
    assert!(!child.status.success());
    let printed = String::from_utf8_lossy(&child.stderr).into_owned();
    assert!(
        printed.contains("request lost: DISCARD of 512 bytes at sector 40"),
        "{printed}"
    );
}

#[test]
fn a_context_dropped_with_bios_at_the_device_panics_and_says_how_many() {
    let shelf = rig::Shelf::new();
    let queue = RequestQueue::with_depth(&shelf, 4).unwrap();
    let panic = catch_unwind(AssertUnwindSafe(|| {
        let mut context = queue.context(rig::QUEUE).unwrap();
        // One of the three has finished and is not in the way.
        for n in 0..3 {
            context.submit(rig::sector(n)).unwrap();
        }
        shelf.succeed(0);
        context.poll();
    }));
    let text = message(panic.unwrap_err());
    assert!(
        text.contains("queue 0") && text.contains("2 bios"),
        "{text}"
    );
    // What the shelf still holds is to be completed, even though nobody will hear of it.
    for _ in 0..2 {
        core::mem::forget(shelf.steal());
    }
}

#[test]
fn a_queue_dropped_with_requests_that_wait_panics() {
    let shelf = rig::Shelf::new();
    shelf.set_room(0);
    let panic = catch_unwind(AssertUnwindSafe(|| {
        let queue = RequestQueue::with_depth(&shelf, 4).unwrap();
        let mut context = queue.context(rig::QUEUE).unwrap();
        context.submit(rig::sector(7)).unwrap();
        core::mem::forget(context);
    }));
    let text = message(panic.unwrap_err());
    assert!(
        text.contains("request lost") && text.contains("sector 7"),
        "{text}"
    );
}

#[test]
#[cfg_attr(miri, ignore = "needs a memfd")]
fn a_context_with_unreaped_completions_may_be_dropped() {
    let (device, _ram) = rig::pmem(1 << 20);
    let queue = RequestQueue::with_depth(&device, 4).unwrap();
    let mut context = queue.context(rig::QUEUE).unwrap();
    context.submit(Bio::flush()).unwrap();
    drop(context);
    assert_eq!(queue.in_flight(), 0);
}
