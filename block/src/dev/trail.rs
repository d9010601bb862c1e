//! Sending a request to another place, and telling whoever looks on.

use alloc::sync::Arc;
use core::fmt;

use crate::clock::{Clock, Nanos};
use crate::observe::event::{Action, Event, Probe};
use crate::position::BytePos;
use crate::request::Request;
use crate::status::BlkError;

/// Who looks on at a driver that passes requests on. Nobody, at first.
#[derive(Clone, Default)]
pub(super) struct Trail {
    probe: Option<Arc<dyn Probe>>,
    clock: Option<Arc<dyn Clock>>,
}

impl Trail {
    pub(super) fn new(probe: Arc<dyn Probe>, clock: Option<Arc<dyn Clock>>) -> Self {
        Self {
            probe: Some(probe),
            clock,
        }
    }

    /// Sends `request` to `position` of the device below.
    #[inline]
    pub(super) fn remap(&self, request: &mut Request, position: BytePos) -> Result<(), BlkError> {
        let from = request.sector();
        request.remap(position)?;
        self.tell(Action::Remap, request, from.get());
        Ok(())
    }

    /// Tells of a step that `request` has taken.
    #[inline]
    pub(super) fn tell(&self, action: Action, request: &Request, detail: u64) {
        if let Some(probe) = &self.probe {
            probe.event(&self.event(action, request, detail));
        }
    }

    #[cold]
    fn event(&self, action: Action, request: &Request, detail: u64) -> Event {
        Event {
            action,
            time: self.clock.as_ref().map_or(Nanos::ZERO, |clock| clock.now()),
            queue: request.queue(),
            // As the queue counts its contexts for those who look on.
            context: request.0.context as u16,
            tag: Some(request.tag()),
            op: request.op(),
            flags: request.flags(),
            priority: request.priority(),
            sector: request.sector(),
            len: request.len(),
            error: None,
            detail,
        }
    }
}

impl fmt::Debug for Trail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.probe {
            Some(_) => f.write_str("Trail(watched)"),
            None => f.write_str("Trail"),
        }
    }
}
