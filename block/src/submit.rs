//! The call that waits.

use crate::bio::Bio;
use crate::bio::completion::Completion;
use crate::device::BlockDevice;
use crate::queue::context::Rejected;
use crate::queue::{QueueError, RequestQueue};
use crate::request::QueueId;

/// Carries `bio` out on `device` and returns when it is done, through a queue made for it alone. For
/// set-up and tests: a loop keeps a queue.
///
/// # Errors
/// [`SubmitError`].
///
/// ```
/// use pageless_block::{Bio, Limits, NullDevice, submit_sync};
/// use pageless_pfn::ByteLen;
/// let device = NullDevice::new(Limits::new(ByteLen::new(1 << 20)));
/// assert!(submit_sync(&device, Bio::flush()).unwrap().result().is_ok());
/// ```
pub fn submit_sync<D: BlockDevice + ?Sized>(
    device: &D,
    bio: impl Into<Bio>,
) -> Result<Completion, SubmitError> {
    let queue = RequestQueue::with_depth(device, 1)?;
    let mut context = queue.context(QueueId::new(0))?;
    let (bio, mut ticket) = bio.into().with_ticket();
    context.submit(bio)?;
    loop {
        if let Some(completion) = ticket.try_take() {
            return Ok(completion);
        }
        context.poll();
        core::hint::spin_loop();
    }
}

/// Why a bio was not carried out at all.
#[derive(Debug, thiserror::Error)]
pub enum SubmitError {
    /// The device's limits make no sense.
    #[error(transparent)]
    Queue(#[from] QueueError),
    /// The bio makes no sense on any device; here it is.
    #[error(transparent)]
    Rejected(#[from] Rejected),
}
