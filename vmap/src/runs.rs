//! Frames one by one, as the runs that they are.

use pageless_pfn::{FrameCount, FrameOffset, Pfn, PfnFlags, PfnRange, PfnT, PhysSegment};

/// The frames, in the same order, in as few runs of consecutive numbers as can be.
pub(crate) fn runs<I: IntoIterator<Item = Pfn>>(frames: I) -> impl Iterator<Item = PfnRange> {
    let mut frames = frames.into_iter().peekable();
    core::iter::from_fn(move || {
        let first = frames.next()?;
        let mut count = FrameCount::new(1);
        while frames.next_if_eq(&first.checked_add(count)?).is_some() {
            count = FrameCount::new(count.get() + 1);
        }
        PfnRange::try_new(first, count).ok()
    })
}

/// The same runs of ordinary memory as segments: what a block device takes.
pub(crate) fn segments<I: IntoIterator<Item = Pfn>>(
    frames: I,
) -> impl Iterator<Item = PhysSegment> {
    runs(frames).filter_map(|run| {
        let frame = PfnT::new(run.start(), PfnFlags::empty());
        PhysSegment::try_new(frame, FrameOffset::ZERO, run.count().bytes()?).ok()
    })
}
