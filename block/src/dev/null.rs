//! A device that does nothing, successfully; and under it one with null_blk's knobs.

pub(crate) mod blk;
pub(crate) mod config;
pub(crate) mod inject;

use crate::device::{BlockDevice, Submitted};
use crate::limits::Limits;
use crate::request::Request;

/// Completes every request at once and moves no bytes: what the path itself costs.
#[derive(Clone, Copy, Debug)]
pub struct NullDevice {
    limits: Limits,
}

impl NullDevice {
    /// A device with this capacity and these limits.
    pub const fn new(limits: Limits) -> Self {
        Self { limits }
    }
}

impl BlockDevice for NullDevice {
    #[inline]
    fn limits(&self) -> Limits {
        self.limits
    }

    #[inline]
    fn submit(&self, request: Request) -> Submitted {
        request.run(|_| Ok(()))
    }
}
