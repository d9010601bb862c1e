//! Hazard: a driver forgets a request, and somebody waits for its frames for ever.

extern crate alloc;

mod rig;

use core::any::Any;
use core::panic::AssertUnwindSafe;
use std::panic::catch_unwind;

use pageless_block::{
    Bio, BlkError, BlockDevice, DeviceInfo, Done, Queue, QueueId, Request, Sector, submit_sync,
};
use pageless_pfn::ByteLen;

const INFO: DeviceInfo = DeviceInfo::new(ByteLen::new(1 << 20));

fn message(panic: Box<dyn Any + Send>) -> String {
    match panic.downcast::<String>() {
        Ok(text) => *text,
        Err(panic) => panic.downcast_ref::<&str>().unwrap().to_string(),
    }
}

/// What the panic says when a 4 KiB write to sector 24 goes to `device`.
fn panic_of(device: &impl BlockDevice) -> String {
    let ram = rig::ram(1);
    let bio = Bio::write(Sector::new(24), rig::segment(&ram, 0, 4096));
    let panic = catch_unwind(AssertUnwindSafe(|| {
        let mut queue = Queue::try_new(device, QueueId::new(3), 8).unwrap();
        queue.submit(bio).unwrap();
    }));
    message(panic.unwrap_err())
}

#[derive(Debug)]
struct DropsRequests;

impl BlockDevice for DropsRequests {
    fn info(&self) -> DeviceInfo {
        INFO
    }

    fn execute(&self, _request: &Request) -> Result<(), BlkError> {
        Ok(())
    }

    fn submit(&self, request: Request) -> Option<Done> {
        drop(request);
        None
    }
}

#[derive(Debug)]
struct DropsCompletions;

impl BlockDevice for DropsCompletions {
    fn info(&self) -> DeviceInfo {
        INFO
    }

    fn execute(&self, _request: &Request) -> Result<(), BlkError> {
        Ok(())
    }

    fn submit(&self, request: Request) -> Option<Done> {
        drop(request.complete(Ok(())));
        None
    }
}

#[derive(Debug)]
struct Panics;

impl BlockDevice for Panics {
    fn info(&self) -> DeviceInfo {
        INFO
    }

    fn execute(&self, _request: &Request) -> Result<(), BlkError> {
        panic!("the driver's own trouble")
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
    let sync = catch_unwind(|| submit_sync(&Panics, Bio::flush()));
    assert_eq!(message(sync.unwrap_err()), "the driver's own trouble");
}

#[test]
#[cfg_attr(miri, ignore = "starts a process")]
fn a_request_lost_while_panicking_is_printed() {
    const CHILD: &str = "PAGELESS_LOSE_A_REQUEST";
    if std::env::var_os(CHILD).is_some() {
        submit_sync(&Panics, Bio::discard(Sector::new(40), ByteLen::new(512)))
            .unwrap()
            .result
            .unwrap();
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
fn a_queue_dropped_with_requests_at_the_device_panics() {
    let shelf = rig::Shelf::new();
    let panic = catch_unwind(AssertUnwindSafe(|| {
        let mut queue = Queue::try_new(&shelf, QueueId::new(5), 4).unwrap();
        queue.submit(Bio::flush()).unwrap();
    }));
    let text = message(panic.unwrap_err());
    assert!(
        text.contains("queue 5") && text.contains("1 requests"),
        "{text}"
    );
    // What the shelf still holds is to be completed, even though nobody will hear of it.
    core::mem::forget(shelf.steal());
}

#[test]
#[cfg_attr(miri, ignore = "needs a memfd")]
fn a_queue_with_unreaped_completions_may_be_dropped() {
    let (device, _ram) = rig::pmem(1 << 20);
    let mut queue = Queue::try_new(&device, QueueId::new(0), 4).unwrap();
    queue.submit(Bio::flush()).unwrap();
    drop(queue);
}
