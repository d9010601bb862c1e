//! Plugging: holding requests back for a moment, so that neighbours can join them.

use core::mem;
use core::ops::{Deref, DerefMut};

use crate::device::BlockDevice;
use crate::observe::event::Action;
use crate::queue::context::Context;
use crate::request::Request;

/// As many requests a plug holds back at most (`BLK_MAX_REQUEST_COUNT`).
pub(super) const PLUG_REQUESTS: usize = 32;

/// A request this long makes a plug let go (`BLK_PLUG_FLUSH_SIZE`).
pub(super) const PLUG_FLUSH_SIZE: u64 = 128 << 10;

/// A [`Context`] that holds requests back until this is dropped, or 32 of them have come together, or
/// one is 128 KiB long, or somebody reaps and nothing is finished. Bios that continue a request which
/// is held back join it. Made by [`Context::plug`]; flushes are not held back. A plug within another does nothing:
/// the outer one decides, as in Linux.
#[derive(Debug)]
#[must_use = "dropping it lets the requests go"]
pub struct Plug<'c, 'q, D: BlockDevice> {
    context: &'c mut Context<'q, D>,
    /// Whether there is a plug around this one.
    within: bool,
}

impl<'q, D: BlockDevice> Context<'q, D> {
    /// Holds requests back from now on.
    pub fn plug(&mut self) -> Plug<'_, 'q, D> {
        let within = mem::replace(&mut self.plugged, true);
        if !within {
            self.tell_plug(Action::Plug, 0);
        }
        Plug {
            context: self,
            within,
        }
    }
}

impl<'q, D: BlockDevice> Deref for Plug<'_, 'q, D> {
    type Target = Context<'q, D>;

    fn deref(&self) -> &Context<'q, D> {
        self.context
    }
}

impl<'q, D: BlockDevice> DerefMut for Plug<'_, 'q, D> {
    fn deref_mut(&mut self) -> &mut Context<'q, D> {
        self.context
    }
}

impl<D: BlockDevice> Drop for Plug<'_, '_, D> {
    fn drop(&mut self) {
        if self.within {
            return;
        }
        self.context.plugged = false;
        self.context.unplug();
    }
}

impl<'q, D: BlockDevice> Context<'q, D> {
    pub(super) fn hold_back(&mut self, request: Request) {
        let long = request.len().get() >= PLUG_FLUSH_SIZE;
        self.plug.push(request);
        if long || self.plug.len() >= PLUG_REQUESTS {
            self.unplug();
        }
    }

    /// Lets go of what is held back.
    pub(super) fn unplug(&mut self) {
        if self.plug.is_empty() {
            return;
        }
        self.tell_plug(Action::Unplug, self.plug.len() as u64);
        let mut plug = mem::take(&mut self.plug);
        if self.queue.elevator.is_some() {
            for request in plug.drain(..) {
                self.insert(request);
            }
            self.run_elevator();
        } else {
            for request in plug.drain(..) {
                self.send(request);
            }
        }
        // Its room is used again.
        if self.plug.is_empty() {
            self.plug = plug;
        }
    }
}
