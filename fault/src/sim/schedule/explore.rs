//! Every schedule that deviates from the default one in few places, one after the other.
#![forbid(unsafe_code)]

use super::deviation::{Deviation, Deviations};
use super::failure::{Failure, FailureKind};
use super::order::{Slice, SliceEnd};
use super::run::{STEPS_AT_MOST, Schedule};
use super::shrink::shrink;
use super::task::Program;

/// What exploring has shown.
#[derive(Debug, Clone)]
pub struct Explored {
    /// Different schedules that were run.
    pub schedules: u64,
    /// Whether these are all there are within the bound. False after a failure.
    pub complete: bool,
    /// The first failure, shrunk and traced.
    pub failure: Option<Box<Failure>>,
}

/// Runs the program that `make` makes anew for each run under every schedule that differs from the
/// default one in at most `bound` places: at a step another task runs, or when a task waits or ends
/// another one than the next in order. Ends at the first failure, or after `most` runs.
///
/// Coins and choices keep their default. No schedule is run twice: each list of deviations is
/// extended only by places behind its last one.
pub fn explore<'a, P: Into<Program<'a>>>(bound: u32, most: u64, make: impl Fn() -> P) -> Explored {
    let explored = search(bound, most, STEPS_AT_MOST, &make, None);
    Explored {
        failure: explored
            .failure
            .map(|failure| shrink(failure, make).failure),
        ..explored
    }
}

/// [`explore`], with the failure as it was found. With a kind that is `wanted`, failures of others are
/// nothing to stop for.
pub(super) fn search<'a, P: Into<Program<'a>>>(
    bound: u32,
    most: u64,
    steps: u64,
    make: impl Fn() -> P,
    wanted: Option<&FailureKind>,
) -> Explored {
    let mut exploring = Exploring {
        make,
        most,
        steps,
        wanted,
        explored: Explored {
            schedules: 0,
            complete: true,
            failure: None,
        },
    };
    exploring.below(&mut Vec::new(), bound);
    exploring.explored
}

struct Exploring<'w, M> {
    make: M,
    /// Runs, and steps of each.
    most: u64,
    steps: u64,
    wanted: Option<&'w FailureKind>,
    explored: Explored,
}

impl<'a, P: Into<Program<'a>>, M: Fn() -> P> Exploring<'_, M> {
    /// Runs `list`, and all that `bound` more deviations behind its last make of it. False to stop.
    fn below(&mut self, list: &mut Vec<Deviation>, bound: u32) -> bool {
        if self.explored.schedules == self.most {
            self.explored.complete = false;
            return false;
        }
        self.explored.schedules += 1;
        let deviations = Deviations {
            list: list.clone(),
            ..Deviations::default()
        };
        let mut schedule = Schedule::replay(&deviations).steps_at_most(self.steps);
        if bound > 0 {
            schedule = schedule.record_slices();
        }
        match schedule.run_sliced((self.make)().into()) {
            Err(failure)
                if self
                    .wanted
                    .is_some_and(|wanted| !failure.kind.is_like(wanted)) =>
            {
                true
            }
            Err(failure) => {
                self.explored.complete = false;
                self.explored.failure = Some(failure);
                false
            }
            Ok((_, slices)) => {
                bound == 0
                    || places(&slices).all(|deviation| {
                        list.push(deviation);
                        let go_on = self.below(list, bound - 1);
                        list.pop();
                        go_on
                    })
            }
        }
    }
}

/// Every deviation that the turns allow.
fn places(slices: &[Slice]) -> impl Iterator<Item = Deviation> + '_ {
    slices.iter().flat_map(|slice| {
        let task = slice.task;
        let at_steps = slice.steps.clone().flat_map(move |at| {
            let others = slice.at_steps.iter();
            others.map(move |&to| Deviation::Preempt { task, at, to })
        });
        let at_end = slice.at_end.iter().map(move |&to| match slice.end {
            SliceEnd::Wait { at, turn } => Deviation::GiveWay { task, at, turn, to },
            SliceEnd::End => Deviation::End { task, to },
        });
        at_steps.chain(at_end)
    })
}
