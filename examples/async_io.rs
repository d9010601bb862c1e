//! Async I/O without a runtime: a ticket is a future, and any executor will do. Here is one.
//!
//! `cargo run --release --example async_io`

extern crate alloc;

use alloc::sync::Arc;
use alloc::task::Wake;
use core::cell::RefCell;
use core::pin::Pin;
use core::sync::atomic::{AtomicBool, Ordering};
use core::task::{Context as TaskContext, Waker};
use core::time::Duration;

use pageless_block::{
    Bio, Clock, CompletionMode, Context, HeapFrames, ManualClock, NullBlk, NullConfig, QueueId,
    RequestQueue, Sector,
};
use pageless_pfn::{ByteLen, FrameCount, Pfn, PhysSegment};

type Device<'a> = &'a NullBlk<&'a HeapFrames>;
type Error = Box<dyn core::error::Error>;
type Task<'a> = Pin<Box<dyn Future<Output = ()> + 'a>>;

/// Reads as much as `buffer` holds and writes it elsewhere.
async fn copy(
    context: &RefCell<Context<'_, Device<'_>>>,
    buffer: PhysSegment,
    from: Sector,
    to: Sector,
) -> Result<(), Error> {
    let (read, ticket) = Bio::read(from, buffer).with_ticket();
    context.borrow_mut().submit(read)?;
    ticket.await.result()?;
    let (write, ticket) = Bio::write(to, buffer).with_ticket();
    context.borrow_mut().submit(write)?;
    Ok(ticket.await.result()?)
}

/// Whether a task has been woken.
struct Awake(AtomicBool);

impl Wake for Awake {
    fn wake(self: Arc<Self>) {
        // Release: pairs with the Acquire in `run`.
        self.0.store(true, Ordering::Release);
    }
}

/// The executor: goes on with whoever is awake, and calls `turn` after each round, where I/O is polled for.
fn run(tasks: Vec<Task<'_>>, mut turn: impl FnMut()) {
    let awake = |task| (Arc::new(Awake(AtomicBool::new(true))), task);
    let mut tasks: Vec<(Arc<Awake>, Task<'_>)> = tasks.into_iter().map(awake).collect();
    while !tasks.is_empty() {
        tasks.retain_mut(|(awake, task)| {
            if !awake.0.swap(false, Ordering::Acquire) {
                return true;
            }
            let waker = Waker::from(Arc::clone(awake));
            let mut cx = TaskContext::from_waker(&waker);
            task.as_mut().poll(&mut cx).is_pending()
        });
        turn();
    }
}

fn main() -> Result<(), Error> {
    let ram = HeapFrames::new(Pfn::try_new(0x100)?, FrameCount::new(4))?;
    // Each request takes 80 us, on a clock that stands still unless it is moved. One sector is bad.
    let clock = Arc::new(ManualClock::new());
    let mut config = NullConfig::new(ByteLen::new(1 << 20));
    config.completion = CompletionMode::Timer(Duration::from_micros(80));
    config.badblocks.apply("+17-17".parse()?)?;
    let device = NullBlk::try_new(config, &ram, clock.clone())?;
    let queue = RequestQueue::with_depth(&device, 8)?;
    let context = RefCell::new(queue.context(QueueId::new(0))?);

    let mut copies: Vec<Task<'_>> = Vec::new();
    for n in 0..4 {
        let buffer = ram.segment(n * 4096, ByteLen::new(4096));
        let buffer = buffer.ok_or("not in memory")?;
        let (from, to) = (Sector::new(n * 8), Sector::new(1024 + n * 8));
        let (context, clock) = (&context, &clock);
        copies.push(Box::pin(async move {
            match copy(context, buffer, from, to).await {
                Ok(()) => println!("{}: copied {from} to {to}", clock.now()),
                Err(error) => println!("{}: {from}: {error}", clock.now()),
            }
        }));
    }
    let mut most = 0;
    run(copies, || {
        most = most.max(context.borrow().in_flight());
        clock.advance(Duration::from_micros(10));
        context.borrow_mut().poll();
    });
    println!("{most} bios in flight at most, in one thread");
    Ok(())
}
