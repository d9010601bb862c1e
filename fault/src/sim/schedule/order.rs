//! Whose turn it is: every decision of a run, where it came from, and what it says about the tasks.
#![forbid(unsafe_code)]

use alloc::borrow::Cow;
use alloc::collections::VecDeque;

use super::coroutine::Ended;
use super::current;
use super::deviation::{Base, Deviation, Deviations};
use super::failure::{FailureKind, Waiting};
use super::panics::Caught;
use super::task::Event;
use super::trace::{Trace, TraceLine};

/// How often every task looks in vain, with no action by anyone, until that is called a deadlock.
const LOOKS: u32 = 3;
/// A wait for something else than before counts as an action, but not for ever: this often for
/// each task.
const CHANGES: u32 = 16;
/// How many lines of a trace are kept.
const LINES: usize = 512;

/// Where decisions come from.
#[derive(Debug)]
enum Source {
    /// From a seed.
    Seed {
        rng: fastrand::Rng,
        one_in: u32,
        /// Steps that pass before the next preemption; `u64::MAX` when ordered by clock.
        until: u64,
    },
    /// From a list, which lies with the tasks.
    Script,
}

/// Where a task that does not run stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stopped {
    /// It has not begun.
    Before,
    /// Before this action.
    AtStep(Event),
    /// It waits.
    AtWait,
}

#[derive(Debug)]
struct State {
    name: String,
    live: bool,
    stopped: Stopped,
    /// Steps that it has announced.
    steps: u64,
    /// Modelled ns; while it runs, the thread-local clock counts.
    clock: u64,
    /// Spin locks held.
    depth: u32,
    /// What it waits for, until it steps again.
    waiting: Option<Event>,
    /// The epoch in which it last looked in vain, and how often in it.
    seen: u64,
    looks: u32,
    /// The step that `turn` and `nth` count from.
    anchor: u64,
    turn: u32,
    nth: u32,
    script: Script,
}

/// What a replay wants of a task, in its own order.
#[derive(Debug, Default)]
struct Script {
    /// (step, wait after it or 0, who runs).
    switches: VecDeque<(u64, u32, u32)>,
    end: Option<u32>,
    /// (step, how many-th after it, what, the value of a choice).
    draws: VecDeque<(u64, u32, Cow<'static, str>, Option<u64>)>,
}

/// Where a slice of the default schedule ended.
#[derive(Debug, Clone, Copy)]
pub(super) enum SliceEnd {
    Wait { at: u64, turn: u32 },
    End,
}

/// A turn of one task after the last scripted switch, and what could have been done otherwise in it.
#[derive(Debug)]
pub(super) struct Slice {
    pub(super) task: u32,
    /// Its steps in this turn.
    pub(super) steps: core::ops::RangeInclusive<u64>,
    /// Who could have run at each of them.
    pub(super) at_steps: Vec<u32>,
    pub(super) end: SliceEnd,
    /// Who could have run at the end, besides the one that did.
    pub(super) at_end: Vec<u32>,
}

/// A deviation as it is noted: a long run makes millions, so it is small and the names are elsewhere.
#[derive(Debug, Clone, Copy)]
struct Made {
    at: u64,
    task: u32,
    /// How many-th wait or draw after the step.
    turn: u32,
    /// Who runs, or the number of what was drawn.
    to: u32,
    what: What,
}

#[derive(Debug, Clone, Copy)]
enum What {
    Start,
    Switch,
    End,
    Chance,
    Pick,
}

impl Made {
    fn start(to: u32) -> Self {
        Made {
            at: 0,
            task: 0,
            turn: 0,
            to,
            what: What::Start,
        }
    }

    fn told(self, drawn: &[(&'static str, u64)]) -> Deviation {
        let Made {
            at,
            task,
            turn,
            to,
            what,
        } = self;
        match what {
            What::Start => Deviation::Start { to },
            What::Switch if turn == 0 => Deviation::Preempt { task, at, to },
            What::Switch => Deviation::GiveWay { task, at, turn, to },
            What::End => Deviation::End { task, to },
            What::Chance => Deviation::Chance {
                task,
                at,
                nth: turn,
                what: Cow::Borrowed(drawn[to as usize].0),
            },
            What::Pick => Deviation::Pick {
                task,
                at,
                nth: turn,
                value: drawn[to as usize].1,
                what: Cow::Borrowed(drawn[to as usize].0),
            },
        }
    }
}

/// What a run is asked to be.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub(super) from: From,
    pub(super) most: u64,
    pub(super) record: bool,
    pub(super) remember: bool,
    pub(super) slices: bool,
}

/// Where the decisions of a run come from.
#[derive(Debug, Clone)]
pub(super) enum From {
    Seed {
        base: Base,
        seed: u64,
        /// One preemption in this many steps; unused when ordered by clock.
        one_in: u32,
    },
    Script(Deviations),
}

/// The scheduler of one run.
#[derive(Debug)]
pub(super) struct Order {
    base: Base,
    seed: Option<u64>,
    source: Source,
    tasks: Vec<State>,
    running: usize,
    live: usize,
    /// Counts whenever somebody may have acted: who has looked since then need not look again.
    epoch: u64,
    /// Waits for something else since the last step.
    changes: u32,
    /// The running task's clock has passed its horizon.
    due: bool,
    /// Steps that the running task may take unasked.
    granted: u32,
    /// Steps and waits so far, and how many there may be.
    spent: u64,
    most: u64,
    switches: u64,
    /// Whether deviations are remembered, and those that were.
    remember: bool,
    made: Vec<Made>,
    /// What was drawn, by number: the rare part of `made`.
    drawn: Vec<(&'static str, u64)>,
    record: bool,
    lines: VecDeque<TraceLine>,
    dropped: u64,
    /// The first step of the current turn, and the turns so far, if they are wanted.
    first: u64,
    slices: Option<Vec<Slice>>,
    failed: Option<FailureKind>,
}

/// A run that is over.
pub(super) struct Outcome {
    pub(super) failed: Option<FailureKind>,
    pub(super) steps: u64,
    pub(super) switches: u64,
    pub(super) clocks: Vec<u64>,
    pub(super) deviations: Deviations,
    pub(super) trace: Trace,
    pub(super) slices: Vec<Slice>,
}

impl Order {
    pub(super) fn new(plan: Plan, names: Vec<String>) -> Self {
        let mut tasks: Vec<State> = names.into_iter().map(State::new).collect();
        let live = tasks.len();
        let mut running = 0;
        let mut made = Vec::new();
        let seed = match plan.from {
            From::Seed { seed, .. } => Some(seed),
            From::Script(_) => None,
        };
        let (base, source) = match plan.from {
            From::Seed { base, seed, one_in } => {
                let mut rng = fastrand::Rng::with_seed(seed);
                let mut until = u64::MAX;
                if base == Base::InOrder {
                    until = undisturbed(&mut rng, one_in);
                    let to = rng.u32(..u32::try_from(live).unwrap_or(u32::MAX).max(1));
                    if to != 0 {
                        made.push(Made::start(to));
                        running = to as usize;
                    }
                }
                (base, Source::Seed { rng, one_in, until })
            }
            From::Script(deviations) => {
                for deviation in deviations.list {
                    if let Deviation::Start { to } = deviation {
                        if made.is_empty() && to != 0 && (to as usize) < live {
                            made.push(Made::start(to));
                            running = to as usize;
                        }
                    } else {
                        State::script(&mut tasks, deviation);
                    }
                }
                for task in &mut tasks {
                    task.script.sort();
                }
                (deviations.base, Source::Script)
            }
        };
        Order {
            base,
            seed,
            source,
            tasks,
            running,
            live,
            epoch: 1,
            changes: 0,
            due: false,
            granted: 0,
            spent: 0,
            most: plan.most,
            switches: 0,
            remember: plan.remember,
            made,
            drawn: Vec::new(),
            record: plan.record,
            lines: VecDeque::new(),
            dropped: 0,
            first: 1,
            slices: plan.slices.then(Vec::new),
            failed: None,
        }
    }

    /// The task whose turn it is, right before it runs; `None` when there is none, because all have
    /// ended or the run has failed. Answers its count of held spin locks as well.
    #[inline]
    pub(super) fn begin_turn(&mut self) -> Option<(usize, u32)> {
        if self.live == 0 || self.failed.is_some() {
            return None;
        }
        let task = self.running;
        let state = &mut self.tasks[task];
        current::set_clock(state.clock);
        self.first = state.steps + 1;
        let depth = state.depth;
        match state.stopped {
            Stopped::Before => self.acted(),
            Stopped::AtStep(event) => {
                self.acted();
                self.tell(|task, clock| TraceLine::Did { task, clock, event });
            }
            Stopped::AtWait => {}
        }
        self.grant();
        Some((task, depth))
    }

    /// A task has suspended itself, with `depth` spin locks held, or has ended.
    #[inline]
    pub(super) fn end_turn(&mut self, task: usize, depth: u32, ended: Option<Ended>) {
        self.tasks[task].depth = depth;
        if let Some(how) = ended {
            self.ended(how);
        }
    }

    /// The running task is about to do `event`. Whether it must suspend itself.
    pub(super) fn at_step(&mut self, event: Event, may_switch: bool) -> bool {
        self.settle();
        self.acted();
        self.tasks[self.running].steps += 1;
        if !self.spend() {
            return true;
        }
        if let Some(to) = self.preempts(may_switch) {
            self.switch(to, Stopped::AtStep(event));
            return true;
        }
        self.tell(|task, clock| TraceLine::Did { task, clock, event });
        self.grant();
        false
    }

    /// Who runs instead of the task that is at a step.
    fn preempts(&mut self, may_switch: bool) -> Option<usize> {
        let task = self.running;
        let due = core::mem::take(&mut self.due);
        match &mut self.source {
            Source::Seed { rng, one_in, until } if self.base == Base::InOrder => {
                if *until > 0 {
                    *until -= 1;
                    return None;
                }
                *until = undisturbed(rng, *one_in);
                let to = may_switch.then(|| self.any_other()).flatten()?;
                self.deviated(What::Switch, self.tasks[task].steps, 0, index(to));
                Some(to)
            }
            _ => {
                let at = self.tasks[task].steps;
                if let Some(to) = self.scripted(at, 0).filter(|_| may_switch) {
                    self.deviated(What::Switch, at, 0, index(to));
                    return Some(to);
                }
                if self.base == Base::Clock && due && may_switch {
                    self.tasks[task].clock = current::now();
                    return self.lowest(true).filter(|&to| to != task);
                }
                None
            }
        }
    }

    /// The running task waits for `event`. Whether it must suspend itself.
    pub(super) fn at_wait(&mut self, event: Event) -> bool {
        self.settle();
        let task = self.running;
        let state = &mut self.tasks[task];
        state.clock = current::now();
        if state.anchor != state.steps {
            state.count_from_here();
        }
        state.turn += 1;
        let (at, turn) = (state.steps, state.turn);
        let before = state.waiting.replace(event);
        if before.is_some_and(|before| before != event)
            && self.changes < CHANGES * index(self.tasks.len())
        {
            self.changes += 1;
            self.epoch += 1;
        }
        if before != Some(event) {
            self.tell(|task, clock| TraceLine::Waits { task, clock, event });
        }
        let state = &mut self.tasks[task];
        if state.seen == self.epoch {
            state.looks += 1;
        } else {
            state.seen = self.epoch;
            state.looks = 1;
        }
        if !self.spend() {
            return true;
        }
        let Some(next) = self.next() else {
            return self.look_again();
        };
        let to = match self.source {
            Source::Seed { .. } if self.base == Base::InOrder => {
                let to = self.any_other().unwrap_or(next);
                if to != next {
                    self.deviated(What::Switch, at, turn, index(to));
                }
                to
            }
            _ => {
                self.end_slice(SliceEnd::Wait { at, turn }, next);
                let wanted = self.scripted(at, turn).filter(|&to| to != next);
                if let Some(to) = wanted {
                    self.deviated(What::Switch, at, turn, index(to));
                }
                wanted.unwrap_or(next)
            }
        };
        self.switch(to, Stopped::AtWait);
        true
    }

    /// Everybody has looked since anybody acted. Each looks a few times more before that is a
    /// deadlock, since to find what one waited for is not an action yet. Whether the running task
    /// must suspend itself.
    fn look_again(&mut self) -> bool {
        let to = self
            .others()
            .chain([self.running])
            .filter(|&j| self.tasks[j].live)
            .min_by_key(|&j| self.tasks[j].looks);
        match to {
            Some(to) if self.tasks[to].looks >= LOOKS => {
                self.failed = Some(FailureKind::Deadlock {
                    waiting: self
                        .tasks
                        .iter()
                        .filter(|state| state.live)
                        .filter_map(|state| {
                            Some(Waiting {
                                task: state.name.clone(),
                                on: state.waiting?,
                            })
                        })
                        .collect(),
                });
                true
            }
            Some(to) if to != self.running => {
                self.switch(to, Stopped::AtWait);
                true
            }
            _ => {
                self.grant();
                false
            }
        }
    }

    /// The running task's body is over.
    fn ended(&mut self, how: Ended) {
        self.settle();
        self.acted();
        let task = self.running;
        self.tell(|task, clock| TraceLine::Ended { task, clock });
        let state = &mut self.tasks[task];
        state.clock = current::now();
        state.live = false;
        self.live -= 1;
        if let Err(caught) = how {
            let Caught { message, place } = *caught;
            self.failed = Some(FailureKind::Panic {
                task: Some(state.name.clone()),
                message,
                place,
            });
            return;
        }
        let Some(next) = self.next() else {
            return;
        };
        let wanted = match self.source {
            Source::Seed { .. } if self.base == Base::InOrder => self.any_other(),
            _ => {
                self.end_slice(SliceEnd::End, next);
                let wanted = self.tasks[task].script.end.take();
                wanted.map(|to| to as usize).filter(|&to| self.can_go(to))
            }
        };
        let to = wanted.unwrap_or(next);
        if to != next {
            self.deviated(What::End, 0, 0, index(to));
        }
        self.switches += 1;
        self.running = to;
    }

    /// A seeded coin.
    pub(super) fn chance(&mut self, what: &'static str, one_in: u32) -> bool {
        let (task, at, nth) = self.draw();
        let hit = match &mut self.source {
            Source::Seed { rng, .. } => one_in > 0 && rng.u32(..one_in) == 0,
            Source::Script => {
                one_in > 0 && self.tasks[task].script.drawn(at, nth, what) == Some(None)
            }
        };
        if hit {
            self.epoch += 1;
            self.drew(What::Chance, at, nth, (what, 0));
            self.tell(|task, clock| TraceLine::Drew {
                task,
                clock,
                what,
                value: None,
            });
        }
        hit
    }

    /// A seeded choice.
    pub(super) fn pick(&mut self, what: &'static str, n: u64) -> u64 {
        let (task, at, nth) = self.draw();
        let value = match &mut self.source {
            Source::Seed { rng, .. } if n > 1 => rng.u64(..n),
            Source::Seed { .. } => 0,
            Source::Script => match self.tasks[task].script.drawn(at, nth, what) {
                Some(Some(value)) => value.min(n.saturating_sub(1)),
                _ => 0,
            },
        };
        if value != 0 {
            self.drew(What::Pick, at, nth, (what, value));
            self.tell(|task, clock| TraceLine::Drew {
                task,
                clock,
                what,
                value: Some(value),
            });
        }
        value
    }

    /// The running task's clock has passed its horizon: the next step is a decision.
    pub(super) fn past_horizon(&mut self) {
        self.settle();
        self.due = true;
        current::grant(0, u64::MAX);
    }

    /// The run is over, or given up.
    pub(super) fn outcome(self) -> Outcome {
        Outcome {
            failed: self.failed,
            steps: self.spent,
            switches: self.switches,
            clocks: self.tasks.iter().map(|state| state.clock).collect(),
            deviations: Deviations {
                base: self.base,
                list: self
                    .made
                    .iter()
                    .map(|made| made.told(&self.drawn))
                    .collect(),
            },
            trace: Trace {
                dropped: self.dropped,
                lines: self.lines.into(),
                names: self.tasks.into_iter().map(|state| state.name).collect(),
            },
            slices: self.slices.unwrap_or_default(),
        }
    }

    /// What has gone wrong so far, and the seed.
    pub(super) fn failure(&self) -> Option<String> {
        self.failed.as_ref().map(ToString::to_string)
    }

    pub(super) fn seed(&self) -> Option<u64> {
        self.seed
    }

    /// The tasks that have not ended.
    pub(super) fn unended(&self) -> Vec<(usize, u32)> {
        let live = self.tasks.iter().enumerate().filter(|(_, s)| s.live);
        live.map(|(task, state)| (task, state.depth)).collect()
    }

    /// Puts down in the books which of the granted steps the running task has taken.
    fn settle(&mut self) {
        let taken = self.granted.saturating_sub(current::take_left());
        self.granted = 0;
        if taken == 0 {
            return;
        }
        let taken = u64::from(taken);
        self.tasks[self.running].steps += taken;
        self.spent += taken;
        if let Source::Seed { until, .. } = &mut self.source {
            *until = until.saturating_sub(taken);
        }
        self.acted();
    }

    /// Lets the running task go on alone for as long as nothing is to be decided.
    fn grant(&mut self) {
        let state = &self.tasks[self.running];
        let undecided = match &self.source {
            Source::Seed { until, .. } => *until,
            Source::Script => match state.script.switches.front() {
                Some(&(at, ..)) => at.saturating_sub(state.steps + 1),
                None => u64::MAX,
            },
        };
        let left = if self.record || self.due {
            0
        } else {
            undecided.min(self.most.saturating_sub(self.spent))
        };
        self.granted = u32::try_from(left).unwrap_or(u32::MAX - 1);
        let horizon = match self.base {
            Base::InOrder => u64::MAX,
            Base::Clock => self.horizon(),
        };
        current::grant(self.granted, horizon);
    }

    /// Up to which clock value nobody else's turn comes: that of the next one that does not wait. One
    /// that waits looks again whenever something has been charged, be it nothing: what was done at this very
    /// moment is found before more is charged.
    fn horizon(&self) -> u64 {
        let now = current::now();
        let others = self.others().map(|j| &self.tasks[j]).filter(|s| s.live);
        others.fold(u64::MAX, |horizon, state| {
            horizon.min(match state.waiting {
                None => state.clock,
                Some(_) => state.clock.max(now).saturating_sub(1),
            })
        })
    }

    /// One more step or wait. False if that was one too many.
    fn spend(&mut self) -> bool {
        self.spent += 1;
        if self.spent > self.most {
            self.failed = Some(FailureKind::TooManySteps { most: self.most });
            return false;
        }
        true
    }

    /// The running task may have changed what others wait for.
    fn acted(&mut self) {
        self.epoch += 1;
        self.changes = 0;
        self.tasks[self.running].waiting = None;
    }

    /// The other tasks, the next in order first.
    fn others(&self) -> impl Iterator<Item = usize> + Clone + use<> {
        let after = self.running + 1..self.tasks.len();
        after.chain(0..self.running)
    }

    /// Whether a turn of `task` may come to something: it has not looked since anybody acted.
    fn can_go(&self, task: usize) -> bool {
        self.tasks.get(task).is_some_and(|state| {
            state.live && (state.waiting.is_none() || state.seen != self.epoch)
        })
    }

    /// Who runs by default when the running task cannot go on.
    fn next(&mut self) -> Option<usize> {
        match self.base {
            Base::InOrder => self.others().find(|&j| self.can_go(j)),
            Base::Clock => self.lowest(false),
        }
    }

    /// The task with the lowest clock. One that waits comes before others of the same time, and its
    /// clock is pulled up to the lowest of those that do not wait.
    fn lowest(&mut self, with_running: bool) -> Option<usize> {
        let (mut ready, mut waits) = (None, None);
        let mut look = |j: usize, state: &State, epoch| {
            let best = match state.waiting {
                None => &mut ready,
                Some(_) if state.seen != epoch => &mut waits,
                Some(_) => return,
            };
            if state.live && best.is_none_or(|(clock, _)| state.clock < clock) {
                *best = Some((state.clock, j));
            }
        };
        if with_running {
            look(self.running, &self.tasks[self.running], self.epoch);
        }
        for j in self.others() {
            look(j, &self.tasks[j], self.epoch);
        }
        match (ready, waits) {
            (Some((at, _)), Some((clock, j))) if clock <= at => {
                self.tasks[j].clock = at;
                Some(j)
            }
            (Some((_, j)), _) | (None, Some((_, j))) => Some(j),
            (None, None) => None,
        }
    }

    /// Any other task that can go on, each as likely.
    fn any_other(&mut self) -> Option<usize> {
        let others = index(self.tasks.len()).saturating_sub(1);
        let Source::Seed { rng, .. } = &mut self.source else {
            return None;
        };
        if others == 0 {
            return None;
        }
        // A guess first: counting those that can costs more the more there are.
        let guess = rng.u32(..others) as usize;
        let guess = guess + usize::from(guess >= self.running);
        if self.can_go(guess) {
            return Some(guess);
        }
        let able = index(self.others().filter(|&j| self.can_go(j)).count());
        if able == 0 {
            return None;
        }
        let Source::Seed { rng, .. } = &mut self.source else {
            return None;
        };
        let nth = rng.u32(..able) as usize;
        self.others().filter(|&j| self.can_go(j)).nth(nth)
    }

    /// Whom the script wants to run at this place, if it can.
    fn scripted(&mut self, at: u64, turn: u32) -> Option<usize> {
        let task = self.running;
        let switches = &mut self.tasks[task].script.switches;
        while switches.front().is_some_and(|f| (f.0, f.1) < (at, turn)) {
            switches.pop_front();
        }
        let to = switches.pop_front_if(|f| (f.0, f.1) == (at, turn))?.2 as usize;
        (to != task && self.can_go(to)).then_some(to)
    }

    /// Notes a switch. What could be done otherwise before it is no longer of interest.
    fn deviated(&mut self, what: What, at: u64, turn: u32, to: u32) {
        if !self.remember {
            return;
        }
        self.made.push(Made {
            at,
            task: index(self.running),
            turn,
            to,
            what,
        });
        if let Some(slices) = &mut self.slices {
            slices.clear();
        }
    }

    /// Notes a draw.
    fn drew(&mut self, what: What, at: u64, nth: u32, drawn: (&'static str, u64)) {
        if !self.remember {
            return;
        }
        self.made.push(Made {
            at,
            task: index(self.running),
            turn: nth,
            to: index(self.drawn.len()),
            what,
        });
        self.drawn.push(drawn);
    }

    /// The running task stops here, and `to` runs.
    fn switch(&mut self, to: usize, stopped: Stopped) {
        let state = &mut self.tasks[self.running];
        state.clock = current::now();
        state.stopped = stopped;
        self.switches += 1;
        self.running = to;
    }

    /// A turn ends with the default choice of `next`.
    fn end_slice(&mut self, end: SliceEnd, next: usize) {
        if self.slices.is_none() {
            return;
        }
        let at_end = self.others().filter(|&j| j != next && self.can_go(j));
        let slice = Slice {
            task: index(self.running),
            steps: self.first..=self.tasks[self.running].steps,
            at_steps: self
                .others()
                .filter(|&j| self.tasks[j].live)
                .map(index)
                .collect(),
            end,
            at_end: at_end.map(index).collect(),
        };
        if let Some(slices) = &mut self.slices {
            slices.push(slice);
        }
    }

    /// The running task draws: its number, its step, and which draw after that step this is.
    fn draw(&mut self) -> (usize, u64, u32) {
        let taken = self.granted.saturating_sub(current::left());
        let state = &mut self.tasks[self.running];
        let at = state.steps + u64::from(taken);
        if state.anchor != at {
            state.anchor = at;
            state.turn = 0;
            state.nth = 0;
        }
        state.nth += 1;
        (self.running, at, state.nth)
    }

    /// A line of the trace, if it is recorded.
    fn tell(&mut self, line: impl FnOnce(u32, u64) -> TraceLine) {
        if !self.record {
            return;
        }
        if self.lines.len() == LINES {
            self.lines.pop_front();
            self.dropped += 1;
        }
        self.lines
            .push_back(line(index(self.running), current::now()));
    }
}

impl State {
    fn new(name: String) -> Self {
        State {
            name,
            live: true,
            stopped: Stopped::Before,
            steps: 0,
            clock: 0,
            depth: 0,
            waiting: None,
            seen: 0,
            looks: 0,
            anchor: 0,
            turn: 0,
            nth: 0,
            script: Script::default(),
        }
    }

    fn count_from_here(&mut self) {
        self.anchor = self.steps;
        self.turn = 0;
        self.nth = 0;
    }

    /// Files a deviation with its task. One of a task that does not exist is none.
    fn script(tasks: &mut [State], deviation: Deviation) {
        let (Deviation::Start { to: task }
        | Deviation::Preempt { task, .. }
        | Deviation::GiveWay { task, .. }
        | Deviation::End { task, .. }
        | Deviation::Chance { task, .. }
        | Deviation::Pick { task, .. }) = deviation;
        let Some(state) = tasks.get_mut(task as usize) else {
            return;
        };
        let script = &mut state.script;
        match deviation {
            Deviation::Start { .. } => {}
            Deviation::Preempt { at, to, .. } => script.switches.push_back((at, 0, to)),
            Deviation::GiveWay { at, turn, to, .. } => script.switches.push_back((at, turn, to)),
            Deviation::End { to, .. } => {
                script.end.get_or_insert(to);
            }
            Deviation::Chance { at, nth, what, .. } => {
                script.draws.push_back((at, nth, what, None));
            }
            Deviation::Pick {
                at,
                nth,
                value,
                what,
                ..
            } => script.draws.push_back((at, nth, what, Some(value))),
        }
    }
}

impl Script {
    fn sort(&mut self) {
        let key = |f: &(u64, u32, u32)| (f.0, f.1);
        self.switches.make_contiguous().sort_by_key(key);
        self.draws
            .make_contiguous()
            .sort_by_key(|draw| (draw.0, draw.1));
    }

    /// What was drawn here: `Some(None)` for heads.
    fn drawn(&mut self, at: u64, nth: u32, what: &str) -> Option<Option<u64>> {
        while self.draws.front().is_some_and(|f| (f.0, f.1) < (at, nth)) {
            self.draws.pop_front();
        }
        let draw = self
            .draws
            .pop_front_if(|f| (f.0, f.1) == (at, nth) && f.2 == what)?;
        Some(draw.3)
    }
}

/// How many steps pass before one is preempted, one in `one_in` on average. Whole numbers only,
/// so that every platform draws the same: half as likely for each further two thirds of `one_in`.
fn undisturbed(rng: &mut fastrand::Rng, one_in: u32) -> u64 {
    match one_in {
        0 => u64::MAX,
        1 => 0,
        _ => {
            // The mean is 3/2 of `half`, less the half that a whole number loses.
            let half = (u64::from(one_in) * 2 - 1).div_ceil(3);
            let halves = rng.u64(..).trailing_zeros();
            u64::from(halves) * half + rng.u64(..half)
        }
    }
}

/// Tasks are counted in `u32` wherever they are written down.
#[expect(
    clippy::cast_possible_truncation,
    reason = "no run has 4 billion stacks"
)]
fn index(task: usize) -> u32 {
    task as u32
}
