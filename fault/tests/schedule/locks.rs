//! Hazard: a task that waits for a lock blocks the thread that it shares with the holder.

use core::cell::Cell;

use pageless_fault::sim::schedule::{Event, FailureKind, Schedule, Task, explore, step};
use pageless_fault::sync::{Mutex, set_waiting};
use pageless_fault::{MaySleep, SpinLock};

const INSIDE: Event = Event::new("inside", 0);

#[test]
fn a_contended_mutex_lets_its_holder_run() {
    for seed in 0..100 {
        let count = Mutex::new(0);
        let task = |me: u32| {
            let count = &count;
            Task::new(format!("cpu {me}"), move || {
                for _ in 0..20 {
                    let mut held = count.lock();
                    let seen = *held;
                    step(INSIDE);
                    *held = seen + 1;
                }
            })
        };
        let tasks: Vec<_> = (0..4).map(task).collect();
        Schedule::random(seed).preempt_one_in(3).run(tasks).unwrap();
        assert_eq!(*count.lock(), 80);
    }
}

#[test]
fn a_contended_spin_lock_lets_its_holder_run_and_counts_for_its_own_task() {
    for seed in 0..100 {
        let count = SpinLock::new(0);
        let task = |me: u32| {
            let count = &count;
            Task::new(format!("cpu {me}"), move || {
                for _ in 0..20 {
                    // Another task of this thread may hold the lock: that is no matter of this one.
                    let mut ctx = MaySleep::claim();
                    let mut held = count.lock(&mut ctx);
                    let seen = *held;
                    step(INSIDE);
                    *held = seen + 1;
                }
            })
        };
        let tasks: Vec<_> = (0..4).map(task).collect();
        Schedule::random(seed).preempt_one_in(3).run(tasks).unwrap();
        assert_eq!(*count.lock(&mut MaySleep::claim()), 80);
    }
}

#[test]
fn mutexes_in_opposite_order_are_found_to_deadlock() {
    let program = || {
        let locks = alloc::rc::Rc::new((Mutex::new(()), Mutex::new(())));
        let task = |name: &str, swapped: bool| {
            let locks = alloc::rc::Rc::clone(&locks);
            Task::new(name, move || {
                let (first, second) = match swapped {
                    false => (&locks.0, &locks.1),
                    true => (&locks.1, &locks.0),
                };
                let _first = first.lock();
                step(INSIDE);
                let _second = second.lock();
            })
        };
        vec![task("ab", false), task("ba", true)]
    };
    let failure = explore(1, 100, program).failure.unwrap();
    assert!(
        matches!(failure.kind, FailureKind::Deadlock { .. }),
        "{failure}"
    );
    // Both locks are free again: the unwound tasks have dropped their guards.
    assert_eq!(failure.deviations.to_string(), "0@1>1");
}

#[test]
fn a_spin_lock_that_an_unwound_task_held_is_not_held_by_the_thread() {
    let lock = SpinLock::new(());
    let task = |name: &str| {
        let lock = &lock;
        Task::new(name, move || {
            let mut ctx = MaySleep::claim();
            let _held = lock.lock(&mut ctx);
            step(INSIDE);
            panic!("with the lock");
        })
    };
    let tasks = vec![task("a"), task("b")];
    Schedule::random(1).run(tasks).unwrap_err();
    let mut ctx = MaySleep::claim();
    drop(lock.lock(&mut ctx));
}

#[test]
fn a_thread_says_what_it_does_while_it_waits_for_a_lock() {
    std::thread_local! {
        static TURNS: Cell<u32> = const { Cell::new(0) };
    }
    static HELD: HeldElsewhere = HeldElsewhere::new();

    // Lets go of the lock in the thirtieth turn: without the turns it would be held for ever.
    let before = set_waiting(Some(|turn| {
        assert_eq!(turn, TURNS.get() % 30);
        TURNS.set(TURNS.get() + 1);
        if turn == 29 {
            HELD.let_go();
        }
    }));
    assert!(before.is_none());
    HELD.take();
    drop(HELD.0.lock(&mut MaySleep::claim()));
    assert_eq!(TURNS.get(), 30);
    assert!(set_waiting(before).is_some());
}

/// A spin lock that another thread holds until it is told to let go.
struct HeldElsewhere(SpinLock<()>, core::sync::atomic::AtomicU32);

impl HeldElsewhere {
    const fn new() -> Self {
        HeldElsewhere(SpinLock::new(()), core::sync::atomic::AtomicU32::new(0))
    }

    fn take(&'static self) {
        use core::sync::atomic::Ordering::SeqCst;
        std::thread::spawn(|| {
            let mut ctx = MaySleep::claim();
            let _held = self.0.lock(&mut ctx);
            self.1.store(1, SeqCst);
            while self.1.load(SeqCst) == 1 {
                std::thread::yield_now();
            }
            drop(_held);
            self.1.store(3, SeqCst);
        });
        while self.1.load(SeqCst) == 0 {
            std::thread::yield_now();
        }
    }

    fn let_go(&self) {
        use core::sync::atomic::Ordering::SeqCst;
        self.1.store(2, SeqCst);
        while self.1.load(SeqCst) != 3 {
            std::thread::yield_now();
        }
    }
}
