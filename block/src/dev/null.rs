//! A device that does nothing, successfully.

use crate::device::{BlockDevice, DeviceInfo};
use crate::request::Request;
use crate::status::BlkError;

/// Completes every request at once and moves no bytes: what the path itself costs.
#[derive(Clone, Copy, Debug)]
pub struct NullDevice {
    info: DeviceInfo,
}

impl NullDevice {
    /// A device with this capacity and these limits.
    pub const fn new(info: DeviceInfo) -> Self {
        Self { info }
    }
}

impl BlockDevice for NullDevice {
    #[inline]
    fn info(&self) -> DeviceInfo {
        self.info
    }

    #[inline]
    fn execute(&self, _request: &Request) -> Result<(), BlkError> {
        Ok(())
    }
}
