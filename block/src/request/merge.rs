//! Joining a bio to a request that has not gone to the device yet.

use alloc::boxed::Box;

use pageless_pfn::ByteLen;

use crate::bio;
use crate::flags::BioFlags;
use crate::limits::Limits;
use crate::mutant::Mutant;
use crate::op::Op;
use crate::position::BytePos;
use crate::priority::Priority;
use crate::request::Request;

/// A bio that a queue has accepted and that has no request yet: within the device's limits, its flags
/// as the device will see them.
#[derive(Debug)]
#[must_use = "somebody waits for it"]
pub struct Incoming {
    pub(crate) bio: Box<bio::Inner>,
    pub(crate) flags: BioFlags,
    pub(crate) context: u16,
}

impl core::fmt::Debug for bio::Inner {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{} of {} bytes at {}", self.op, self.len, self.sector)
    }
}

impl Incoming {
    /// What is asked for.
    pub fn op(&self) -> Op {
        self.bio.op
    }

    /// How, as the device will see it.
    pub fn flags(&self) -> BioFlags {
        self.flags
    }

    /// How urgent it is.
    pub fn priority(&self) -> Priority {
        self.bio.priority
    }

    /// Where it begins.
    #[inline]
    pub fn position(&self) -> BytePos {
        BytePos::new(self.bio.sector.get().wrapping_mul(crate::SECTOR_SIZE))
    }

    /// How many bytes.
    #[inline]
    pub fn len(&self) -> ByteLen {
        ByteLen::new(self.bio.len)
    }

    /// Whether it is about no bytes; such a one never merges.
    pub fn is_empty(&self) -> bool {
        self.bio.len == 0
    }

    /// The first byte after it.
    #[inline]
    pub fn end(&self) -> BytePos {
        BytePos::new(self.position().get().wrapping_add(self.bio.len))
    }
}

/// At which end of a request a bio was joined to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Merge {
    /// After its last byte.
    Back,
    /// Before its first byte.
    Front,
}

impl Request {
    /// Takes `incoming` in as its new end or beginning, if it continues or precedes this request and
    /// both together are within the limits. No descriptor is looked at: the frames' numbers and
    /// flags say all there is to know.
    ///
    /// # Errors
    /// The bio, as it was.
    pub fn try_merge(&mut self, incoming: Incoming, limits: &Limits) -> Result<Merge, Incoming> {
        let end = if self.end() == incoming.position() {
            Merge::Back
        } else if incoming.end() == self.position() {
            Merge::Front
        } else {
            return Err(incoming);
        };
        if !self.may_take(&incoming, end, limits) {
            return Err(incoming);
        }
        let inner = &mut self.0;
        inner.len += incoming.bio.len;
        match end {
            Merge::Back => inner.bios.push(incoming.bio),
            Merge::Front => {
                inner.position -= incoming.bio.len;
                inner.bios.insert(0, incoming.bio);
            }
        }
        Ok(end)
    }

    fn may_take(&self, incoming: &Incoming, _end: Merge, limits: &Limits) -> bool {
        let inner = &self.0;
        let kept = BioFlags::NEVER_MERGED | BioFlags::ATOMIC;
        let alike = inner.flags == incoming.flags || Mutant::MergeAcrossFlags.active();
        inner.op == incoming.op()
            && alike
            && inner.priority == incoming.priority()
            && inner.context == incoming.context
            && !inner.flags.intersects(kept)
            && !incoming.flags.intersects(kept)
            && matches!(inner.op, Op::Read | Op::Write | Op::Discard)
            && inner
                .len
                .checked_add(incoming.bio.len)
                .is_some_and(|len| len <= limits.max_request.get())
    }
}
