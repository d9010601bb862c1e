//! The mailbox against a naive one, and under threads.

use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;

use proptest::prelude::*;

use super::*;

/// A request as the naive mailbox sees it.
#[derive(Debug, Clone, Copy)]
struct Request {
    receipt: Receipt,
    letter: Letter,
    sent: Stamp,
    entered: Option<Stamp>,
    acked: Option<Stamp>,
}

/// A mailbox without concurrency: a queue and a count.
#[derive(Debug)]
struct Naive {
    capacity: usize,
    positions: u64,
    rounds: u64,
    queue: VecDeque<usize>,
    overflowed: Vec<usize>,
    all: Vec<Request>,
}

impl Naive {
    fn post(&mut self, letter: Letter, sent: Stamp) -> Receipt {
        let receipt = if self.queue.len() < self.capacity {
            self.queue.push_back(self.all.len());
            self.positions += 1;
            Receipt::Slot {
                position: self.positions - 1,
            }
        } else {
            self.overflowed.push(self.all.len());
            self.rounds += 1;
            Receipt::Everything { round: self.rounds }
        };
        self.all.push(Request {
            receipt,
            letter,
            sent,
            entered: None,
            acked: None,
        });
        receipt
    }

    fn enter(&mut self, now: Stamp) -> u64 {
        let mut new = 0;
        for &index in self.queue.iter().chain(&self.overflowed) {
            let entered = &mut self.all[index].entered;
            new += u64::from(entered.is_none());
            entered.get_or_insert(now);
        }
        new
    }

    /// What the owner is handed, and which requests each answers.
    fn serve(&mut self, now: Stamp) -> Vec<(Served, Vec<usize>)> {
        self.enter(now);
        let queue: Vec<usize> = self.queue.drain(..).collect();
        let overflowed = core::mem::take(&mut self.overflowed);
        if let Some(&last) = overflowed.last() {
            let sent = self.all[last].sent;
            let answered: Vec<usize> = queue.into_iter().chain(overflowed).collect();
            let requests = answered.len() as u64;
            return Vec::from([(Served::Everything { requests, sent }, answered)]);
        }
        let request = |&index: &usize| {
            let Request { letter, sent, .. } = self.all[index];
            (Served::Request { letter, sent }, Vec::from([index]))
        };
        queue.iter().map(request).collect()
    }

    /// Whether the moments of `receipt` have not been overwritten by a later request.
    fn is_latest(&self, receipt: Receipt) -> bool {
        match receipt {
            Receipt::Slot { position } => position + self.capacity as u64 >= self.positions,
            Receipt::Everything { round } => round == self.rounds,
        }
    }

    fn agree(&self, mailbox: &Mailbox) {
        for request in &self.all {
            let receipt = request.receipt;
            assert_eq!(
                mailbox.is_entered(receipt),
                request.entered.is_some(),
                "{request:?}"
            );
            assert_eq!(
                mailbox.is_acked(receipt),
                request.acked.is_some(),
                "{request:?}"
            );
            if self.is_latest(receipt) {
                assert_eq!(mailbox.entered_at(receipt), request.entered, "{request:?}");
                assert_eq!(mailbox.acked_at(receipt), request.acked, "{request:?}");
            }
        }
        if self.all.iter().any(|request| request.acked.is_none()) {
            assert!(mailbox.pending(), "a request without a bell");
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Op {
    Post,
    Enter,
    Serve,
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let op = prop_oneof![3 => Just(Op::Post), 1 => Just(Op::Enter), 1 => Just(Op::Serve)];
    prop::collection::vec(op, 0..if cfg!(miri) { 24 } else { 80 })
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        cases: if cfg!(miri) { 4 } else { 256 },
        ..ProptestConfig::default()
    })]

    #[test]
    fn agrees_with_a_naive_mailbox(
        capacity in prop::sample::select(&[1_u16, 2, 4][..]),
        ops in ops(),
    ) {
        let mailbox = Mailbox::new(capacity);
        let mut naive = Naive {
            capacity: usize::from(capacity),
            positions: 0,
            rounds: 0,
            queue: VecDeque::new(),
            overflowed: Vec::new(),
            all: Vec::new(),
        };
        let mut clock = 0;
        let mut tick = || {
            clock += 1;
            Stamp::new(clock)
        };
        for op in ops {
            let now = tick();
            match op {
                Op::Post => {
                    let letter = Letter([now.get(), !now.get(), 0, u64::MAX]);
                    prop_assert_eq!(mailbox.post(letter, now), naive.post(letter, now));
                }
                Op::Enter => prop_assert_eq!(mailbox.enter(now), naive.enter(now)),
                Op::Serve => {
                    let mut expected = naive.serve(now).into_iter();
                    mailbox.serve(now, |served| {
                        let (what, answers) = expected.next().expect("more than was posted");
                        assert_eq!(served, what);
                        let done = tick();
                        for index in answers {
                            let request = &mut naive.all[index];
                            assert!(mailbox.is_entered(request.receipt));
                            assert!(!mailbox.is_acked(request.receipt), "done before it is done");
                            request.acked = Some(done);
                        }
                        done
                    });
                    prop_assert!(expected.next().is_none(), "less than was posted");
                    prop_assert!(!mailbox.pending());
                }
            }
            naive.agree(&mailbox);
        }
    }
}

#[test]
fn entering_acknowledges_early_and_leaves_the_bell_ringing() {
    let mailbox = Mailbox::new(2);
    assert!(!mailbox.pending());
    let receipt = mailbox.post(Letter::default(), Stamp::ZERO);
    assert!(!mailbox.is_entered(receipt));
    assert_eq!(mailbox.enter(Stamp::new(3)), 1);
    assert_eq!(mailbox.enter(Stamp::new(4)), 0);
    assert_eq!(mailbox.entered_at(receipt), Some(Stamp::new(3)));
    assert_eq!(mailbox.acked_at(receipt), None);
    assert!(mailbox.pending(), "entered, not served");
    assert_eq!(mailbox.serve(Stamp::new(5), |_| Stamp::new(6)), 1);
    assert!(!mailbox.pending());
}

#[test]
fn what_is_posted_while_serving_is_served_the_next_time() {
    let mailbox = Mailbox::new(1);
    let _ = mailbox.post(Letter([1; 4]), Stamp::ZERO);
    let mut late = None;
    mailbox.serve(Stamp::ZERO, |_| {
        late = Some(mailbox.post(Letter([2; 4]), Stamp::ZERO));
        Stamp::ZERO
    });
    let late = late.unwrap();
    // The slot is free only when the letter in it is done.
    assert_eq!(late, Receipt::Everything { round: 1 });
    assert!(!mailbox.is_acked(late));
    assert!(mailbox.pending());
    mailbox.serve(Stamp::ZERO, |_| Stamp::ZERO);
    assert!(mailbox.is_acked(late));
    // With the acknowledgement in hand there is room again.
    assert_eq!(
        mailbox.post(Letter([3; 4]), Stamp::ZERO),
        Receipt::Slot { position: 1 }
    );
}

#[test]
fn an_acknowledgement_is_not_taken_for_that_of_the_next_letter_in_the_slot() {
    let mailbox = Mailbox::new(1);
    let first = mailbox.post(Letter::default(), Stamp::ZERO);
    mailbox.serve(Stamp::ZERO, |_| Stamp::ZERO);
    assert!(mailbox.is_acked(first));
    let second = mailbox.post(Letter::default(), Stamp::ZERO);
    assert!(!mailbox.is_acked(second));
}

#[test]
#[should_panic(expected = "a mailbox for 3 letters")]
fn a_capacity_is_a_power_of_two() {
    let _ = Mailbox::new(3);
}

/// Counts a poster that has ended, also one that failed: the owner must not wait for it.
struct Finished(Arc<AtomicU64>);

impl Drop for Finished {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Release);
    }
}

#[test]
fn many_posters_are_acknowledged_only_when_their_own_entries_are_invalidated() {
    const POSTERS: u64 = 3;
    let each: u64 = if cfg!(miri) { 6 } else { 20_000 };
    for capacity in [1, 2, 4] {
        let mailbox = Arc::new(Mailbox::new(capacity));
        // A word for each poster: 0 cleared and not invalidated, 1 invalidated. Relaxed: only the
        // mailbox orders them.
        let entries: Arc<[_]> = (0..POSTERS).map(|_| AtomicU64::new(1)).collect();
        let finished = Arc::new(AtomicU64::new(0));
        let posters: Vec<_> = (0..POSTERS)
            .map(|poster| {
                let (mailbox, entries) = (Arc::clone(&mailbox), Arc::clone(&entries));
                let finished = Finished(Arc::clone(&finished));
                std::thread::spawn(move || {
                    let _finished = finished;
                    let entry = &entries[poster as usize];
                    for round in 0..each {
                        entry.store(0, Ordering::Relaxed);
                        let letter = Letter([poster, round, !round, poster ^ round]);
                        let receipt = mailbox.post(letter, Stamp::new(round));
                        while !mailbox.is_acked(receipt) {
                            std::thread::yield_now();
                        }
                        assert_eq!(entry.load(Ordering::Relaxed), 1, "{receipt:?}");
                    }
                })
            })
            .collect();
        let (mut answered, mut clock) = (0, 0);
        while finished.load(Ordering::Acquire) < POSTERS {
            if !mailbox.pending() {
                std::thread::yield_now();
                continue;
            }
            clock += 1;
            answered += mailbox.serve(Stamp::new(clock), |served| {
                match served {
                    Served::Request { letter, sent } => {
                        let Letter([poster, round, not, both]) = letter;
                        assert_eq!((not, both), (!round, poster ^ round), "a torn letter");
                        assert_eq!(sent, Stamp::new(round));
                        entries[poster as usize].store(1, Ordering::Relaxed);
                    }
                    Served::Everything { .. } => {
                        for entry in entries.iter() {
                            entry.store(1, Ordering::Relaxed);
                        }
                    }
                }
                Stamp::new(clock)
            });
        }
        for poster in posters {
            poster.join().unwrap();
        }
        assert_eq!(answered, POSTERS * each, "lost, or answered twice");
    }
}
