//! What a run is made of: tasks, the events they announce, and a check at the end.
#![forbid(unsafe_code)]

use core::fmt;

/// An observable action: what is done, and to which of its kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Event {
    /// What is done: `"clear entry"`.
    pub what: &'static str,
    /// To which: an index, an address of the model. Never an address of this process, which would
    /// differ from run to run.
    pub of: u64,
}

impl Event {
    /// What is done to nothing in particular.
    pub const NOTHING: u64 = u64::MAX;

    /// `what`, done to `of`.
    #[inline]
    #[must_use]
    pub const fn new(what: &'static str, of: u64) -> Self {
        Event { what, of }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.of {
            Event::NOTHING => f.write_str(self.what),
            of => write!(f, "{} {of:#x}", self.what),
        }
    }
}

/// Synchronous code that runs interleaved with others: a simulated CPU, say.
pub struct Task<'a> {
    pub(super) name: String,
    pub(super) body: Box<dyn FnOnce() + 'a>,
    pub(super) hooks: Hooks<'a>,
}

/// What runs around every turn of a task.
pub(super) struct Hooks<'a> {
    pub(super) on_resume: Option<Box<dyn Fn() + 'a>>,
    pub(super) on_suspend: Option<Box<dyn Fn() + 'a>>,
}

impl<'a> Task<'a> {
    /// A task called `name` in traces and failures.
    pub fn new(name: impl Into<String>, body: impl FnOnce() + 'a) -> Self {
        Task {
            name: name.into(),
            body: Box::new(body),
            hooks: Hooks {
                on_resume: None,
                on_suspend: None,
            },
        }
    }

    /// `hook` runs right before every turn of the task, its unwinding included: the place to set
    /// what the task takes for its thread's own, such as the current CPU. A hook does not step or wait.
    #[must_use]
    pub fn on_resume(mut self, hook: impl Fn() + 'a) -> Self {
        self.hooks.on_resume = Some(Box::new(hook));
        self
    }

    /// `hook` runs right after every turn of the task: once for each `on_resume`.
    #[must_use]
    pub fn on_suspend(mut self, hook: impl Fn() + 'a) -> Self {
        self.hooks.on_suspend = Some(Box::new(hook));
        self
    }
}

impl fmt::Debug for Task<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Task")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// The tasks of a run, and what must hold when all of them have ended.
///
/// A list of tasks is a program without a check; a pair of tasks and a closure is one with it.
pub struct Program<'a> {
    pub(super) tasks: Vec<Task<'a>>,
    pub(super) check: Option<Box<dyn FnOnce() + 'a>>,
}

impl<'a> From<Vec<Task<'a>>> for Program<'a> {
    fn from(tasks: Vec<Task<'a>>) -> Self {
        Program { tasks, check: None }
    }
}

impl<'a, C: FnOnce() + 'a> From<(Vec<Task<'a>>, C)> for Program<'a> {
    fn from((tasks, check): (Vec<Task<'a>>, C)) -> Self {
        Program {
            tasks,
            check: Some(Box::new(check)),
        }
    }
}

impl fmt::Debug for Program<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Program")
            .field("tasks", &self.tasks)
            .finish_non_exhaustive()
    }
}
