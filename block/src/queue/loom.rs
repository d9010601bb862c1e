//! What threads of a queue do to each other, under every interleaving of two or three of them.
//!
//! Numbers that are read and written Relaxed stand for what the protocols protect: nothing orders them
//! but the protocol, so that an ordering or a barrier too few shows.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::mem;

use loom::sync::Arc;
use loom::thread;
use pageless_pfn::ByteLen;

use crate::bio::chain::Chain;
use crate::bio::{Bio, Inner};
use crate::device::{BlockDevice, Submitted};
use crate::limits::Limits;
use crate::position::Sector;
use crate::queue::RequestQueue;
use crate::queue::admission::RejectReason;
use crate::queue::mailbox::{Letter, Mailbox};
use crate::queue::tags::Tags;
use crate::request::{Done, QueueId, Request};
use crate::status::BlkError;
use crate::sync::atomic::{AtomicU32, Ordering};
use crate::sync::{Lock, relax};

/// A model of three threads, or of two with much to do: more preemptions take minutes.
fn of_many(model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(builder.preemption_bound.map_or(2, |bound| bound.min(2)));
    builder.check(model);
}

#[test]
fn a_tag_has_one_owner_who_sees_what_the_last_one_did() {
    loom::model(|| {
        let shared = Arc::new((Tags::new(1), AtomicU32::new(0)));
        let user = |shared: Arc<(Tags, AtomicU32)>| {
            move || {
                let (tags, owned) = &*shared;
                let Some(tag) = tags.get(0) else {
                    return 0;
                };
                let before = owned.load(Ordering::Relaxed);
                owned.store(before + 1, Ordering::Relaxed);
                tags.put(tag);
                1
            }
        };
        let other = thread::spawn(user(Arc::clone(&shared)));
        let uses = user(Arc::clone(&shared))() + user(Arc::clone(&shared))();
        let uses = uses + other.join().unwrap();
        assert_eq!(
            shared.1.load(Ordering::Relaxed),
            uses,
            "two owners at a time"
        );
        assert!(shared.0.get(0).is_some(), "the tag is back");
    });
}

#[test]
fn two_threads_never_have_the_same_tag() {
    loom::model(|| {
        let tags = Arc::new(Tags::new(2));
        let theirs = Arc::clone(&tags);
        let other = thread::spawn(move || theirs.get(1).unwrap());
        let ours = tags.get(0).unwrap();
        assert_ne!(ours, other.join().unwrap());
        assert!(tags.get(0).is_none());
    });
}

/// Done at once. Says when somebody is inside, and when nobody may be.
#[derive(Default)]
struct Watched {
    inside: Number,
    closed: Number,
}

struct Number(AtomicU32);

impl Default for Number {
    fn default() -> Self {
        Self(AtomicU32::new(0))
    }
}

impl Number {
    fn get(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }

    fn set(&self, value: u32) {
        self.0.store(value, Ordering::Relaxed);
    }
}

fn discards() -> Limits {
    let mut limits = Limits::new(ByteLen::new(1 << 20));
    limits.max_discard = ByteLen::new(1024);
    limits
}

impl BlockDevice for Watched {
    fn limits(&self) -> Limits {
        discards()
    }

    fn submit(&self, request: Request) -> Submitted {
        assert_eq!(self.closed.get(), 0, "the queue is stopped");
        self.inside.set(1);
        self.inside.set(0);
        request.run(|_| Ok(()))
    }
}

fn discard(sector: u64) -> Bio {
    let bio = Bio::discard(Sector::new(sector), ByteLen::new(512));
    bio.with_token(sector).erase()
}

const HW: QueueId = QueueId::new(0);

#[test]
fn a_frozen_queue_that_has_settled_has_nobody_inside_and_lets_nobody_in() {
    loom::model(|| {
        let queue = Arc::new(RequestQueue::with_depth(Watched::default(), 1).unwrap());
        let theirs = Arc::clone(&queue);
        let submitter = thread::spawn(move || {
            let mut context = theirs.context(HW).unwrap();
            match context.submit(discard(0)) {
                Ok(()) => assert!(context.reap().is_some()),
                Err(rejected) => assert_eq!(rejected.reason, RejectReason::Frozen),
            }
        });
        let frozen = queue.freeze();
        if frozen.is_settled() {
            assert_eq!(queue.device.inside.get(), 0, "somebody is still inside");
            queue.device.closed.set(1);
            queue.device.closed.set(0);
        }
        // Who gets in from now on sees all that was done meanwhile.
        drop(frozen);
        submitter.join().unwrap();
    });
}

#[test]
fn the_pieces_of_a_bio_are_inside_together_or_not_at_all() {
    of_many(|| {
        let queue = Arc::new(RequestQueue::with_depth(Watched::default(), 1).unwrap());
        let theirs = Arc::clone(&queue);
        let submitter = thread::spawn(move || {
            let mut context = theirs.context(HW).unwrap();
            // Two pieces, one tag.
            let bio = Bio::discard(Sector::new(0), ByteLen::new(2048));
            match context.submit(bio) {
                Ok(()) => context.drain(|done| assert_eq!(done.result(), Ok(()))),
                Err(rejected) => assert_eq!(rejected.reason, RejectReason::Frozen),
            }
        });
        let frozen = queue.freeze();
        if frozen.is_settled() {
            queue.device.closed.set(1);
        }
        mem::forget(frozen);
        submitter.join().unwrap();
    });
}

#[test]
fn while_a_queue_is_quiesced_nobody_is_in_the_device_and_nobody_gets_there() {
    loom::model(|| {
        let queue = Arc::new(RequestQueue::with_depth(Watched::default(), 1).unwrap());
        let quiesced = Arc::new(AtomicU32::new(0));
        let (theirs, seen) = (Arc::clone(&queue), Arc::clone(&quiesced));
        let submitter = thread::spawn(move || {
            let mut context = theirs.context(HW).unwrap();
            context.submit(discard(0)).unwrap();
            if context.reap().is_none() {
                // It waits. Let it out when the other has seen what it wanted to.
                while seen.load(Ordering::Acquire) == 0 {
                    relax();
                }
                theirs.device.closed.set(0);
                theirs.gate.resume();
                context.drain(|done| assert_eq!(done.result(), Ok(())));
            }
        });
        let guard = queue.quiesce();
        assert_eq!(queue.device.inside.get(), 0, "somebody is in the device");
        queue.device.closed.set(1);
        mem::forget(guard);
        quiesced.store(1, Ordering::Release);
        submitter.join().unwrap();
    });
}

fn letter(token: u64) -> Letter {
    let mut inner = Inner::empty();
    inner.token = token;
    Letter::Bio(Box::new(inner))
}

fn token(letter: Letter) -> u64 {
    match letter {
        Letter::Bio(bio) => bio.token,
        Letter::Request(done) => panic!("nobody sent {done:?}"),
    }
}

#[test]
fn no_letter_is_lost_and_none_comes_twice() {
    of_many(|| {
        let mailbox = Arc::new(Mailbox::new());
        let post = |token| {
            let mailbox = Arc::clone(&mailbox);
            thread::spawn(move || mailbox.push(letter(token)))
        };
        let posts = [post(1), post(2)];
        let mut got: Vec<u64> = mailbox.pop().map(token).into_iter().collect();
        posts.into_iter().for_each(|post| post.join().unwrap());
        while let Some(letter) = mailbox.pop() {
            got.push(token(letter));
        }
        got.sort_unstable();
        assert_eq!(got, [1, 2]);
    });
}

#[test]
fn one_thread_gets_the_whole_and_sees_how_every_part_went() {
    of_many(|| {
        let chain = Chain::of_pieces();
        let home = alloc::sync::Arc::new(Mailbox::new());
        let part = |before: u64, result| {
            let link = chain.link();
            thread::spawn(move || {
                let mut part = Inner::empty();
                (part.before, part.len, part.result) = (before, 512, result);
                link.part_done(&part).map(|(whole, _)| whole)
            })
        };
        let medium = Err(BlkError::Medium);
        let parts = [part(512, Err(BlkError::Io)), part(0, medium)];
        let mut whole = Inner::empty();
        whole.len = 1024;
        let here = chain.park(Box::new(whole), &home).map(|(whole, _)| whole);
        let there = parts.map(|part| part.join().unwrap());
        let mut got = there.into_iter().chain([here]).flatten();
        let whole = got.next().expect("nobody got the whole");
        assert!(got.next().is_none(), "two got the whole");
        assert_eq!((whole.result, whole.done), (medium, 0), "the first failure");
    });
}

/// Keeps requests and hands over all it has to whoever asks.
struct Keeps(Lock<Vec<Request>>);

impl BlockDevice for Keeps {
    fn limits(&self) -> Limits {
        discards()
    }

    fn submit(&self, request: Request) -> Submitted {
        self.0.lock().push(request);
        Submitted::Kept
    }

    fn poll(&self, _queue: QueueId, done: &mut dyn FnMut(Done)) {
        let kept = mem::take(&mut *self.0.lock());
        for request in kept {
            done(request.complete(Ok(())));
        }
    }
}

#[test]
fn whoever_finds_a_request_it_gets_home() {
    of_many(|| {
        let device = Keeps(Lock::new(Vec::new()));
        let queue = Arc::new(RequestQueue::with_depth(device, 2).unwrap());
        let user = |sector: u64| {
            let queue = Arc::clone(&queue);
            move || {
                let mut context = queue.shared_context(HW).unwrap();
                context.submit(discard(sector)).unwrap();
                context.drain(|done| assert_eq!(done.token(), sector));
                assert_eq!(context.counters().completed, 1);
            }
        };
        let other = thread::spawn(user(1));
        user(2)();
        other.join().unwrap();
        assert_eq!(queue.in_flight(), 0);
    });
}
