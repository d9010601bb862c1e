//! How often each step was taken.

use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering};

use crate::observe::event::{Action, Event, Probe};

/// One more than the largest number of an [`Action`].
const NUMBERS: usize = 17;

const _: () = {
    let mut at = 0;
    while at < Action::ALL.len() {
        assert!((Action::ALL[at] as usize) < NUMBERS);
        at += 1;
    }
};

/// A [`Probe`] that counts events by [`Action`], and completions with an error besides.
///
/// ```
/// use pageless_block::{Action, EventCounts};
/// let counts = EventCounts::new();
/// assert_eq!(counts.get(Action::Issue), 0);
/// ```
#[derive(Debug, Default)]
pub struct EventCounts {
    by_number: [AtomicU64; NUMBERS],
    errors: AtomicU64,
}

impl EventCounts {
    /// Nothing counted yet.
    pub const fn new() -> Self {
        Self {
            by_number: [const { AtomicU64::new(0) }; NUMBERS],
            errors: AtomicU64::new(0),
        }
    }

    /// How often `action` happened.
    pub fn get(&self, action: Action) -> u64 {
        // Relaxed here and below: a number and nothing else, no other memory is read on the strength
        // of it. Whoever joined the threads that counted sees all they did.
        self.by_number
            .get(action as usize)
            .map_or(0, |count| count.load(Ordering::Relaxed))
    }

    /// How many completions had an error.
    pub fn errors(&self) -> u64 {
        self.errors.load(Ordering::Relaxed)
    }
}

impl Probe for EventCounts {
    #[inline]
    fn event(&self, event: &Event) {
        if let Some(count) = self.by_number.get(event.action as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        if event.action == Action::Complete && event.error.is_some() {
            self.errors.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Every action that happened, with its letter in traces: `Q 10, G 10, D 10, C 10 (1 failed)`.
impl fmt::Display for EventCounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut between = "";
        for action in Action::ALL {
            let count = self.get(action);
            if count == 0 {
                continue;
            }
            write!(f, "{between}{} {count}", letter(action))?;
            if action == Action::Complete && self.errors() != 0 {
                write!(f, " ({} failed)", self.errors())?;
            }
            between = ", ";
        }
        if between.is_empty() {
            f.write_str("no events")?;
        }
        Ok(())
    }
}

/// The letter that stands for `action` in the output of `blkparse`, which has none for an abort.
const fn letter(action: Action) -> &'static str {
    match action {
        Action::Queue => "Q",
        Action::BackMerge => "M",
        Action::FrontMerge => "F",
        Action::GetRequest => "G",
        Action::SleepRequest => "S",
        Action::Requeue => "R",
        Action::Issue => "D",
        Action::Complete => "C",
        Action::Plug => "P",
        Action::Unplug => "U",
        Action::Insert => "I",
        Action::Split => "X",
        Action::Bounce => "B",
        Action::Remap => "A",
        Action::Abort => "abort",
    }
}
