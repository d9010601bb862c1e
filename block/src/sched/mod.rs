//! Who goes first: schedulers.

pub(crate) mod mq_deadline;
pub(crate) mod shared;

use crate::clock::Nanos;
use crate::limits::Limits;
use crate::request::Request;
use crate::request::merge::{Incoming, Merge};

/// A scheduler: takes requests in, joins bios to them, and says which one the device gets next.
///
/// A queue has one at most, for all its hardware queues, and calls it under a lock. It must give out
/// every request it has taken in, each once; it may not complete them.
///
/// ```
/// use pageless_block::{Elevator, Nanos, Request};
///
/// /// The last one first.
/// #[derive(Default)]
/// struct Stack(Vec<Request>);
///
/// impl Elevator for Stack {
///     fn name(&self) -> &'static str {
///         "stack"
///     }
///
///     fn insert(&mut self, request: Request, _now: Nanos) -> Result<(), Request> {
///         self.0.push(request);
///         Ok(())
///     }
///
///     fn dispatch(&mut self, _now: Nanos) -> Option<Request> {
///         self.0.pop()
///     }
///
///     fn len(&self) -> usize {
///         self.0.len()
///     }
/// }
/// ```
pub trait Elevator: Send {
    /// What it is called.
    fn name(&self) -> &'static str;

    /// Takes a request in.
    ///
    /// # Errors
    /// The request, if there is no room: it goes to the device directly.
    fn insert(&mut self, request: Request, now: Nanos) -> Result<(), Request>;

    /// The request the device is to get next. `None` if there is none, or none yet.
    fn dispatch(&mut self, now: Nanos) -> Option<Request>;

    /// How many requests it has.
    fn len(&self) -> usize;

    /// Whether it has none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Joins a bio to one of its requests, with [`Request::try_merge`].
    ///
    /// # Errors
    /// The bio, if it fits none. It gets a request of its own then.
    fn merge(&mut self, incoming: Incoming, limits: &Limits) -> Result<Merge, Incoming> {
        let _ = limits;
        Err(incoming)
    }
}
