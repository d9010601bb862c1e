//! Stacks for the tasks, and the one place that leaves a task in the middle.
//!
//! `corosensei` hands the way out of a coroutine (its yielder) to the closure that the coroutine
//! runs. Tasks are plain code that knows of no yielder, so it is kept where [`suspend`] finds it: in
//! a thread-local, as a pointer, because it lives on the coroutine's stack and no borrow reaches from
//! there to here.
#![expect(
    unsafe_code,
    reason = "follows the thread-local pointer to the yielder"
)]

use core::cell::{Cell, RefCell};
use core::ptr;

use corosensei::stack::DefaultStack;
use corosensei::{CoroutineResult, ScopedCoroutine, ScopedCoroutineRef, Yielder};

use super::panics::{self, Caught};

/// Address space of one stack; memory only where it is touched.
const STACK_BYTES: usize = 1 << 20;

std::thread_local! {
    /// The way out of the coroutine that runs, null while none does.
    ///
    /// # Invariant
    ///
    /// Not null only while a coroutine of [`with_all`] runs in this thread, and then it points to that
    /// coroutine's own yielder. Three places keep it: a coroutine sets it before anything else it
    /// does, and again whenever it has been resumed; [`Coroutine::resume`] and
    /// [`Coroutine::unwind`] clear it when the coroutine has given way.
    static YIELDER: Cell<*const Yielder<(), ()>> = const { Cell::new(ptr::null()) };

    /// Stacks of earlier runs: a short run would spend most of its time on getting new ones.
    static IDLE: RefCell<Vec<DefaultStack>> = const { RefCell::new(Vec::new()) };
}

/// How a task's body ended; small, since it is handed over at every switch.
pub(super) type Ended = Result<(), Box<Caught>>;

type Scoped<'a, 's> = ScopedCoroutine<'a, (), (), Ended, &'s mut DefaultStack>;

/// A task's body on a stack of its own.
pub(super) struct Coroutine<'c, 's>(ScopedCoroutineRef<'c, (), (), Ended, &'s mut DefaultStack>);

impl Coroutine<'_, '_> {
    /// Runs on until the body suspends itself (`None`) or has ended.
    #[inline]
    pub(super) fn resume(&mut self) -> Option<Ended> {
        let result = self.0.resume(());
        YIELDER.set(ptr::null());
        match result {
            CoroutineResult::Yield(()) => None,
            CoroutineResult::Return(ended) => Some(ended),
        }
    }

    /// Runs the destructors of a body that will not run on.
    pub(super) fn unwind(&mut self) {
        self.0.force_unwind();
        YIELDER.set(ptr::null());
    }
}

/// Leaves the running coroutine; returns when it is resumed. Outside of one: returns at once.
pub(super) fn suspend() {
    let yielder = YIELDER.get();
    if yielder.is_null() {
        return;
    }
    // SAFETY: by the invariant of `YIELDER` this is the yielder of the coroutine whose code runs here.
    // It lies at the base of that coroutine's stack, which lives at least until its body, whose call
    // this is, has returned or is unwound. A yielder is only ever used through shared references.
    unsafe { &*yielder }.suspend(());
    YIELDER.set(yielder);
}

/// Puts each of `bodies` on a stack of its own and hands all of them, none begun, to `drive`. What
/// has not ended when `drive` returns is unwound.
pub(super) fn with_all<'a, T>(
    bodies: Vec<Box<dyn FnOnce() + 'a>>,
    drive: impl FnOnce(Vec<Coroutine<'_, '_>>) -> T,
) -> T {
    let mut stacks = IDLE.take();
    let spare = stacks.split_off(stacks.len().min(bodies.len()));
    IDLE.set(spare);
    while stacks.len() < bodies.len() {
        stacks.push(DefaultStack::new(STACK_BYTES).expect("address space for a task's stack"));
    }
    let coroutines = bodies
        .into_iter()
        .zip(&mut stacks)
        .map(|(body, stack)| {
            ScopedCoroutine::with_stack(stack, |yielder: &Yielder<(), ()>, ()| {
                YIELDER.set(yielder);
                panics::catch(body)
            })
        })
        .collect::<Vec<_>>();
    let count = coroutines.len();
    let result = nest(coroutines.into_iter(), Vec::with_capacity(count), drive);
    IDLE.with_borrow_mut(|idle| idle.append(&mut stacks));
    result
}

/// A scope within a scope for each coroutine: the safe way to borrow them all at once.
fn nest<'a, 's, 'c, T>(
    mut rest: impl Iterator<Item = Scoped<'a, 's>>,
    entered: Vec<Coroutine<'c, 's>>,
    drive: impl FnOnce(Vec<Coroutine<'_, 's>>) -> T,
) -> T {
    match rest.next() {
        None => drive(entered),
        Some(coroutine) => coroutine.scope(move |entry| {
            let mut entered: Vec<Coroutine<'_, 's>> = entered;
            entered.push(Coroutine(entry));
            nest(rest, entered, drive)
        }),
    }
}
