//! Plugging: holding requests back for a moment, so that neighbours can join them.

use core::ops::{Deref, DerefMut};

use crate::device::BlockDevice;
use crate::observe::event::Action;
use crate::queue::context::Context;

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
        let within = core::mem::replace(&mut self.plugged, true);
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
