//! A bio, or a piece of one, on its way through a driver.

use core::mem;

use pageless_pfn::{ByteLen, PhysSegment};

use crate::bio::Bio;
use crate::op::Op;
use crate::position::BytePos;
use crate::status::BlkError;

/// Which of a device's queues.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QueueId(u16);

impl QueueId {
    /// The `id`-th queue, counted from 0.
    pub const fn new(id: u16) -> Self {
        Self(id)
    }

    /// Its number.
    pub const fn get(self) -> u16 {
        self.0
    }
}

/// Names a bio in flight within its queue; below the queue's depth.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tag(u16);

impl Tag {
    pub(crate) const fn new(tag: u16) -> Self {
        Self(tag)
    }

    /// Its number.
    pub const fn get(self) -> u16 {
        self.0
    }
}

/// A piece of a bio that a driver is asked to carry out: all of it, or as much as the device
/// takes in one request.
///
/// A request owns its bio and must be completed exactly once, with [`Request::complete`].
///
/// # Panics
/// Dropping a request that was not completed panics and says which one it was: somebody waits
/// for those frames. If the thread is panicking already, it prints instead.
#[derive(Debug)]
#[must_use = "a request must be completed"]
pub struct Request {
    bio: Bio,
    /// Segment and byte within it at which this piece begins.
    index: usize,
    within: u64,
    /// Bytes of the bio before this piece.
    before: u64,
    /// Bytes in this piece.
    len: u64,
    tag: Tag,
    queue: QueueId,
    /// Whether somebody still waits for the bio.
    owed: bool,
}

impl Request {
    /// The first piece of `bio`, which has been admitted: its position fits in 64 bits.
    #[inline]
    pub(crate) fn first(bio: Bio, queue: QueueId, tag: Tag, max: u64) -> Self {
        let len = bio.len().get().min(max);
        Self {
            bio,
            index: 0,
            within: 0,
            before: 0,
            len,
            tag,
            queue,
            owed: true,
        }
    }

    /// Moves on to the next piece; `false` if this was the last one.
    #[inline]
    pub(crate) fn advance(&mut self, max: u64) -> bool {
        let left = self.bio.len().get() - self.before - self.len;
        if left == 0 {
            return false;
        }
        self.within += self.len;
        while let Some(segment) = self.bio.segments().get(self.index) {
            let whole = segment.len().get();
            if self.within < whole {
                break;
            }
            self.within -= whole;
            self.index += 1;
        }
        self.before += self.len;
        self.len = left.min(max);
        true
    }

    /// What is asked for.
    #[inline]
    pub const fn op(&self) -> Op {
        self.bio.op()
    }

    /// Where on the device this piece begins.
    #[inline]
    pub const fn position(&self) -> BytePos {
        // Admission has checked that sector and length fit in 64 bits of bytes.
        BytePos::new(
            self.bio
                .sector()
                .get()
                .wrapping_mul(crate::SECTOR_SIZE)
                .wrapping_add(self.before),
        )
    }

    /// How many bytes of the device this piece is about; 0 for a flush.
    #[inline]
    pub const fn len(&self) -> ByteLen {
        ByteLen::new(self.len)
    }

    /// The memory of this piece, in the order of the bytes on the device.
    #[inline]
    pub fn segments(&self) -> Segments<'_> {
        let rest = if self.bio.op().carries_data() {
            self.bio.segments().get(self.index..).unwrap_or_default()
        } else {
            &[]
        };
        Segments {
            rest,
            skip: self.within,
            left: self.len,
        }
    }

    /// The queue it came through; number 65535 stands for none, that is for
    /// [`submit_sync`](crate::submit_sync).
    pub const fn queue(&self) -> QueueId {
        self.queue
    }

    /// Its name within that queue.
    pub const fn tag(&self) -> Tag {
        self.tag
    }

    /// Ends the request. The [`Done`] goes back to the queue, by being returned from
    /// [`BlockDevice::submit`](crate::BlockDevice::submit) or handed over in
    /// [`BlockDevice::poll`](crate::BlockDevice::poll).
    ///
    /// Completing consumes the request, so that doing it twice does not compile:
    ///
    /// ```compile_fail
    /// use pageless_block::{Done, Request};
    /// fn finish(request: Request) -> (Done, Done) {
    ///     (request.complete(Ok(())), request.complete(Ok(())))
    /// }
    /// ```
    ///
    /// and once does:
    ///
    /// ```
    /// use pageless_block::{Done, Request};
    /// fn finish(request: Request) -> Done {
    ///     request.complete(Ok(()))
    /// }
    /// ```
    #[inline]
    pub fn complete(self, result: Result<(), BlkError>) -> Done {
        Done {
            request: self,
            result,
        }
    }

    /// Takes the bio out. Afterwards nobody waits for it any more.
    #[inline]
    pub(crate) fn settle(mut self) -> Bio {
        self.owed = false;
        mem::take(&mut self.bio)
    }

    /// Bytes of the bio before this piece.
    #[inline]
    pub(crate) const fn before(&self) -> u64 {
        self.before
    }
}

impl Drop for Request {
    #[inline]
    fn drop(&mut self) {
        if self.owed {
            lost(self);
        }
    }
}

#[cold]
fn lost(request: &Request) {
    let Request {
        bio,
        queue,
        tag,
        before,
        len,
        ..
    } = request;
    let (queue, tag) = (queue.0, tag.0);
    #[cfg(feature = "std")]
    if std::thread::panicking() {
        std::eprintln!(
            "request lost: {bio} (queue {queue}, tag {tag}, {len} bytes from {before} on) \
             dropped without completion while panicking"
        );
        return;
    }
    panic!(
        "request lost: {bio} (queue {queue}, tag {tag}, {len} bytes from {before} on) \
         dropped without completion"
    );
}

/// A request that a driver has finished with, on its way back to the queue.
///
/// Made by [`Request::complete`] alone. Dropping it loses the bio, which is as loud as dropping
/// the request.
#[derive(Debug)]
#[must_use = "the queue waits for it"]
pub struct Done {
    request: Request,
    result: Result<(), BlkError>,
}

impl Done {
    /// Which request.
    pub const fn tag(&self) -> Tag {
        self.request.tag
    }

    /// Through which queue it came.
    pub const fn queue(&self) -> QueueId {
        self.request.queue
    }

    /// How it ended.
    pub const fn result(&self) -> Result<(), BlkError> {
        self.result
    }

    #[inline]
    pub(crate) fn into_parts(self) -> (Request, Result<(), BlkError>) {
        (self.request, self.result)
    }
}

/// The memory of a [`Request`], segment by segment. Made by [`Request::segments`].
#[derive(Clone, Debug)]
pub struct Segments<'a> {
    rest: &'a [PhysSegment],
    /// Bytes of the first segment that belong to earlier pieces.
    skip: u64,
    /// Bytes of the piece that are still to come.
    left: u64,
}

impl Iterator for Segments<'_> {
    type Item = PhysSegment;

    #[inline]
    fn next(&mut self) -> Option<PhysSegment> {
        let (&first, more) = self.rest.split_first()?;
        let whole = first.len().get();
        let take = (whole - self.skip).min(self.left);
        let part = if take == whole {
            first
        } else {
            first.slice(ByteLen::new(self.skip), ByteLen::new(take))?
        };
        if self.skip + take == whole {
            self.rest = more;
            self.skip = 0;
        } else {
            self.skip += take;
        }
        self.left -= take;
        Some(part)
    }
}

impl core::iter::FusedIterator for Segments<'_> {}
