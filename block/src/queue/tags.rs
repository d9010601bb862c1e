//! Names for requests in flight: a sharded bitmap.

use alloc::boxed::Box;

use crate::request::Tag;
use crate::sync::atomic::{AtomicU64, Ordering};

/// Tags of one word: few, so that threads with different hints write to different cache lines.
const PER_WORD: u16 = 64;

/// A word of the bitmap, alone on its cache line (and its neighbour, which processors fetch along).
///
/// Bit `n`: 1 if the word's `n`-th tag is free, 0 if it is taken or does not exist.
#[repr(align(128))]
#[derive(Debug)]
struct Shard(AtomicU64);

/// The tags of a hardware queue, handed out in no particular order.
#[derive(Debug)]
pub(crate) struct Tags {
    shards: Box<[Shard]>,
    per_shard: u16,
}

impl Tags {
    /// `count` tags, all free, spread over a few words at least if there are enough of them.
    pub(crate) fn new(count: u16) -> Self {
        // As many words as keep at least 8 tags in each, up to 64 in each.
        let per_shard = (count / 8).clamp(8, PER_WORD).min(count.max(1));
        let shards = count.div_ceil(per_shard);
        let shard = |n: u16| {
            let here = (count - n * per_shard).min(per_shard);
            let bits = if here == 64 {
                u64::MAX
            } else {
                (1 << here) - 1
            };
            Shard(AtomicU64::new(bits))
        };
        Self {
            shards: (0..shards).map(shard).collect(),
            per_shard,
        }
    }

    /// A tag that nobody has, looked for from the shard on that `hint` says.
    #[inline]
    pub(crate) fn get(&self, hint: u16) -> Option<Tag> {
        let shards = self.shards.len();
        let start = usize::from(hint) % shards;
        (0..shards).find_map(|n| {
            let at = (start + n) % shards;
            let bit = self.shards[at].take()?;
            Some(Tag::new(at as u16 * self.per_shard + bit as u16))
        })
    }

    /// Gives a tag back. It may name another request from now on.
    #[inline]
    pub(crate) fn put(&self, tag: Tag) {
        let (at, bit) = (tag.get() / self.per_shard, tag.get() % self.per_shard);
        let shard = &self.shards[usize::from(at)].0;
        // Release: pairs with the Acquire in `take`. What was done to the request is seen by who takes the
        // tag next.
        let before = shard.fetch_or(1 << bit, Ordering::Release);
        debug_assert!(before & 1 << bit == 0, "tag {} given back twice", tag.get());
    }
}

impl Shard {
    #[inline]
    fn take(&self) -> Option<u32> {
        let mut free = self.0.load(Ordering::Relaxed);
        while free != 0 {
            let bit = free.trailing_zeros();
            // Acquire: pairs with the Release in `put`.
            let before = self.0.fetch_and(!(1 << bit), Ordering::Acquire);
            if before & 1 << bit != 0 {
                return Some(bit);
            }
            // Somebody else was faster.
            free = before & !(1 << bit);
        }
        None
    }
}
