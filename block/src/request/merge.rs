//! Joining a bio to a request that has not gone to the device yet.

use alloc::boxed::Box;

use pageless_pfn::ByteLen;

use crate::bio;
use crate::flags::BioFlags;
use crate::limits::Limits;
use crate::limits::merge::Part;
use crate::limits::split::Shape;
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
    /// Whose: the context's own number, of which no other has the same.
    pub(crate) context: u32,
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
        let Some(segments) = self.with(&incoming, end, limits) else {
            return Err(incoming);
        };
        let inner = &mut self.0;
        inner.len += incoming.bio.len;
        inner.device_segments = Some(segments);
        inner.odd = true;
        match end {
            Merge::Back => inner.bios.push_back(incoming.bio),
            Merge::Front => {
                inner.position -= incoming.bio.len;
                inner.bios.push_front(incoming.bio);
            }
        }
        Ok(end)
    }

    /// How many segments the device would see of this request and `incoming` at that end of it; `None` if
    /// they cannot go together.
    fn with(&self, incoming: &Incoming, end: Merge, limits: &Limits) -> Option<u32> {
        let inner = &self.0;
        if inner.context != incoming.context || inner.replaced.is_some() {
            return None;
        }
        let this = Part {
            op: inner.op,
            flags: inner.flags,
            priority: inner.priority,
            position: self.position(),
            len: self.len(),
            // Counted when a bio joins it, and never where none does.
            count: inner
                .device_segments
                .unwrap_or_else(|| limits.count(self.segments())),
            ends: Option::zip(
                inner.bios.first().and_then(|bio| bio.segments.first()),
                inner.bios.last().and_then(|bio| bio.segments.last()),
            )
            .map(|(first, last)| (*first, *last)),
            segments: self.segments(),
        };
        let bio = &incoming.bio;
        let flags = match Mutant::MergeAcrossFlags.active() {
            true => inner.flags,
            false => incoming.flags,
        };
        let shape = Shape {
            op: bio.op,
            flags,
            position: incoming.position(),
            len: incoming.len(),
            segments: &bio.segments,
        };
        let that = Part::new(limits, &shape, bio.priority);
        match end {
            Merge::Back => limits.merged(&this, &that),
            Merge::Front => limits.merged(&that, &this),
        }
    }
}
