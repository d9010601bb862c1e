//! Hazard: a completion that goes to the wrong place, to two, or to none; and what a caller lent to a bio
//! that does not come back with it.

extern crate alloc;

mod rig;

use alloc::sync::Arc;
use alloc::task::Wake;
use core::future::Future;
use core::panic::AssertUnwindSafe;
use core::pin::Pin;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use core::task::{Context as TaskContext, Poll, Waker};
use std::panic::catch_unwind;
use std::sync::Mutex;
use std::thread::{self, Thread};

use pageless_block::{
    AdvanceError, Bio, BioFlags, BioPool, BlkError, BytePos, Completion, Limits, NullDevice, Op,
    Priority, PriorityClass, QueueConfig, QueueId, RequestQueue, Sector, Ticket,
};
use pageless_pfn::{ByteLen, FrameOffset, PfnT, PhysSegment};
use proptest::prelude::*;

/// Writes down the token of everything that it is given.
#[derive(Clone, Default)]
struct Ledger(Arc<Mutex<Vec<u64>>>);

impl Ledger {
    fn entry(&self) -> impl FnOnce(Completion) + Send + 'static {
        let tokens = Arc::clone(&self.0);
        move |done| tokens.lock().unwrap().push(done.token())
    }

    fn tokens(&self) -> Vec<u64> {
        self.0.lock().unwrap().clone()
    }

    /// How many callbacks exist that would write here.
    fn entries(&self) -> usize {
        Arc::strong_count(&self.0) - 1
    }
}

fn panic_text(panic: Box<dyn core::any::Any + Send>) -> String {
    match panic.downcast::<String>() {
        Ok(text) => *text,
        Err(panic) => panic.downcast_ref::<&str>().unwrap().to_string(),
    }
}

// --- callbacks ---

#[test]
fn a_callback_is_called_once_and_what_it_holds_is_given_back() {
    let (shelf, ledger) = (rig::Shelf::new(), Ledger::default());
    let queue = RequestQueue::with_depth(&shelf, 4).unwrap();
    let mut context = queue.context(rig::QUEUE).unwrap();
    for n in 0..3 {
        let bio = rig::sector(n).with_callback(ledger.entry());
        context.submit(bio).unwrap();
    }
    assert_eq!((ledger.entries(), context.in_flight()), (3, 3));
    shelf.succeed(1);
    shelf.release(0, Err(BlkError::Medium));
    assert!(ledger.tokens().is_empty(), "called by nobody who polled");
    assert!(
        context.reap().is_none(),
        "a callback's completion is no one else's"
    );
    assert_eq!(ledger.tokens(), [1, 0]);
    assert_eq!((ledger.entries(), context.in_flight()), (1, 1));
    shelf.succeed(0);
    context.drain(|done| panic!("{done:?} was reaped"));
    assert_eq!(ledger.tokens(), [1, 0, 2]);
    assert_eq!(ledger.entries(), 0);
}

#[test]
fn a_callback_hears_of_what_the_device_does_not_take_too() {
    let (shelf, ledger) = (rig::Shelf::new(), Ledger::default());
    let queue = RequestQueue::with_depth(&shelf, 4).unwrap();
    let mut context = queue.context(rig::QUEUE).unwrap();
    let past_end = rig::sector(1 << 40).with_callback(ledger.entry());
    context.submit(past_end).unwrap();
    assert_eq!(ledger.tokens(), [1 << 40]);
    assert_eq!((context.in_flight(), shelf.kept()), (0, 0));
}

#[test]
fn a_rejected_bio_keeps_its_callback_and_can_be_submitted_again() {
    let ledger = Ledger::default();
    let queue = RequestQueue::with_depth(NullDevice::new(limits()), 1).unwrap();
    let mut context = queue.context(rig::QUEUE).unwrap();
    context.submit(rig::sector(0)).unwrap();
    let bio = rig::sector(1).with_callback(ledger.entry());
    let back = context.submit(bio).unwrap_err();
    assert_eq!((ledger.tokens(), ledger.entries()), (vec![], 1));
    assert_eq!(context.reap().unwrap().token(), 0);
    context.submit(back.bio).unwrap();
    assert_eq!((ledger.tokens(), ledger.entries()), (vec![1], 0));
}

#[test]
fn a_bio_that_is_never_submitted_calls_nobody() {
    let ledger = Ledger::default();
    drop(rig::sector(0).with_callback(ledger.entry()));
    let mut pool = BioPool::new();
    pool.put(rig::sector(1).with_callback(ledger.entry()));
    assert_eq!((ledger.tokens(), ledger.entries()), (vec![], 0));
    // Nor does the next one from that pool.
    let queue = RequestQueue::with_depth(NullDevice::new(limits()), 1).unwrap();
    let mut context = queue.context(rig::QUEUE).unwrap();
    context
        .submit(pool.read(Sector::new(2), rig::memory(512)))
        .unwrap();
    assert!(context.reap().is_some());
    assert!(ledger.tokens().is_empty());
}

#[test]
fn a_callback_may_hand_the_bio_on_to_be_used_again() {
    let (send, receive) = std::sync::mpsc::channel();
    let queue = RequestQueue::with_depth(NullDevice::new(limits()), 1).unwrap();
    let mut context = queue.context(rig::QUEUE).unwrap();
    let bio = rig::sector(5).with_callback(move |done| send.send(done).unwrap());
    let sent = rig::face(&bio);
    context.submit(bio).unwrap();
    let bio = receive.recv().unwrap().into_bio();
    assert_eq!(rig::face(&bio), sent);
    // The callback has gone: now it is reaped.
    context.submit(bio).unwrap();
    assert_eq!(context.reap().unwrap().token(), 5);
}

// --- tickets ---

/// Counts how often it is woken.
#[derive(Default)]
struct Alarm(AtomicU64);

impl Wake for Alarm {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl Alarm {
    fn rings(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }
}

fn poll(ticket: &mut Ticket, alarm: &Arc<Alarm>) -> Poll<Completion> {
    let waker = Waker::from(Arc::clone(alarm));
    Pin::new(ticket).poll(&mut TaskContext::from_waker(&waker))
}

#[test]
fn a_ticket_is_pending_until_the_bio_is_back_and_wakes_once() {
    let (shelf, alarm) = (rig::Shelf::new(), Arc::new(Alarm::default()));
    let queue = RequestQueue::with_depth(&shelf, 4).unwrap();
    let mut context = queue.context(rig::QUEUE).unwrap();
    let (bio, mut ticket) = rig::sector(3).with_ticket();
    assert!(poll(&mut ticket, &alarm).is_pending(), "not even submitted");
    context.submit(bio).unwrap();
    for _ in 0..3 {
        context.poll();
        assert!(poll(&mut ticket, &alarm).is_pending());
    }
    shelf.succeed(0);
    assert_eq!(alarm.rings(), 0);
    assert!(
        context.reap().is_none(),
        "a ticket's completion is no one else's"
    );
    assert_eq!((alarm.rings(), context.in_flight()), (1, 0));
    let Poll::Ready(done) = poll(&mut ticket, &alarm) else {
        panic!("woken for nothing");
    };
    assert_eq!((done.token(), done.result()), (3, Ok(())));
    context.poll();
    assert_eq!(alarm.rings(), 1);
    assert_eq!(Arc::strong_count(&alarm), 1, "the waker was kept");
}

#[test]
fn the_last_to_poll_a_ticket_is_the_one_that_is_woken() {
    let shelf = rig::Shelf::new();
    let queue = RequestQueue::with_depth(&shelf, 4).unwrap();
    let mut context = queue.context(rig::QUEUE).unwrap();
    let (bio, mut ticket) = rig::sector(3).with_ticket();
    context.submit(bio).unwrap();
    let (first, second) = (Arc::new(Alarm::default()), Arc::new(Alarm::default()));
    assert!(poll(&mut ticket, &first).is_pending());
    assert!(poll(&mut ticket, &second).is_pending());
    assert_eq!(Arc::strong_count(&first), 1);
    shelf.succeed(0);
    context.poll();
    assert_eq!((first.rings(), second.rings()), (0, 1));
}

#[test]
fn a_ticket_of_a_bio_that_is_back_already_is_ready_at_once() {
    let alarm = Arc::new(Alarm::default());
    let queue = RequestQueue::with_depth(NullDevice::new(limits()), 1).unwrap();
    let mut context = queue.context(rig::QUEUE).unwrap();
    let (bio, mut ticket) = rig::sector(3).with_ticket();
    assert!(ticket.try_take().is_none());
    context.submit(bio).unwrap();
    assert!(poll(&mut ticket, &alarm).is_ready());
    assert_eq!(alarm.rings(), 0);
}

#[test]
fn a_completion_is_taken_from_a_ticket_once() {
    let alarm = Arc::new(Alarm::default());
    let queue = RequestQueue::with_depth(NullDevice::new(limits()), 1).unwrap();
    let mut context = queue.context(rig::QUEUE).unwrap();
    let (bio, mut ticket) = rig::sector(3).with_ticket();
    context.submit(bio).unwrap();
    assert_eq!(ticket.try_take().unwrap().token(), 3);
    assert!(ticket.try_take().is_none());
    let panic = catch_unwind(AssertUnwindSafe(|| poll(&mut ticket, &alarm)));
    assert!(panic_text(panic.unwrap_err()).contains("had been taken"));
}

#[test]
fn a_ticket_that_is_dropped_does_not_stop_the_bio() {
    let shelf = rig::Shelf::new();
    let queue = RequestQueue::with_depth(&shelf, 4).unwrap();
    let mut context = queue.context(rig::QUEUE).unwrap();
    for polled in [false, true] {
        let alarm = Arc::new(Alarm::default());
        let (bio, mut ticket) = rig::sector(3).with_ticket();
        context.submit(bio).unwrap();
        if polled {
            assert!(poll(&mut ticket, &alarm).is_pending());
        }
        drop(ticket);
        assert_eq!((shelf.kept(), context.in_flight()), (1, 1));
        shelf.succeed(0);
        context.poll();
        assert_eq!((context.in_flight(), queue.in_flight()), (0, 0));
        assert_eq!(Arc::strong_count(&alarm), 1);
    }
}

/// Wakes a thread that is parked.
struct Unpark(Thread, AtomicBool);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.1.store(true, Ordering::SeqCst);
        self.0.unpark();
    }
}

/// Waits for `future` in this thread, and sleeps in between: all there is to an executor.
fn block_on<F: Future + Unpin>(mut future: F) -> F::Output {
    let unpark = Arc::new(Unpark(thread::current(), AtomicBool::new(false)));
    let waker = Waker::from(Arc::clone(&unpark));
    loop {
        if let Poll::Ready(out) = Pin::new(&mut future).poll(&mut TaskContext::from_waker(&waker)) {
            return out;
        }
        while !unpark.1.swap(false, Ordering::SeqCst) {
            thread::park();
        }
    }
}

#[test]
fn a_ticket_can_be_waited_for_in_another_thread() {
    const ROUNDS: u64 = 500;
    let shelf = rig::Shelf::new();
    let queue = RequestQueue::with_depth(&shelf, 4).unwrap();
    let (tickets, waits) = std::sync::mpsc::channel::<Ticket>();
    let waiter = thread::spawn(move || {
        waits
            .into_iter()
            .map(block_on)
            .map(|done| done.token())
            .sum()
    });
    let mut context = queue.context(rig::QUEUE).unwrap();
    for n in 0..ROUNDS {
        let (bio, ticket) = rig::sector(n).with_ticket();
        context.submit(bio).unwrap();
        tickets.send(ticket).unwrap();
        shelf.succeed(0);
        context.poll();
    }
    drop(tickets);
    let sum: u64 = waiter.join().unwrap();
    assert_eq!(sum, ROUNDS * (ROUNDS - 1) / 2);
}

// --- reaping ---

#[test]
fn each_completion_goes_where_its_bio_says() {
    let (shelf, ledger) = (rig::Shelf::new(), Ledger::default());
    let queue = RequestQueue::with_depth(&shelf, 9).unwrap();
    let mut context = queue.context(rig::QUEUE).unwrap();
    let mut tickets = Vec::new();
    for n in 0..9 {
        let bio = match n % 3 {
            0 => rig::sector(n),
            1 => rig::sector(n).with_callback(ledger.entry()),
            _ => {
                let (bio, ticket) = rig::sector(n).with_ticket();
                tickets.push(ticket);
                bio
            }
        };
        context.submit(bio).unwrap();
    }
    for _ in 0..9 {
        shelf.succeed(shelf.kept() - 1);
    }
    let mut reaped = Vec::new();
    context.drain(|done| reaped.push(done.token()));
    assert_eq!(reaped, [6, 3, 0]);
    assert_eq!(ledger.tokens(), [7, 4, 1]);
    let taken = tickets
        .iter_mut()
        .map(|ticket| ticket.try_take().unwrap().token());
    assert_eq!(taken.collect::<Vec<_>>(), [2, 5, 8]);
}

#[test]
fn polling_moves_things_on_and_takes_nothing_away() {
    let shelf = rig::Shelf::new();
    let queue = RequestQueue::with_depth(&shelf, 2).unwrap();
    let mut context = queue.context(rig::QUEUE).unwrap();
    assert!(context.reap().is_none());
    context.submit(rig::sector(0)).unwrap();
    context.submit(rig::sector(1)).unwrap();
    shelf.succeed(0);
    context.poll();
    context.poll();
    assert_eq!(context.in_flight(), 2, "not reaped yet");
    assert_eq!(queue.in_flight(), 1);
    // What has finished is reaped before the device is asked again.
    shelf.succeed(0);
    assert_eq!(context.reap().unwrap().token(), 0);
    assert_eq!(queue.in_flight(), 1);
    assert_eq!(context.reap().unwrap().token(), 1);
    assert!(context.reap().is_none());
}

#[test]
fn what_was_taken_for_the_pieces_of_a_bio_is_used_for_the_next() {
    let shelf = rig::Shelf::new();
    let queue = RequestQueue::with_depth(&shelf, 8).unwrap();
    let mut context = queue.context(rig::QUEUE).unwrap();
    for _ in 0..3 {
        let bio = Bio::read(Sector::new(0), rig::memory(5 * 8192));
        context.submit(bio).unwrap();
        assert_eq!(context.pool().available(), 0);
        while shelf.kept() != 0 {
            shelf.succeed(0);
        }
        let bio = context.reap().unwrap().into_bio();
        assert_eq!(context.pool().available(), 5);
        drop(bio);
    }
}

// --- chains ---

const ORDERS: [[usize; 3]; 6] = [
    [0, 1, 2],
    [0, 2, 1],
    [1, 0, 2],
    [1, 2, 0],
    [2, 0, 1],
    [2, 1, 0],
];

/// A bio and two parts of it, which come to the device in one order and end in another, some of them badly.
#[test]
fn a_bio_with_parts_completes_when_the_last_of_them_has_whatever_the_order() {
    let errors = [BlkError::Io, BlkError::Medium, BlkError::Target];
    for (submitted, finished, bad) in ORDERS
        .into_iter()
        .flat_map(|a| ORDERS.into_iter().map(move |b| (a, b)))
        .flat_map(|(a, b)| (0..8_usize).map(move |bad| (a, b, bad)))
    {
        let shelf = rig::Shelf::new();
        let queue = RequestQueue::with_depth(&shelf, 4).unwrap();
        let mut context = queue.context(rig::QUEUE).unwrap();
        let mut whole = rig::sector(0);
        let mut parts = [rig::sector(1), rig::sector(2)];
        parts.iter_mut().for_each(|part| part.chain_to(&mut whole));
        let [one, other] = parts;
        let mut bios = [Some(whole), Some(one), Some(other)];
        for who in submitted {
            context.submit(bios[who].take().unwrap()).unwrap();
        }
        let mut parts = 2;
        for who in finished {
            let place = shelf
                .sectors()
                .iter()
                .position(|&s| s == who as u64)
                .unwrap();
            shelf.release(
                place,
                if bad & 1 << who != 0 {
                    Err(errors[who])
                } else {
                    Ok(())
                },
            );
            context.poll();
            parts -= u32::from(who != 0);
            assert_eq!(context.in_flight(), 1 + parts);
        }
        let done = context.reap().unwrap();
        let own = bad & 1 != 0;
        let expected = match bad {
            0 => Ok(()),
            _ if own => Err(errors[0]),
            _ => Err(errors[bad.trailing_zeros() as usize]),
        };
        assert_eq!(done.token(), 0);
        // Of two parts that failed, either may be named.
        if bad == 0b110 {
            assert!([Err(errors[1]), Err(errors[2])].contains(&done.result()));
        } else {
            assert_eq!(
                done.result(),
                expected,
                "{submitted:?} {finished:?} {bad:03b}"
            );
        }
        assert_eq!(
            done.done().get(),
            if own { 0 } else { 512 },
            "its own bytes"
        );
        assert!(context.reap().is_none());
        assert_eq!((context.in_flight(), queue.in_flight()), (0, 0));
    }
}

#[test]
fn parts_may_have_parts_be_split_and_belong_to_a_bio_that_is_split() {
    let shelf = rig::Shelf::new();
    let queue = RequestQueue::with_depth(&shelf, 16).unwrap();
    for failing in [None, Some(0), Some(3), Some(6)] {
        let mut context = queue.context(rig::QUEUE).unwrap();
        // Three requests each, at different places.
        let mut bios = [0, 1, 2].map(|n| Bio::read(Sector::new(n << 10), rig::memory(3 * 8192)));
        let [whole, part, of_part] = &mut bios;
        part.chain_to(whole);
        of_part.chain_to(part);
        for (n, bio) in bios.into_iter().enumerate() {
            context.submit(bio.with_token(n as u64)).unwrap();
        }
        let mut end = 0;
        while shelf.kept() != 0 {
            assert!(context.reap().is_none());
            match Some(end) == failing {
                true => shelf.release(0, Err(BlkError::Target)),
                false => shelf.succeed(0),
            }
            end += 1;
        }
        let done = context.reap().unwrap();
        assert_eq!((end, done.token()), (9, 0));
        assert_eq!(done.result().is_err(), failing.is_some(), "{failing:?}");
        assert!(context.reap().is_none());
        assert_eq!(context.in_flight(), 0);
    }
}

#[test]
fn the_completion_of_a_part_goes_nowhere_else() {
    let ledger = Ledger::default();
    let queue = RequestQueue::with_depth(NullDevice::new(limits()), 4).unwrap();
    let mut context = queue.context(rig::QUEUE).unwrap();
    let mut whole = rig::sector(0);
    let mut part = rig::sector(1).with_callback(ledger.entry());
    part.chain_to(&mut whole);
    let (mut other, mut ticket) = rig::sector(2).with_ticket();
    other.chain_to(&mut whole);
    for bio in [whole, part, other] {
        context.submit(bio).unwrap();
    }
    assert_eq!(context.reap().unwrap().token(), 0);
    assert!(context.reap().is_none() && ticket.try_take().is_none());
    assert_eq!((ledger.tokens(), ledger.entries()), (vec![], 0));
}

#[test]
fn parts_in_other_contexts_and_threads_complete_a_bio_in_its_own() {
    const ROUNDS: u64 = 300;
    let device = NullDevice::new(limits());
    let config = QueueConfig {
        hw_queues: 3,
        ..QueueConfig::default()
    };
    let queue = RequestQueue::try_new(device, config).unwrap();
    let channels = [1, 2].map(|id| {
        let (send, receive) = std::sync::mpsc::channel::<Bio>();
        (QueueId::new(id), send, receive)
    });
    thread::scope(|threads| {
        let senders = channels.map(|(id, send, receive)| {
            let queue = &queue;
            threads.spawn(move || {
                let mut context = queue.context(id).unwrap();
                for bio in receive {
                    context.submit(bio).unwrap();
                    context.drain(|done| panic!("{done:?} was reaped by the thread of a part"));
                }
                let counters = context.counters();
                assert_eq!(
                    (counters.completed, counters.bytes_read),
                    (ROUNDS, ROUNDS * 512)
                );
            });
            send
        });
        let mut context = queue.context(QueueId::new(0)).unwrap();
        for n in 0..ROUNDS {
            let mut whole = rig::sector(n);
            let mut parts = senders.each_ref().map(|to| (to, rig::sector(n)));
            parts
                .iter_mut()
                .for_each(|(_, part)| part.chain_to(&mut whole));
            // Now before the parts, now after.
            let mut whole = Some(whole);
            if n % 2 == 0 {
                context.submit(whole.take().unwrap()).unwrap();
            }
            for (to, part) in parts {
                to.send(part).unwrap();
            }
            if let Some(whole) = whole {
                context.submit(whole).unwrap();
            }
            let mut came = 0;
            context.drain(|done| {
                assert_eq!((done.token(), done.result()), (n, Ok(())));
                came += 1;
            });
            assert_eq!(came, 1);
        }
        drop(senders);
    });
    assert_eq!(queue.in_flight(), 0);
}

#[test]
fn a_part_that_is_dropped_is_loud() {
    let queue = RequestQueue::with_depth(NullDevice::new(limits()), 4).unwrap();
    let mut context = queue.context(rig::QUEUE).unwrap();
    let mut whole = rig::sector(0);
    let mut part = rig::sector(1);
    part.chain_to(&mut whole);
    context.submit(whole).unwrap();
    let panic = catch_unwind(AssertUnwindSafe(|| drop(part)));
    assert!(panic_text(panic.unwrap_err()).contains("waits for it for ever"));
    let panic = catch_unwind(AssertUnwindSafe(|| drop(context)));
    assert!(panic_text(panic.unwrap_err()).contains("1 bios out"));
    // So is one that is thrown among those to be used again.
    let (mut whole, mut part) = (rig::sector(0), rig::sector(1));
    part.chain_to(&mut whole);
    let mut pool = BioPool::new();
    let panic = catch_unwind(AssertUnwindSafe(|| pool.put(part)));
    assert!(panic_text(panic.unwrap_err()).contains("waits for it for ever"));
}

// --- bios themselves ---

#[test]
fn all_that_a_caller_says_comes_back() {
    let priority = Priority::new(PriorityClass::RealTime, 3).unwrap();
    let queue = RequestQueue::with_depth(NullDevice::new(limits()), 4).unwrap();
    let mut context = queue.context(rig::QUEUE).unwrap();
    let bio = Bio::write(Sector::new(9), rig::memory(4096))
        .with_token(u64::MAX)
        .with_flags(BioFlags::SYNC | BioFlags::FUA | BioFlags::POLLED)
        .with_priority(priority);
    let sent = rig::face(&bio);
    context.submit(bio.clone()).unwrap();
    let back = context.reap().unwrap().into_bio();
    assert_eq!((rig::face(&back), rig::face(&bio)), (sent.clone(), sent));
    assert_eq!(back.priority(), priority);
}

#[test]
fn a_clone_is_reaped_and_is_part_of_nothing() {
    let ledger = Ledger::default();
    let queue = RequestQueue::with_depth(NullDevice::new(limits()), 4).unwrap();
    let mut context = queue.context(rig::QUEUE).unwrap();
    let mut whole = rig::sector(0);
    let mut part = rig::sector(1).with_callback(ledger.entry());
    part.chain_to(&mut whole);
    let clones = [whole.clone(), part.clone()];
    for clone in clones {
        let token = clone.token();
        context.submit(clone).unwrap();
        assert_eq!(context.reap().unwrap().token(), token);
    }
    context.submit(part).unwrap();
    assert!(context.reap().is_none());
    context.submit(whole).unwrap();
    assert_eq!(context.reap().unwrap().token(), 0);
    assert!(ledger.tokens().is_empty());
}

#[test]
fn what_the_completion_goes_to_stays_with_the_rest() {
    let ledger = Ledger::default();
    let queue = RequestQueue::with_depth(NullDevice::new(limits()), 4).unwrap();
    let mut context = queue.context(rig::QUEUE).unwrap();
    let mut rest = Bio::read(Sector::new(0), rig::memory(4096))
        .with_token(1)
        .with_callback(ledger.entry());
    let front = rest.split_front(ByteLen::new(1024)).unwrap().with_token(0);
    assert_eq!((front.len().get(), rest.len().get()), (1024, 3072));
    context.submit(front).unwrap();
    assert_eq!(context.reap().unwrap().token(), 0);
    assert!(ledger.tokens().is_empty());
    context.submit(rest).unwrap();
    assert_eq!(ledger.tokens(), [1]);
}

#[test]
fn something_must_be_left_of_a_bio_that_is_cut() {
    let mut bio = Bio::read(Sector::new(4), rig::memory(1024));
    let whole = bio.len();
    for len in [1024, 1536].map(ByteLen::new) {
        let refused = AdvanceError::NothingLeft { len, whole };
        assert_eq!(bio.advance(len), Err(refused));
        assert_eq!(bio.split_front(len).err(), Some(refused));
    }
    bio.advance(ByteLen::ZERO).unwrap();
    assert_eq!((bio.len(), bio.sector()), (whole, Sector::new(4)));
    bio.advance(ByteLen::new(512)).unwrap();
    assert_eq!((bio.len().get(), bio.sector()), (512, Sector::new(5)));
}

#[test]
fn places_past_the_last_byte_are_left_out_of_an_iteration() {
    let last = Sector::new((1 << 55) - 1);
    let mut bio = Bio::read(last, rig::memory(512));
    bio.push(segment(100, 512));
    let places: Vec<u64> = bio.iter().map(|(at, _)| at.get()).collect();
    assert_eq!(places, [u64::MAX - 511]);
    assert_eq!(
        Bio::read(Sector::new(1 << 55), rig::memory(512))
            .iter()
            .count(),
        0
    );
}

/// `len` bytes from byte `at` of memory on.
fn segment(at: u64, len: u64) -> PhysSegment {
    let frame = PfnT::from(rig::pfn(1 + at / 4096));
    let offset = FrameOffset::try_new(at % 4096).unwrap();
    PhysSegment::try_new(frame, offset, ByteLen::new(len)).unwrap()
}

/// Each byte of the device with the byte of memory that belongs to it.
fn bytes(bio: &Bio) -> Vec<(u64, u64)> {
    bio.iter()
        .flat_map(|(at, segment)| {
            let phys = segment.phys().get();
            (0..segment.len().get()).map(move |n| (at.get() + n, phys + n))
        })
        .collect()
}

proptest! {
    /// Against the bytes, one by one.
    #[test]
    fn bios_are_cut_where_they_should_be(
        parts in proptest::collection::vec((0..40_000_u64, 1..3000_u64), 1..8),
        sector in 0..1000_u64,
        at in 0..20_000_u64,
    ) {
        let mut whole = Bio::new(Op::Write, Sector::new(sector)).with_flags(BioFlags::META).with_token(4);
        let total: u64 = parts.iter().map(|(_, len)| len).sum();
        whole.extend(parts.iter().map(|&(at, len)| segment(at, len)));
        let all = bytes(&whole);
        prop_assert_eq!((whole.len().get(), all.len() as u64), (total, total));
        prop_assert_eq!(all[0].0, BytePos::new(sector * 512).get());

        let before = rig::face(&whole);
        let (mut advanced, mut rest) = (whole.clone(), whole.clone());
        let len = ByteLen::new(at);
        let refused = match () {
            () if at % 512 != 0 => Some(AdvanceError::PartialSector { len }),
            () if at >= total => Some(AdvanceError::NothingLeft { len, whole: ByteLen::new(total) }),
            () => None,
        };
        if let Some(refused) = refused {
            prop_assert_eq!(advanced.advance(len), Err(refused));
            prop_assert_eq!(rest.split_front(len).err(), Some(refused));
            prop_assert_eq!(rig::face(&advanced), before.clone());
            prop_assert_eq!(rig::face(&rest), before);
            // Somewhere it can be cut.
            return Ok(());
        }
        advanced.advance(len).unwrap();
        let front = rest.split_front(len).unwrap();
        prop_assert_eq!(rig::face(&advanced), rig::face(&rest));
        prop_assert_eq!(front.len(), len);
        let joined = [bytes(&front), bytes(&rest)].concat();
        prop_assert!(joined == all);
        for part in [&front, &rest] {
            prop_assert_eq!((part.op(), part.flags(), part.token()), (Op::Write, BioFlags::META, 4));
        }
    }

    #[test]
    fn bios_are_cut_at_every_sector(sectors in 2..30_u64, at in 0..30_u64, places in proptest::collection::vec(0..64_u64, 30)) {
        let mut whole = Bio::new(Op::Read, Sector::new(7));
        // Sectors of memory here and there; some continue the one before.
        whole.extend(places.iter().take(sectors as usize).map(|&place| segment(place * 512, 512)));
        let all = bytes(&whole);
        let at = at % sectors;
        let mut rest = whole;
        let front = rest.split_front(ByteLen::new(at * 512)).unwrap();
        prop_assert_eq!(rest.sector().get(), 7 + at);
        prop_assert!([bytes(&front), bytes(&rest)].concat() == all);
    }
}

fn limits() -> Limits {
    Limits::new(ByteLen::new(1 << 30))
}
