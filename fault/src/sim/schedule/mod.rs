//! One scheduler for all simulated CPUs: deterministic from a seed.
//!
//! A simulated CPU is a [`Task`]: plain synchronous code that would run as a thread as well. Here all
//! tasks of a run share one OS thread, each on a stack of its own, and exactly one of them runs at any
//! time. Another gets its turn only where the running one says so: before an observable action
//! ([`step`]) and while it waits for somebody else ([`wait`]). Who that is follows from the seed, so a
//! run that failed can be had again, as often as one likes.
//!
//! ```text
//!              Schedule::random(seed)       by_clock(seed)        replay(&deviations)
//!                         \                      |                     /
//!   Program --------------> run: one task at a time, decisions at step, wait and end
//!   (tasks, check)            |                                  |
//!                             v                                  v
//!                   Run { steps, clocks, .. }      Failure { kind, seed, deviations, trace }
//!                                                                |
//!             explore: every schedule with few deviations        v
//!                                                     shrink: the few that matter, as a Trace
//! ```
//!
//! # Deviations
//!
//! There is one *default schedule*: the first task runs until it waits or ends, then the next one in
//! order. Whatever a seed changes in it is a [`Deviation`]: another task runs before step 14 of task
//! 1, the third coin of task 0 comes up heads. The list of them is the run; an empty list is the
//! default. Each is anchored at its task's own step number, so one can be left out and the others
//! still mean what they meant: that is what [`shrink`] does until none can be left out any more, and
//! [`explore`] goes the other way and adds them one by one.
//!
//! ```
//! use pageless_fault::sim::schedule::{Event, Schedule, Task, explore, step};
//! use std::cell::Cell;
//! use std::rc::Rc;
//!
//! let load = Event::new("load", 0);
//! let store = Event::new("store", 0);
//! // Both tasks add one, but not in one action.
//! let lost_update = || {
//!     let count = Rc::new(Cell::new(0));
//!     let add = |name: &str| {
//!         let count = Rc::clone(&count);
//!         Task::new(name, move || {
//!             step(load);
//!             let seen = count.get();
//!             step(store);
//!             count.set(seen + 1);
//!         })
//!     };
//!     let tasks = vec![add("cpu 0"), add("cpu 1")];
//!     (tasks, move || assert_eq!(count.get(), 2))
//! };
//!
//! // One after the other they are right; one preemption is enough to break them.
//! assert!(Schedule::replay(&"".parse().unwrap()).run(lost_update()).is_ok());
//! let failure = explore(1, 100, lost_update).failure.unwrap();
//! assert_eq!(failure.deviations.to_string(), "0@2>1");
//! ```
//!
//! # What a task may do
//!
//! Everything but block its OS thread. Locks of this crate ([`crate::sync::Mutex`],
//! [`SpinLock`](crate::SpinLock)) know how to wait here. State that tasks share changes only behind a
//! [`step`]: what happens between two of them is one action, and a task that waits is not looked at
//! again before somebody else has acted.
//!
//! When a run fails, the tasks that have not ended are unwound: their destructors run, [`is_running`]
//! says no, and `step` and `wait` return at once. A destructor that then waits for a lock which another
//! unwound task holds can never get it: the process aborts and says so.

mod coroutine;
mod current;
mod deviation;
mod explore;
mod failure;
mod order;
mod panics;
mod run;
mod shrink;
mod task;
mod trace;

pub use current::{advance_to, chance, charge, is_running, now, pick, step, wait};
pub use deviation::{Base, Deviation, Deviations, ParseDeviationsError};
pub use explore::{Explored, explore};
pub use failure::{Failure, FailureKind, Waiting};
pub use run::{Run, Schedule};
pub use shrink::{Shrunk, shrink};
pub use task::{Event, Program, Task};
pub use trace::{Trace, TraceLine};
