//! The state word under every interleaving: get, put, freeze and thaw.

use core::sync::atomic::Ordering;

use loom::sync::Arc;
use loom::sync::atomic::AtomicU32;
use loom::thread;
use pageless_fault::{Fetched, Word};

use super::{FROZEN, Got, MAX_REFERENCES, freeze, get, references, thaw};

#[derive(Clone, Copy)]
struct LoomWord<'a>(&'a AtomicU32);

impl Word for LoomWord<'_> {
    fn fetch_add(self, n: u32) -> Fetched {
        Fetched::old(self.0.fetch_add(n, Ordering::Acquire))
    }
    fn release(self) {
        self.0.fetch_sub(1, Ordering::Release);
    }
    fn compare_exchange(self, current: u32, new: u32) -> Result<u32, u32> {
        self.0
            .compare_exchange(current, new, Ordering::AcqRel, Ordering::Relaxed)
    }
    fn exchange(self, new: u32) -> u32 {
        self.0.swap(new, Ordering::Release)
    }
    fn load(self, order: Ordering) -> u32 {
        self.0.load(order)
    }
    fn store(self, value: u32, order: Ordering) {
        self.0.store(value, order);
    }
}

/// A descriptor, and marks that say who believes to be using it. They are relaxed: only the state word
/// orders them, so a missing Acquire or Release shows as a mark that should be gone.
struct Descriptor {
    state: AtomicU32,
    held: [AtomicU32; 2],
    reclaimed: AtomicU32,
}

impl Descriptor {
    fn new() -> Arc<Self> {
        Arc::new(Descriptor {
            state: AtomicU32::new(0),
            held: [AtomicU32::new(0), AtomicU32::new(0)],
            reclaimed: AtomicU32::new(0),
        })
    }

    fn word(&self) -> LoomWord<'_> {
        LoomWord(&self.state)
    }

    /// One lookup by getter `n`.
    fn look_up(&self, n: usize) -> Got {
        let got = get(self.word());
        if got == Got::Reference {
            self.held[n].store(1, Ordering::Relaxed);
            assert_eq!(
                self.reclaimed.load(Ordering::Relaxed),
                0,
                "referenced while reclaim owns it"
            );
            self.held[n].store(0, Ordering::Relaxed);
            self.word().release();
        }
        got
    }

    /// One attempt to reclaim, given up again.
    fn reclaim(&self) -> bool {
        if !freeze(self.word()) {
            return false;
        }
        self.reclaimed.store(1, Ordering::Relaxed);
        for held in &self.held {
            assert_eq!(
                held.load(Ordering::Relaxed),
                0,
                "reclaimed while referenced"
            );
        }
        self.reclaimed.store(0, Ordering::Relaxed);
        thaw(self.word());
        true
    }
}

#[test]
fn reclaim_and_two_getters_exclude_each_other_and_no_count_is_lost() {
    loom::model(|| {
        let descriptor = Descriptor::new();
        let getters: [_; 2] = core::array::from_fn(|n| {
            let descriptor = Arc::clone(&descriptor);
            thread::spawn(move || descriptor.look_up(n))
        });
        let reclaimed = descriptor.reclaim();
        let got = getters.map(|getter| getter.join().unwrap());
        assert_eq!(references(descriptor.word()), 0, "a count was lost");
        if !reclaimed {
            assert_eq!(got, [Got::Reference, Got::Reference]);
        }
        // Strays of getters that backed off went with the thaw: the word is free for the next one.
        assert!(freeze(descriptor.word()));
    });
}

#[test]
fn a_frozen_word_stays_frozen_whoever_tries() {
    loom::model(|| {
        let descriptor = Descriptor::new();
        assert!(freeze(descriptor.word()));
        let getters: [_; 2] = core::array::from_fn(|n| {
            let descriptor = Arc::clone(&descriptor);
            thread::spawn(move || descriptor.look_up(n))
        });
        for getter in getters {
            assert_eq!(getter.join().unwrap(), Got::Frozen);
        }
        assert!(descriptor.word().load(Ordering::Relaxed) >= FROZEN);
        assert!(!freeze(descriptor.word()));
    });
}

#[test]
fn the_last_references_overflow_into_an_error_never_into_frozen() {
    loom::model(|| {
        let descriptor = Descriptor::new();
        descriptor
            .word()
            .store(MAX_REFERENCES - 1, Ordering::Relaxed);
        let getters: [_; 2] = core::array::from_fn(|_| {
            let descriptor = Arc::clone(&descriptor);
            thread::spawn(move || get(descriptor.word()))
        });
        assert!(!freeze(descriptor.word()));
        let got = getters.map(|getter| getter.join().unwrap());
        let taken = got.iter().filter(|got| **got == Got::Reference).count();
        assert!(
            got.iter()
                .all(|got| matches!(got, Got::Reference | Got::Overflow))
        );
        assert_eq!(taken, 1, "not exactly one reference was left to take");
        assert_eq!(references(descriptor.word()), MAX_REFERENCES);
    });
}
