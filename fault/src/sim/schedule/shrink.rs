//! From the many deviations of a random run that failed to the few that it failed for.
#![forbid(unsafe_code)]

use core::fmt;

use super::deviation::{Base, Deviation, Deviations};
use super::explore;
use super::failure::Failure;
use super::run::Schedule;
use super::task::Program;

/// How many switches at other places are looked for, and in how many runs for each number of them.
const MOVED: usize = 2;
const RUNS_TO_MOVE: u64 = 2000;

/// A failure with no deviation too many.
#[derive(Debug, Clone)]
pub struct Shrunk {
    /// The failure of the last run, traced. Its deviations are the shrunk ones.
    pub failure: Box<Failure>,
    /// How many runs it took.
    pub runs: u64,
}

impl fmt::Display for Shrunk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.failure)
    }
}

/// Leaves out deviations of `failure` for as long as the program that `make` makes anew for each
/// run still fails [alike](super::FailureKind::is_like): halves of the list first, then smaller and
/// smaller parts, then single ones. None of those that remain can be left out alone. If they are few,
/// and all of them switches, it also looks for fewer of them at other places.
///
/// `make` must make the same program each time; if `failure` cannot be had again at all, it comes
/// back as it was.
pub fn shrink<'a, P: Into<Program<'a>>>(failure: Box<Failure>, make: impl Fn() -> P) -> Shrunk {
    let mut search = Search {
        // A candidate that does not fail should not spin much longer than the failure took.
        most: failure
            .steps_at_most
            .min(failure.steps.saturating_mul(4).saturating_add(10_000)),
        failure,
        make,
        runs: 0,
    };
    if search.again() {
        search.halve();
        search.elsewhere();
        let found = search.failure.deviations.list.clone();
        search.fails(found, true);
    }
    Shrunk {
        failure: search.failure,
        runs: search.runs,
    }
}

struct Search<M> {
    /// The shortest so far.
    failure: Box<Failure>,
    make: M,
    most: u64,
    runs: u64,
}

impl<'a, P: Into<Program<'a>>, M: Fn() -> P> Search<M> {
    /// Whether the failure can be had again, with its deviations in any case.
    fn again(&mut self) -> bool {
        self.runs += 1;
        match self.failure.schedule().run((self.make)()) {
            Err(again) if again.kind.is_like(&self.failure.kind) => {
                self.failure = again;
                true
            }
            _ => false,
        }
    }

    /// Whether `list` fails alike; then it is the new shortest. What of it was not followed is gone.
    fn fails(&mut self, list: Vec<Deviation>, traced: bool) -> bool {
        let deviations = Deviations {
            base: self.failure.deviations.base,
            list,
        };
        self.runs += 1;
        let again = Schedule::replay(&deviations)
            .steps_at_most(self.most)
            .record_trace(traced)
            .run((self.make)());
        match again {
            Err(again) if again.kind.is_like(&self.failure.kind) => {
                *self.failure = Failure {
                    seed: self.failure.seed,
                    preempt_one_in: self.failure.preempt_one_in,
                    ..*again
                };
                true
            }
            _ => false,
        }
    }

    /// Looks for a list with fewer switches that is not a part of this one: one that lets the first
    /// task run first, say. Only where that is cheap.
    fn elsewhere(&mut self) {
        let deviations = &self.failure.deviations;
        let switches = deviations.switches();
        if switches != deviations.list.len() || deviations.base != Base::InOrder {
            return;
        }
        for bound in (1..switches).take(MOVED) {
            let bound = u32::try_from(bound).unwrap_or(u32::MAX);
            let wanted = self.failure.kind.clone();
            let explored =
                explore::search(bound, RUNS_TO_MOVE, self.most, &self.make, Some(&wanted));
            self.runs += explored.schedules;
            if let Some(failure) = explored.failure {
                self.fails(failure.deviations.list, false);
                return self.halve();
            }
        }
    }

    /// Delta debugging: parts of half the list, of a quarter, ... of one, until no single one can go.
    fn halve(&mut self) {
        let mut part = self.failure.deviations.list.len().div_ceil(2);
        while part > 0 {
            let mut shorter = false;
            // From the end: what comes late in a run decides little of the rest of it.
            let mut end = self.failure.deviations.list.len();
            while end > 0 {
                let list = &self.failure.deviations.list;
                end = end.min(list.len());
                let start = end.saturating_sub(part);
                let rest = [&list[..start], &list[end..]].concat();
                let before = list.len();
                shorter |= self.fails(rest, false) && self.failure.deviations.list.len() < before;
                end = start;
            }
            // Without it something else may have become superfluous as well.
            if part > 1 || !shorter {
                part /= 2;
            }
        }
    }
}
