//! Events for `tracing`, with the names and fields of Linux' tracepoints.

use tracing::Level;

use crate::observe::blktrace::DeviceNumber;
use crate::observe::event::{Action, Event, Probe};
use crate::observe::rwbs::Rwbs;
use crate::position::SECTOR_SIZE;
use crate::request::Tag;

/// A [`Probe`] that hands every event on to `tracing`, with target `block` and the name of the
/// kernel's tracepoint (include/trace/events/block.h).
///
/// | action | name | fields of its own |
/// |---|---|---|
/// | Queue | `block_bio_queue` | |
/// | BackMerge, FrontMerge | `block_bio_backmerge`, `block_bio_frontmerge` | |
/// | GetRequest, SleepRequest | `block_getrq`, `block_sleeprq` | |
/// | Insert, Issue, Requeue | `block_rq_insert`, `block_rq_issue`, `block_rq_requeue` | |
/// | Complete | `block_rq_complete`, without a tag `block_bio_complete` | `error` (an errno, negative, or 0) |
/// | | after it, if a request failed, `block_rq_error` | `error`, `reason` |
/// | Plug, Unplug | `block_plug`, `block_unplug` | for an unplug `nr_rq` |
/// | Split | `block_split` | `new_sector` |
/// | Bounce | `block_bio_bounce` | |
/// | Remap | `block_rq_remap`, without a tag `block_bio_remap` | `old_sector` |
/// | Abort | `block_rq_abort`; the kernel has none | |
///
/// All but plugging have `dev`, `queue`, `cpu` (the context), `time` (ns, by the queue's clock),
/// `tag` (if there is one), `sector`, `nr_sector`, `bytes`, `rwbs` and `ioprio`. The level is
/// TRACE, and DEBUG for `block_rq_error`.
///
/// ```
/// use pageless_block::{DeviceNumber, TracingProbe};
/// let probe = TracingProbe::new(DeviceNumber::try_new(8, 0)?);
/// # let _ = probe;
/// # Ok::<(), pageless_block::DeviceNumberError>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct TracingProbe {
    device: DeviceNumber,
}

impl TracingProbe {
    /// For the events of `device`.
    pub const fn new(device: DeviceNumber) -> Self {
        Self { device }
    }
}

impl Probe for TracingProbe {
    fn event(&self, event: &Event) {
        // Each event of `tracing` has a place in the source of its own, known before it runs: hence a
        // macro, and not a function that is given a name.
        macro_rules! emit {
            ($name:literal $(, $field:ident = $value:expr)*) => {
                emit!(Level::TRACE, $name $(, $field = $value)*)
            };
            ($level:expr, $name:literal $(, $field:ident = $value:expr)*) => {
                tracing::event!(
                    name: $name,
                    target: "block",
                    $level,
                    dev = %self.device,
                    queue = event.queue.get(),
                    cpu = event.context,
                    time = event.time.get(),
                    tag = event.tag.map(Tag::get),
                    sector = event.sector.get(),
                    nr_sector = event.len.get() / SECTOR_SIZE,
                    bytes = event.len.get(),
                    rwbs = Rwbs::new(event.op, event.flags).as_str(),
                    ioprio = event.priority.bits(),
                    $($field = $value,)*
                )
            };
        }
        macro_rules! emit_plug {
            ($name:literal $(, $field:ident = $value:expr)*) => {
                tracing::event!(
                    name: $name,
                    target: "block",
                    Level::TRACE,
                    dev = %self.device,
                    cpu = event.context,
                    time = event.time.get(),
                    $($field = $value,)*
                )
            };
        }
        let of_request = event.tag.is_some();
        let error = event.error.map_or(0, |error| -error.errno());
        match event.action {
            Action::Queue => emit!("block_bio_queue"),
            Action::BackMerge => emit!("block_bio_backmerge"),
            Action::FrontMerge => emit!("block_bio_frontmerge"),
            Action::GetRequest => emit!("block_getrq"),
            Action::SleepRequest => emit!("block_sleeprq"),
            Action::Requeue => emit!("block_rq_requeue"),
            Action::Issue => emit!("block_rq_issue"),
            Action::Complete if of_request => {
                emit!("block_rq_complete", error = error);
                if let Some(reason) = event.error {
                    let reason = tracing::field::display(reason);
                    emit!(
                        Level::DEBUG,
                        "block_rq_error",
                        error = error,
                        reason = reason
                    );
                }
            }
            Action::Complete => emit!("block_bio_complete", error = error),
            Action::Plug => emit_plug!("block_plug"),
            Action::Unplug => emit_plug!("block_unplug", nr_rq = event.detail),
            Action::Insert => emit!("block_rq_insert"),
            Action::Split => emit!("block_split", new_sector = event.detail),
            Action::Bounce => emit!("block_bio_bounce"),
            Action::Remap if of_request => emit!("block_rq_remap", old_sector = event.detail),
            Action::Remap => emit!("block_bio_remap", old_sector = event.detail),
            Action::Abort => emit!("block_rq_abort"),
        }
    }
}
