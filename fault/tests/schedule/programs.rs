//! Small programs, right and wrong, that several tests run.

use alloc::rc::Rc;
use core::cell::{Cell, RefCell};

use pageless_fault::sim::schedule::{Event, Task, chance, charge, pick, step, wait};

const LOAD: Event = Event::new("load", 0);
const STORE: Event = Event::new("store", 0);

/// What happened, by (task, number).
pub(crate) type Log = Rc<RefCell<Vec<(u32, u64)>>>;

/// `tasks` tasks that take `steps` steps each and log them; now and then they draw.
pub(crate) fn logging(log: &Log, tasks: u32, steps: u64) -> Vec<Task<'static>> {
    let task = |me: u32| {
        let log = Rc::clone(log);
        Task::new(format!("cpu {me}"), move || {
            for turn in 0..steps {
                step(Event::new("turn", turn));
                log.borrow_mut().push((me, turn));
                if chance("hiccup", 7) {
                    log.borrow_mut().push((me, 1000 + pick("how long", 100)));
                }
                charge(u64::from(me) + 1);
            }
        })
    };
    (0..tasks).map(task).collect()
}

/// `tasks` tasks that add one to a counter, by loading and storing it.
pub(crate) fn lost_update(tasks: u32) -> (Vec<Task<'static>>, impl FnOnce()) {
    let count = Rc::new(Cell::new(0));
    let task = |me: u32| {
        let count = Rc::clone(&count);
        Task::new(format!("cpu {me}"), move || {
            step(LOAD);
            let seen = count.get();
            step(STORE);
            count.set(seen + 1);
        })
    };
    let list = (0..tasks).map(task).collect();
    (list, move || {
        assert_eq!(count.get(), tasks, "an update was lost");
    })
}

/// The same, each under a spin lock, and with `noise` steps of its own before and after.
pub(crate) fn kept_update(tasks: u32, noise: u64) -> (Vec<Task<'static>>, impl FnOnce()) {
    let count = Rc::new(Cell::new(0));
    let lock = Rc::new(Spin::new(0));
    let task = |me: u32| {
        let (count, lock) = (Rc::clone(&count), Rc::clone(&lock));
        Task::new(format!("cpu {me}"), move || {
            (0..noise).for_each(|turn| step(Event::new("noise", turn)));
            lock.lock();
            step(LOAD);
            let seen = count.get();
            step(STORE);
            count.set(seen + 1);
            lock.unlock();
            (0..noise).for_each(|turn| step(Event::new("noise", turn)));
        })
    };
    let list = (0..tasks).map(task).collect();
    (list, move || {
        assert_eq!(count.get(), tasks, "an update was lost");
    })
}

/// A spin lock whose every action is an event.
pub(crate) struct Spin {
    held: Cell<bool>,
    number: u64,
}

impl Spin {
    pub(crate) fn new(number: u64) -> Self {
        Spin {
            held: Cell::new(false),
            number,
        }
    }

    pub(crate) fn lock(&self) {
        loop {
            step(Event::new("try lock", self.number));
            if !self.held.replace(true) {
                return;
            }
            while self.held.get() {
                wait(Event::new("lock", self.number));
            }
        }
    }

    pub(crate) fn unlock(&self) {
        step(Event::new("unlock", self.number));
        self.held.set(false);
    }
}

/// Two tasks that take two locks in opposite order.
pub(crate) fn opposite_locks() -> Vec<Task<'static>> {
    let locks = Rc::new((Spin::new(0xa), Spin::new(0xb)));
    let other = Rc::clone(&locks);
    vec![
        Task::new("ab", move || {
            locks.0.lock();
            locks.1.lock();
            locks.1.unlock();
            locks.0.unlock();
        }),
        Task::new("ba", move || {
            other.1.lock();
            other.0.lock();
            other.0.unlock();
            other.1.unlock();
        }),
    ]
}
