//! The scheduler as the running task sees it: free functions over thread-locals, so that code needs no
//! handle and costs next to nothing where no scheduler runs.
#![forbid(unsafe_code)]

use core::cell::{Cell, RefCell};
use core::mem::ManuallyDrop;

use super::coroutine;
use super::order::Order;
use super::panics;
use super::task::Event;
use crate::sync;

/// What this thread's code runs in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// No run.
    Outside,
    /// A run, in one of its tasks or in the scheduler itself.
    Running,
    /// A run that has failed: its tasks are being unwound.
    Unwinding,
}

/// What the fast paths need; everything else is in [`RUN`].
struct Fast {
    /// Steps that may pass before the scheduler has to be asked. Outside of a run it merely counts down.
    left: Cell<u32>,
    /// The running task's clock, modelled ns.
    clock: Cell<u64>,
    /// The clock value above which the scheduler has to be told; 0 outside of a run.
    horizon: Cell<u64>,
    mode: Cell<Mode>,
}

std::thread_local! {
    static FAST: Fast = const {
        Fast {
            left: Cell::new(u32::MAX),
            clock: Cell::new(0),
            horizon: Cell::new(0),
            mode: Cell::new(Mode::Outside),
        }
    };

    /// The run of this thread, if there is one. Never borrowed while code of a task runs. [`Entered`]
    /// puts it here and takes it away, so that the thread-local itself has nothing to drop: one that has
    /// is looked at for that on every access.
    static RUN: RefCell<Option<ManuallyDrop<Box<Order>>>> = const { RefCell::new(None) };
}

/// Whether this code runs in a scheduled task that is not being torn down, neither by a failed run
/// nor by its own panic.
#[inline]
#[must_use]
pub fn is_running() -> bool {
    FAST.with(|fast| fast.mode.get() == Mode::Running) && !std::thread::panicking()
}

/// Says that an observable action is about to happen: perhaps another task runs first.
#[inline]
pub fn step(event: Event) {
    FAST.with(|fast| {
        let left = fast.left.get();
        if left == 0 {
            step_slowly(event);
        } else {
            fast.left.set(left - 1);
        }
    });
}

#[cold]
#[inline(never)]
fn step_slowly(event: Event) {
    if FAST.with(|fast| fast.mode.get()) != Mode::Running {
        FAST.with(|fast| fast.left.set(u32::MAX));
        return;
    }
    // Whoever ran in a panicking task's stead would run in a panicking thread.
    let may_switch = !std::thread::panicking();
    if with_order(|order| order.at_step(event, may_switch)) == Some(true) {
        coroutine::suspend();
    }
}

/// Says that this task cannot go on until somebody else acts: somebody else runs, if anybody can.
/// It may return without cause, so it belongs in a loop that looks again:
///
/// ```
/// # use core::cell::Cell;
/// # use pageless_fault::sim::schedule::{Event, wait};
/// # let (acknowledged, cpu) = (Cell::new(true), 3);
/// while !acknowledged.get() {
///     wait(Event::new("acknowledgement of cpu", cpu));
/// }
/// ```
///
/// To look is no action, so there is no [`step`] in such a loop. With one in it, tasks that wait for
/// each other are not a [`Deadlock`](super::FailureKind::Deadlock) but run into the limit of steps.
pub fn wait(event: Event) {
    if is_running() && with_order(|order| order.at_wait(event)) == Some(true) {
        coroutine::suspend();
    }
}

/// A seeded coin for what hardware may do and rarely does: `true` once in `one_in` times (never
/// for 0). Without a run, and in the default schedule, `false`: so `false` must be the plain case,
/// with which the program goes on.
#[must_use]
pub fn chance(what: &'static str, one_in: u32) -> bool {
    is_running() && with_order(|order| order.chance(what, one_in)) == Some(true)
}

/// A seeded choice of a value below `n`. Without a run, and in the default schedule, 0.
#[must_use]
pub fn pick(what: &'static str, n: u64) -> u64 {
    if !is_running() {
        return 0;
    }
    with_order(|order| order.pick(what, n)).unwrap_or(0)
}

/// Adds `ns` (modelled) to the clock of this task.
#[inline]
pub fn charge(ns: u64) {
    FAST.with(|fast| {
        let clock = fast.clock.get().saturating_add(ns);
        if clock > fast.horizon.get() {
            charge_slowly(clock);
        } else {
            fast.clock.set(clock);
        }
    });
}

#[cold]
#[inline(never)]
fn charge_slowly(clock: u64) {
    if FAST.with(|fast| fast.mode.get()) == Mode::Running {
        FAST.with(|fast| fast.clock.set(clock));
        with_order(Order::past_horizon);
    }
}

/// The clock of this task, modelled ns since the beginning of the run. 0 without a run.
#[inline]
#[must_use]
pub fn now() -> u64 {
    FAST.with(|fast| fast.clock.get())
}

/// Sets the clock of this task to `ns` (modelled), unless it is later already.
#[inline]
pub fn advance_to(ns: u64) {
    let ahead = ns.saturating_sub(now());
    if ahead > 0 {
        charge(ahead);
    }
}

/// What a task does while a lock of this crate is held by another.
fn wait_for_lock(turn: u32) {
    /// Turns after which whoever holds the lock is taken to be an unwound task, not a thread.
    const HOPELESS: u32 = 1 << 16;

    if is_running() {
        wait(Event::new("lock", 0));
        return crate::sim::current::serve_while_waiting();
    }
    if turn >= HOPELESS {
        panics::set_quiet(false);
        // The process ends here, so whoever reads this must learn why the run had failed.
        let told = with_order(|order| order.failure()).flatten();
        let told = told.or_else(panics::under_way).unwrap_or_default();
        let seed = with_order(|order| order.seed()).flatten();
        panic!(
            "a destructor of an unwound task waits for a lock that another such task holds, \
             after a run (seed {seed:?}) that failed: {told}"
        );
    }
    std::thread::yield_now();
}

/// The scheduler's own access to the run of this thread.
#[inline]
pub(super) fn with_order<T>(f: impl FnOnce(&mut Order) -> T) -> Option<T> {
    RUN.with_borrow_mut(|run| run.as_mut().map(|order| f(order)))
}

/// Steps that were granted and have not been used; none are afterwards.
#[inline]
pub(super) fn take_left() -> u32 {
    FAST.with(|fast| fast.left.replace(0))
}

/// Steps that were granted and have not been used.
#[inline]
pub(super) fn left() -> u32 {
    FAST.with(|fast| fast.left.get())
}

/// Lets `left` steps pass undisturbed, and the clock run up to `horizon`.
#[inline]
pub(super) fn grant(left: u32, horizon: u64) {
    FAST.with(|fast| {
        fast.left.set(left);
        fast.horizon.set(horizon);
    });
}

/// Puts a task's clock in force.
#[inline]
pub(super) fn set_clock(clock: u64) {
    FAST.with(|fast| fast.clock.set(clock));
}

/// The run of this thread, from [`enter`](Entered::enter) until it is dropped.
pub(super) struct Entered {
    lock_hook: Option<fn(u32)>,
    was_quiet: bool,
}

impl Entered {
    /// Begins a run in this thread.
    ///
    /// # Panics
    ///
    /// When this thread is in a run already.
    pub(super) fn enter(order: Box<Order>) -> Self {
        assert!(
            FAST.with(|fast| fast.mode.get()) == Mode::Outside,
            "a run inside a task of another run"
        );
        panics::install();
        let outer = RUN.replace(Some(ManuallyDrop::new(order)));
        debug_assert!(outer.is_none(), "mode says that there is no run");
        FAST.with(|fast| fast.mode.set(Mode::Running));
        Entered {
            lock_hook: sync::set_waiting(Some(wait_for_lock)),
            was_quiet: panics::set_quiet(true),
        }
    }

    /// From here on tasks are only unwound.
    pub(super) fn unwinding(&self) {
        panics::set_quiet(false);
        FAST.with(|fast| fast.mode.set(Mode::Unwinding));
        grant(u32::MAX, 0);
    }

    /// Ends the run, and answers how it went.
    pub(super) fn leave(self) -> Option<Box<Order>> {
        take_order()
    }
}

fn take_order() -> Option<Box<Order>> {
    RUN.take().map(ManuallyDrop::into_inner)
}

impl Drop for Entered {
    fn drop(&mut self) {
        drop(take_order());
        FAST.with(|fast| fast.mode.set(Mode::Outside));
        grant(u32::MAX, 0);
        set_clock(0);
        panics::set_quiet(self.was_quiet);
        sync::set_waiting(self.lock_hook);
    }
}
