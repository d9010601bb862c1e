//! Address space whose shootdowns can be broken on purpose.

use pageless_fault::sim::SimVspace;
use pageless_fault::{Translations, UnmapError, Vspace, WindowRange};

use crate::interposed::{Between, Interposed};

type Ticket = <SimVspace as Translations>::Ticket;

/// What is wrong with a shootdown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nothing.
    None,
    /// Nobody is told: frames and addresses are used again before any flush.
    NobodyTold,
    /// Whoever purges flushes for itself alone, although others use the addresses as well.
    OnlyHere,
    /// One range of the batch is flushed, the others are not.
    FirstRangeOnly,
    /// Of each range all pages but the last are flushed.
    LastPageMissed,
}

/// The space of a [`SimVspace`], with that wrong.
pub(crate) type Space = Interposed<SimVspace, Fault>;

impl Between<SimVspace> for Fault {
    fn shoot(&self, space: &SimVspace, ranges: &[WindowRange]) -> Result<Ticket, UnmapError> {
        match self {
            Fault::None => space.shoot(ranges),
            Fault::NobodyTold => space.shoot(&[]),
            Fault::OnlyHere => {
                for range in ranges {
                    space.flush_here(*range)?;
                }
                space.shoot(&[])
            }
            Fault::FirstRangeOnly => space.shoot(&ranges[..1]),
            Fault::LastPageMissed => {
                let shorter = |range: &WindowRange| {
                    let len = range.len().checked_sub(4096).filter(|len| *len > 0)?;
                    WindowRange::try_new(range.start(), len)
                };
                let shorter: Vec<_> = ranges.iter().filter_map(shorter).collect();
                space.shoot(&shorter)
            }
        }
    }
}
