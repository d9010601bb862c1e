//! Parts of a bio: its bytes from here to there, with the memory that belongs to them.

use pageless_pfn::{ByteLen, PhysSegment};

use crate::bio::Inner;
use crate::position::{SECTOR_SIZE, Sector};

/// A place in a list of segments, so that whoever goes through it need not begin at its start each time.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Cursor {
    segment: usize,
    /// Bytes of that segment before the place.
    skip: u64,
}

impl Cursor {
    /// Goes on by `len` bytes.
    pub(crate) fn advance(&mut self, segments: &[PhysSegment], len: u64) {
        self.skip = self.skip.saturating_add(len);
        while let Some(segment) = segments.get(self.segment)
            && self.skip >= segment.len().get()
        {
            self.skip -= segment.len().get();
            self.segment += 1;
        }
    }
}

impl Inner {
    /// Makes this the first `len` bytes of `whole`.
    pub(crate) fn copy_front(&mut self, whole: &Inner, len: u64) {
        let mut end = Cursor::default();
        end.advance(&whole.segments, len);
        self.copy_rest(whole, 0, Cursor::default(), end.segment + 1);
        self.truncate(len);
    }

    /// Makes this the part of `whole` from byte `from` on, which is where the cursor stands: all that comes then, or
    /// the bytes of the next `most` segments. Says whether that is all.
    pub(crate) fn copy_rest(
        &mut self,
        whole: &Inner,
        from: u64,
        cursor: Cursor,
        most: usize,
    ) -> bool {
        self.op = whole.op;
        self.flags = whole.flags;
        self.priority = whole.priority;
        self.token = whole.token;
        self.sector = Sector::new(whole.sector.get().wrapping_add(from / SECTOR_SIZE));
        self.before = from;
        self.odd = true;
        self.segments.clear();
        let rest = whole.segments.get(cursor.segment..).unwrap_or_default();
        let mut skip = cursor.skip;
        let mut bytes = 0;
        for segment in rest.iter().take(most) {
            let len = segment.len().get().saturating_sub(skip);
            let part = segment.slice(ByteLen::new(skip), ByteLen::new(len));
            self.segments.extend(part);
            bytes += len;
            skip = 0;
        }
        let all = rest.len() <= most;
        self.len = if all { whole.len - from } else { bytes };
        all
    }

    /// Leaves out what comes after the first `len` bytes.
    pub(crate) fn truncate(&mut self, len: u64) {
        let mut left = len;
        let mut keep = 0;
        for segment in &mut self.segments {
            if left == 0 {
                break;
            }
            let here = segment.len().get();
            if here > left {
                *segment = segment
                    .slice(ByteLen::ZERO, ByteLen::new(left))
                    .unwrap_or(*segment);
            }
            left -= here.min(left);
            keep += 1;
        }
        self.segments.truncate(keep);
        self.len = len;
    }
}
