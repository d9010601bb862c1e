//! One run: from a schedule and a program to how it went.
#![forbid(unsafe_code)]

use super::coroutine::{self, Coroutine};
use super::current::{self, Entered};
use super::deviation::{Base, Deviations};
use super::failure::{Failure, FailureKind};
use super::order::{From, Order, Outcome, Plan, Slice};
use super::panics;
use super::task::{Hooks, Program};
use crate::context;

/// Steps and waits after which a run is taken not to end.
pub(super) const STEPS_AT_MOST: u64 = 10_000_000;

/// Which of the many schedules of a program to run.
///
/// ```
/// use pageless_fault::sim::schedule::{Event, Schedule, Task, charge, step};
///
/// let tasks = || {
///     let task = |name: &str, ns| {
///         Task::new(name, move || {
///             for turn in 0..3 {
///                 step(Event::new("turn", turn));
///                 charge(ns);
///             }
///         })
///     };
///     vec![task("fast", 10), task("slow", 25)]
/// };
/// let run = Schedule::by_clock(0).run(tasks()).unwrap();
/// assert_eq!(run.clocks, [30, 75]);
/// ```
#[derive(Debug, Clone)]
#[must_use = "a schedule runs nothing until `run`"]
pub struct Schedule {
    plan: Plan,
}

/// A run that went well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// Steps and waits of all tasks.
    pub steps: u64,
    /// How often another task than before ran.
    pub switches: u64,
    /// The clocks of the tasks when they ended, modelled ns.
    pub clocks: Vec<u64>,
    /// What the run did otherwise than the default: replaying them is the same run. Empty if they
    /// were not [recorded](Schedule::record_deviations).
    pub deviations: Deviations,
}

impl Schedule {
    fn new(from: From) -> Self {
        Schedule {
            plan: Plan {
                from,
                most: STEPS_AT_MOST,
                record: false,
                remember: true,
                slices: false,
            },
        }
    }

    /// The default schedule with preemptions where the seed says, and a seeded choice of who runs
    /// whenever a task waits or ends. Equal seeds are equal runs, on every platform.
    ///
    /// Unless [`preempt_one_in`](Schedule::preempt_one_in) says it, the seed also says how often: from
    /// every second step to every 64th, since some mistakes show under many and some under few.
    pub fn random(seed: u64) -> Self {
        // Not the generator of the run: a rate that is given leaves the rest as it is.
        let one_in = 2 << fastrand::Rng::with_seed(!seed).u32(..6);
        Schedule::new(From::Seed {
            base: Base::InOrder,
            seed,
            one_in,
        })
    }

    /// The run that made these deviations.
    pub fn replay(deviations: &Deviations) -> Self {
        Schedule::new(From::Script(deviations.clone()))
    }

    /// Always the task with the lowest clock runs: actions happen in the order of their modelled
    /// time, to within the charges between two steps. The seed is for [`chance`](super::chance) and
    /// [`pick`](super::pick) alone.
    ///
    /// A task that waits looks again whenever the time of those that do not wait has passed on, and
    /// its own clock is pulled up to theirs before it does. So what it finds may have happened up to
    /// one charge of the other task earlier; what must be exact carries its time with it, and the
    /// finder calls [`advance_to`](super::advance_to).
    pub fn by_clock(seed: u64) -> Self {
        Schedule::new(From::Seed {
            base: Base::Clock,
            seed,
            one_in: 0,
        })
    }

    /// One preemption in `n` steps, on average; none for 0. Only for a random schedule.
    pub fn preempt_one_in(mut self, n: u32) -> Self {
        if let From::Seed {
            base: Base::InOrder,
            one_in,
            ..
        } = &mut self.plan.from
        {
            *one_in = n;
        }
        self
    }

    /// A run of more than `most` steps and waits fails with [`FailureKind::TooManySteps`].
    /// 10 million unless said otherwise.
    pub fn steps_at_most(mut self, most: u64) -> Self {
        self.plan.most = most;
        self
    }

    /// Whether to remember what happened, for [`Failure::trace`]: the last few hundred events. Slow; the
    /// run stays the same.
    pub fn record_trace(mut self, record: bool) -> Self {
        self.plan.record = record;
        self
    }

    /// Whether to remember deviations: unless said otherwise, yes. A random run of millions of steps makes so
    /// many that they are dear to keep, and its seed is enough to have them again: [`shrink`](super::shrink)
    /// does. For a replay it is always yes.
    pub fn record_deviations(mut self, record: bool) -> Self {
        self.plan.remember = record || matches!(self.plan.from, From::Script(_));
        self
    }

    /// For [`explore`](super::explore): what could have been done otherwise.
    pub(super) fn record_slices(mut self) -> Self {
        self.plan.slices = true;
        self
    }

    /// Runs all tasks of `program` to their end, in this thread, and then its check.
    ///
    /// # Errors
    ///
    /// See [`FailureKind`]. What the tasks owned has been dropped, in either case.
    ///
    /// # Panics
    ///
    /// When called by a task of another run, and when there is no address space for the stacks. A panic of a
    /// task is not one of this function.
    pub fn run<'a>(&self, program: impl Into<Program<'a>>) -> Result<Run, Box<Failure>> {
        self.run_sliced(program.into()).map(|(run, _)| run)
    }

    pub(super) fn run_sliced(
        &self,
        program: Program<'_>,
    ) -> Result<(Run, Vec<Slice>), Box<Failure>> {
        let Program { tasks, check } = program;
        let (mut names, mut bodies, mut hooks) = (Vec::new(), Vec::new(), Vec::new());
        for task in tasks {
            names.push(task.name);
            bodies.push(task.body);
            hooks.push(task.hooks);
        }
        let entered = Entered::enter(Box::new(Order::new(self.plan.clone(), names)));
        coroutine::with_all(bodies, |coroutines| drive(coroutines, &hooks, &entered));
        let order = entered.leave();
        let outcome = order.expect("entered with it").outcome();
        match outcome.failed {
            Some(_) => Err(self.failure(outcome)),
            None => match check.map(check_quietly) {
                None | Some(Ok(())) => Ok((
                    Run {
                        steps: outcome.steps,
                        switches: outcome.switches,
                        clocks: outcome.clocks,
                        deviations: outcome.deviations,
                    },
                    outcome.slices,
                )),
                Some(Err(kind)) => Err(self.failure(Outcome {
                    failed: Some(kind),
                    ..outcome
                })),
            },
        }
    }

    fn failure(&self, outcome: Outcome) -> Box<Failure> {
        let (seed, preempt_one_in) = match self.plan.from {
            From::Seed { seed, one_in, .. } => (Some(seed), one_in),
            From::Script(_) => (None, 0),
        };
        Box::new(Failure {
            kind: outcome.failed.expect("called for a failed run"),
            seed,
            preempt_one_in,
            steps_at_most: self.plan.most,
            steps: outcome.steps,
            deviations: outcome.deviations,
            recorded: self.plan.remember,
            trace: outcome.trace,
        })
    }
}

/// Lets one task after another have its turn, until all have ended or the run has failed; then
/// unwinds those that have not.
fn drive(mut coroutines: Vec<Coroutine<'_, '_>>, hooks: &[Hooks<'_>], entered: &Entered) {
    let mut next = current::with_order(Order::begin_turn).flatten();
    while let Some((task, depth)) = next {
        let (depth, ended) = turn(&hooks[task], depth, || coroutines[task].resume());
        next = current::with_order(|order| {
            order.end_turn(task, depth, ended);
            order.begin_turn()
        })
        .flatten();
    }
    let unended = current::with_order(|order| order.unended());
    entered.unwinding();
    for (task, depth) in unended.unwrap_or_default() {
        turn(&hooks[task], depth, || coroutines[task].unwind());
    }
}

/// A turn of one task: with its hooks around it, and with its own count of held spin locks.
#[inline]
fn turn<T>(hooks: &Hooks<'_>, depth: u32, run: impl FnOnce() -> T) -> (u32, T) {
    if let Some(hook) = &hooks.on_resume {
        hook();
    }
    let outer = context::exchange_held(depth);
    let result = run();
    let depth = context::exchange_held(outer);
    if let Some(hook) = &hooks.on_suspend {
        hook();
    }
    (depth, result)
}

/// Runs the check; its panic is a failure of the run.
fn check_quietly(check: Box<dyn FnOnce() + '_>) -> Result<(), FailureKind> {
    let was = panics::set_quiet(true);
    let result = panics::catch(check);
    panics::set_quiet(was);
    result.map_err(|caught| FailureKind::Panic {
        task: None,
        message: caught.message,
        place: caught.place,
    })
}
