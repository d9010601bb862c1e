//! The protocols under every interleaving of two or three CPUs. What a CPU translates with is a Relaxed
//! word in these models: nothing orders it but the protocol, so an ordering or a fence too few shows.

use alloc::vec::Vec;

use loom::sync::Arc;
use loom::thread;

use super::record::Records;
use super::{
    CpuId, CpuSet, Flush, Generation, Letter, Mailbox, Presence, Receipt, Residency, Served,
    SpaceGeneration, SpaceId, Stamp, Tickets,
};
use crate::sync::atomic::{AtomicU64, Ordering};

const CPU: CpuId = CpuId::new(0);
const HERE: SpaceId = SpaceId::new(1);
const THERE: SpaceId = SpaceId::new(2);

/// A model of three threads: with more than three preemptions it takes minutes, and has not found more.
fn of_three(model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(builder.preemption_bound.map_or(3, |bound| bound.min(3)));
    builder.check(model);
}

/// A page-table entry that maps something.
const MAPPED: u64 = 1;

/// A page-table entry, as walks read it.
struct Entry(AtomicU64);

impl Entry {
    fn mapped() -> Self {
        Entry(AtomicU64::new(MAPPED))
    }

    fn clear(&self) {
        self.0.swap(0, Ordering::Relaxed);
    }

    fn is_mapped(&self) -> bool {
        self.0.load(Ordering::Relaxed) == MAPPED
    }
}

/// An access before the ones that matter, conflicting with the other thread's: without one, loom does not
/// get round to reading late what a thread did first. (Found by weakening orderings: the models that
/// begin with it stayed green.)
fn settle(entry: &Entry) {
    entry.is_mapped();
}

/// One CPU's cached copy of an entry: written by that CPU, asked after by whoever believes it gone.
struct Cached(AtomicU64);

impl Cached {
    fn new(cached: bool) -> Self {
        Cached(AtomicU64::new(cached.into()))
    }

    fn fill(&self) {
        self.0.store(1, Ordering::Relaxed);
    }

    fn invalidate(&self) {
        self.0.store(0, Ordering::Relaxed);
    }

    fn holds(&self) -> bool {
        self.0.load(Ordering::Relaxed) == 1
    }
}

#[test]
fn a_walk_that_saw_the_old_entry_is_a_target() {
    loom::model(|| {
        let shared = Arc::new((Residency::new(1), Entry::mapped()));
        let walker = {
            let shared = Arc::clone(&shared);
            thread::spawn(move || {
                let (residency, entry) = &*shared;
                residency.enter(CPU);
                entry.is_mapped()
            })
        };
        let (residency, entry) = &*shared;
        entry.clear();
        let targeted = residency.targets().contains(CPU);
        let saw_old = walker.join().unwrap();
        assert!(targeted || !saw_old, "a walker was missed");
    });
}

#[test]
fn a_walk_in_a_window_entered_long_ago_needs_no_fence_of_its_own() {
    loom::model(|| {
        let shared = Arc::new((Residency::new(1), Entry::mapped(), Entry::mapped()));
        let walker = {
            let shared = Arc::clone(&shared);
            thread::spawn(move || {
                let (residency, first, second) = &*shared;
                residency.enter(CPU);
                let saw_first = first.is_mapped();
                residency.enter(CPU);
                let saw_second = second.is_mapped();
                (saw_first, saw_second)
            })
        };
        let (residency, first, second) = &*shared;
        first.clear();
        second.clear();
        let targeted = residency.targets().contains(CPU);
        let saw = walker.join().unwrap();
        assert!(targeted || saw == (false, false), "a walker was missed");
    });
}

#[test]
fn a_cpu_that_has_left_has_flushed_and_one_that_came_back_walks_anew() {
    loom::model(|| {
        let shared = Arc::new((Residency::new(1), Entry::mapped(), Cached::new(false)));
        let walk = |residency: &Residency, entry: &Entry, cached: &Cached| {
            residency.enter(CPU);
            if entry.is_mapped() {
                cached.fill();
            }
        };
        let walker = {
            let shared = Arc::clone(&shared);
            thread::spawn(move || {
                let (residency, entry, cached) = &*shared;
                walk(residency, entry, cached);
                cached.invalidate();
                residency.leave(CPU);
                walk(residency, entry, cached);
            })
        };
        let (residency, entry, cached) = &*shared;
        entry.clear();
        let targeted = residency.targets().contains(CPU);
        // Whoever is not shot at cannot use the entry now, nor later.
        let reused_under_it = !targeted && cached.holds();
        walker.join().unwrap();
        assert!(!reused_under_it, "left before its flush");
        assert!(targeted || !cached.holds(), "came back to the old entry");
    });
}

/// One CPU with a cached entry of its space, and what tells it that it missed a shootdown.
struct Sleeper {
    presence: Presence,
    generation: SpaceGeneration,
    entry: Entry,
    cached: Cached,
}

impl Sleeper {
    fn new(presence: Presence) -> Arc<Self> {
        Arc::new(Sleeper {
            presence,
            generation: SpaceGeneration::new(),
            entry: Entry::mapped(),
            cached: Cached::new(true),
        })
    }

    /// The CPU has found itself behind, or not.
    fn catch_up(&self, missed: Option<Generation>) {
        if missed.is_some() {
            self.cached.invalidate();
        }
        // The first access: a miss walks.
        if !self.cached.holds() && self.entry.is_mapped() {
            self.cached.fill();
        }
    }

    /// One shootdown of `space`; whether the CPU was interrupted.
    fn shoot(&self, space: SpaceId) -> bool {
        settle(&self.entry);
        self.entry.clear();
        let bumped = self.generation.bump();
        self.presence.must_interrupt(space, &bumped)
    }
}

#[test]
fn a_cpu_that_wakes_is_interrupted_or_sees_what_it_missed() {
    loom::model(|| {
        let presence = Presence::running(HERE);
        presence.sleep();
        let sleeper = Sleeper::new(presence);
        let cpu = {
            let sleeper = Arc::clone(&sleeper);
            thread::spawn(move || {
                let awake = sleeper.presence.wake();
                sleeper.catch_up(awake.behind(&sleeper.generation, Generation::ZERO));
            })
        };
        let interrupted = sleeper.shoot(HERE);
        cpu.join().unwrap();
        assert!(
            interrupted || !sleeper.cached.holds(),
            "skipped, and woke with the old entry"
        );
    });
}

#[test]
fn a_cpu_that_switches_in_is_interrupted_or_sees_what_it_missed() {
    loom::model(|| {
        let sleeper = Sleeper::new(Presence::running(HERE));
        let cpu = {
            let sleeper = Arc::clone(&sleeper);
            thread::spawn(move || {
                let switch = sleeper.presence.begin_switch(THERE);
                sleeper.catch_up(switch.behind(&sleeper.generation, Generation::ZERO));
                sleeper.presence.end_switch(switch);
            })
        };
        let interrupted = sleeper.shoot(THERE);
        cpu.join().unwrap();
        assert!(
            interrupted || !sleeper.cached.holds(),
            "skipped in the switch, and kept the old entry"
        );
    });
}

#[test]
fn a_generation_flushed_for_counts_what_was_cleared_before_it() {
    loom::model(|| {
        let sleeper = Sleeper::new(Presence::running(HERE));
        let cpu = {
            let sleeper = Arc::clone(&sleeper);
            thread::spawn(move || {
                // A full flush of its own accord, remembered with this generation.
                let flushed = sleeper.generation.current();
                sleeper.cached.invalidate();
                sleeper.catch_up(None);
                assert!(
                    flushed == Generation::ZERO || !sleeper.cached.holds(),
                    "up to a generation whose entry it still has"
                );
            })
        };
        sleeper.shoot(HERE);
        cpu.join().unwrap();
    });
}

#[test]
fn a_cpu_seen_elsewhere_has_made_its_last_access() {
    // Asleep, gone, or in another space.
    let ways: [fn(&Presence); 3] = [Presence::sleep, Presence::retire, |presence| {
        let switch = presence.begin_switch(THERE);
        presence.end_switch(switch);
    }];
    for leave in ways {
        loom::model(move || {
            let sleeper = Sleeper::new(Presence::running(HERE));
            // What the CPU writes to the frame, and the frame's next owner finds.
            let frame = Arc::new(AtomicU64::new(0));
            let cpu = {
                let (sleeper, frame) = (Arc::clone(&sleeper), Arc::clone(&frame));
                thread::spawn(move || {
                    settle(&sleeper.entry);
                    frame.store(1, Ordering::Relaxed);
                    leave(&sleeper.presence);
                })
            };
            if !sleeper.shoot(HERE) {
                let found = frame.load(Ordering::Relaxed);
                assert_eq!(found, 1, "a write that is still to come");
            }
            cpu.join().unwrap();
        });
    }
}

/// A CPU that serves a mailbox, with a cached copy of each of two entries that it uses all the time.
struct Target {
    mailbox: Mailbox,
    entries: [Entry; 2],
    cached: [Cached; 2],
}

impl Target {
    fn new(capacity: u16) -> Arc<Self> {
        Arc::new(Target {
            mailbox: Mailbox::new(capacity),
            entries: [Entry::mapped(), Entry::mapped()],
            cached: [Cached::new(true), Cached::new(true)],
        })
    }

    /// Drops the copy of `entry`, and needs it at once again.
    fn flush(&self, entry: usize) {
        self.cached[entry].invalidate();
        if self.entries[entry].is_mapped() {
            self.cached[entry].fill();
        }
    }

    fn serve(&self) -> u64 {
        self.mailbox.serve(Stamp::ZERO, |served| {
            match served {
                Served::Request { letter, .. } => self.flush(letter.0[0] as usize),
                Served::Everything { .. } => (0..2).for_each(|entry| self.flush(entry)),
            }
            Stamp::ZERO
        })
    }

    fn post(&self, entry: u64) -> Receipt {
        self.entries[entry as usize].clear();
        self.mailbox.post(Letter([entry; 4]), Stamp::ZERO)
    }

    /// Whether `receipt` is acknowledged; if so, `entry` is gone.
    fn is_acked(&self, receipt: Receipt, entry: usize) -> bool {
        let acked = self.mailbox.is_acked(receipt);
        if acked {
            assert!(self.mailbox.is_entered(receipt));
            assert!(
                !self.cached[entry].holds(),
                "{receipt:?} of entry {entry} is acknowledged, and the entry cached"
            );
        }
        acked
    }

    /// Both requests have been made: once everything is served, everything is gone.
    fn finish(&self, receipts: [Receipt; 2]) {
        self.serve();
        assert!(!self.mailbox.pending());
        for (entry, receipt) in receipts.into_iter().enumerate() {
            assert!(self.is_acked(receipt, entry), "{receipt:?} is lost");
        }
    }
}

#[test]
fn two_requests_in_one_slot_are_acknowledged_each_for_itself() {
    loom::model(|| {
        let target = Target::new(1);
        let cpu = {
            let target = Arc::clone(&target);
            thread::spawn(move || {
                target.serve();
                target.serve();
            })
        };
        let first = target.post(0);
        // Both ways: the second finds the slot free again, or overflows.
        target.is_acked(first, 0);
        let second = target.post(1);
        target.is_acked(second, 1);
        target.is_acked(first, 0);
        cpu.join().unwrap();
        target.finish([first, second]);
    });
}

#[test]
fn a_cpu_that_has_entered_has_left_what_it_was_doing() {
    // The letter, and what overflowed.
    for which in 0..2 {
        loom::model(move || {
            let target = Target::new(1);
            let receipts = [target.post(0), target.post(1)];
            let work = Arc::new(AtomicU64::new(0));
            let cpu = {
                let (target, work) = (Arc::clone(&target), Arc::clone(&work));
                thread::spawn(move || {
                    target.entries[0].clear();
                    work.store(1, Ordering::Relaxed);
                    target.mailbox.enter(Stamp::ZERO);
                })
            };
            // As in the thread: `settle`, here with two writes, for there is no other access to conflict.
            target.entries[0].clear();
            if target.mailbox.is_entered(receipts[which]) {
                let found = work.load(Ordering::Relaxed);
                assert_eq!(found, 1, "entered before it had stopped");
            }
            cpu.join().unwrap();
            assert!(receipts.iter().all(|&r| target.mailbox.is_entered(r)));
        });
    }
}

#[test]
fn two_posters_share_a_mailbox_and_lose_nothing() {
    for capacity in [1, 2] {
        of_three(move || {
            let target = Target::new(capacity);
            let poster = {
                let target = Arc::clone(&target);
                thread::spawn(move || {
                    let receipt = target.post(1);
                    target.is_acked(receipt, 1);
                    receipt
                })
            };
            let owner = {
                let target = Arc::clone(&target);
                thread::spawn(move || target.serve())
            };
            let first = target.post(0);
            target.is_acked(first, 0);
            let second = poster.join().unwrap();
            let served = owner.join().unwrap();
            assert!(served <= 2);
            assert!(served == 2 || target.mailbox.pending(), "a lost bell");
            target.finish([first, second]);
        });
    }
}

#[test]
fn two_cpus_that_shoot_each_other_both_finish() {
    loom::model(|| {
        // Each has a mailbox and its copy of the entry that the other takes away.
        let cpus = Arc::new([(); 2].map(|()| (Mailbox::new(1), Cached::new(true))));
        let done = Arc::new([AtomicU64::new(0), AtomicU64::new(0)]);
        let run = |me: usize, cpus: Arc<[(Mailbox, Cached); 2]>, done: Arc<[AtomicU64; 2]>| {
            let ((own, cached), (peer, peer_cached)) = (&cpus[me], &cpus[1 - me]);
            let receipt = peer.post(Letter::default(), Stamp::ZERO);
            let mut mine = false;
            // A CPU that has its answer goes on running, and serving.
            while !(mine && done[1 - me].load(Ordering::Acquire) == 1) {
                if own.pending() {
                    own.serve(Stamp::ZERO, |_| {
                        cached.invalidate();
                        Stamp::ZERO
                    });
                }
                if !mine && peer.is_acked(receipt) {
                    assert!(!peer_cached.holds(), "acknowledged, and still cached");
                    mine = true;
                    done[me].store(1, Ordering::Release);
                }
                thread::yield_now();
            }
        };
        let other = {
            let (cpus, done) = (Arc::clone(&cpus), Arc::clone(&done));
            thread::spawn(move || run(1, cpus, done))
        };
        run(0, Arc::clone(&cpus), done);
        other.join().unwrap();
        assert!(cpus.iter().all(|(_, cached)| !cached.holds()));
    });
}

/// One CPU that answers tickets, with an entry for each of two initiators and its copies of them.
struct Batch {
    tickets: Tickets,
    entries: [Entry; 2],
    cached: [Cached; 2],
}

impl Batch {
    fn new() -> Arc<Self> {
        Arc::new(Batch {
            tickets: Tickets::new(1),
            entries: [Entry::mapped(), Entry::mapped()],
            cached: [Cached::new(true), Cached::new(true)],
        })
    }

    /// Flushes everything when asked, then touches both entries again.
    fn run(&self) {
        self.tickets.serve(CPU, || {
            for cached in &self.cached {
                cached.invalidate();
            }
            for (entry, cached) in self.entries.iter().zip(&self.cached) {
                if entry.is_mapped() {
                    cached.fill();
                }
            }
        });
    }

    fn initiate(&self, n: usize, ticket_first: bool) {
        let early = ticket_first.then(|| self.tickets.take());
        self.entries[n].clear();
        let ticket = early.unwrap_or_else(|| self.tickets.take());
        if self.tickets.is_done(CPU, ticket) {
            assert!(!self.cached[n].holds(), "answered by an earlier flush");
        }
    }
}

#[test]
fn a_flush_answers_for_every_entry_cleared_before_it_and_for_no_other() {
    of_three(|| {
        let batch = Batch::new();
        let other = {
            let batch = Arc::clone(&batch);
            thread::spawn(move || batch.initiate(1, false))
        };
        let cpu = {
            let batch = Arc::clone(&batch);
            thread::spawn(move || {
                batch.run();
                batch.run();
            })
        };
        batch.initiate(0, false);
        other.join().unwrap();
        cpu.join().unwrap();
    });
}

/// The model's own test: it notices a ticket taken too early.
#[test]
#[should_panic(expected = "answered by an earlier flush")]
fn a_ticket_taken_before_the_entry_is_cleared_proves_nothing() {
    loom::model(|| {
        let batch = Batch::new();
        let cpu = {
            let batch = Arc::clone(&batch);
            thread::spawn(move || batch.run())
        };
        batch.initiate(0, true);
        cpu.join().unwrap();
    });
}

/// A record that is used again while its CPU still holds the stamp of the request before: the CPU sweeps what it says now, and each
/// request once.
#[test]
fn a_record_used_again_is_swept_for_what_it_says_now() {
    ::loom::model(|| {
        let set = CpuSet::from_iter([CPU]);
        let requests = [Flush::pages(0x1000, 1), Flush::pages(0x2000, 2)];
        let records = Arc::new(Records::new(1, 1));
        let first = records.leave(&requests[0], &set).unwrap();
        let initiator = thread::spawn({
            let records = Arc::clone(&records);
            move || {
                let over = records.is_done(first, |_| false);
                let again = over.then(|| records.leave(&requests[1], &set)).flatten();
                let second = again.is_some_and(|second| records.is_done(second, |_| false));
                usize::from(over) + usize::from(second)
            }
        });
        let mut swept = Vec::new();
        for _ in 0..2 {
            records.sweep(CPU, |flush| swept.push(flush));
        }
        let done = initiator.join().unwrap();
        assert_eq!(swept, requests[..swept.len()], "swept for another request");
        assert!(swept.len() >= done, "done, and not swept");
    });
}
