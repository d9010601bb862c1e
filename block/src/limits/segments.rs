//! What hardware sees of a list of segments.

use core::iter::FusedIterator;

use pageless_pfn::{ByteLen, PhysSegment};

use super::Limits;

/// What a device wants of each of its segments: the part of [`Limits`] that is about memory alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentRules {
    /// The longest segment.
    max: u64,
    /// No segment reaches past an address with these bits all set; all ones for no boundary.
    boundary_mask: u64,
    /// Bits that are clear where one segment ends and the next begins.
    virt_mask: u64,
    /// Bits that are clear in every address and length.
    dma_mask: u64,
}

impl SegmentRules {
    pub(crate) const fn of(limits: &Limits) -> Self {
        Self {
            max: limits.max_segment.get(),
            boundary_mask: match limits.segment_boundary {
                Some(boundary) => boundary.get().saturating_sub(1),
                None => u64::MAX,
            },
            virt_mask: match limits.virt_boundary {
                Some(boundary) => boundary.get().saturating_sub(1),
                None => 0,
            },
            dma_mask: limits.dma_alignment.get().saturating_sub(1),
        }
    }

    /// The most bytes that one segment from `addr` on can hold; at least 1.
    #[inline]
    const fn reach(&self, addr: u64) -> u64 {
        let before_boundary = self.boundary_mask - (addr & self.boundary_mask);
        let before_max = self.max.saturating_sub(1);
        // Below `max`, unless that is 0, so that nothing overflows.
        if before_boundary < before_max {
            before_boundary + 1
        } else {
            before_max + 1
        }
    }

    /// The longest segment from `addr` on that may be followed by one right behind it. Asked only
    /// where memory goes on for more than `reach`, so that `addr + reach` is an address.
    ///
    /// Where no end is as the device wants it, the segment ends where it must, and the gap behind it
    /// is found by [`SegmentRules::gap`].
    #[inline]
    const fn followed(&self, addr: u64, reach: u64) -> u64 {
        let end = addr + reach;
        let best = end & !(self.virt_mask | self.dma_mask);
        if best > addr {
            return best - addr;
        }
        let aligned = end & !self.dma_mask;
        if aligned > addr {
            aligned - addr
        } else {
            reach
        }
    }

    /// Whether the device cannot take `next` after `last` in one request.
    #[inline]
    pub(crate) const fn gap(&self, last: PhysSegment, next: PhysSegment) -> bool {
        // The last segment may end with the address space; adding wraps to 0, which is aligned.
        let end = last.last_phys().get().wrapping_add(1);
        (end | next.phys().get()) & self.virt_mask != 0
    }

    /// Whether the device can reach this segment at all.
    #[inline]
    pub(crate) const fn aligned(&self, segment: PhysSegment) -> bool {
        (segment.phys().get() | segment.len().get()) & self.dma_mask == 0
    }

    pub(crate) const fn dma_mask(&self) -> u64 {
        self.dma_mask
    }

    /// Whether it matters where one segment ends and the next begins.
    pub(crate) const fn has_virt_boundary(&self) -> bool {
        self.virt_mask != 0
    }

    pub(crate) const fn boundary_mask(&self) -> u64 {
        self.boundary_mask
    }

    /// As hardware sees `segments`.
    pub(crate) const fn cut<I>(self, segments: I) -> DeviceSegments<I> {
        DeviceSegments {
            segments,
            run: None,
            ahead: None,
            rules: self,
        }
    }
}

/// As hardware sees `segments`: neighbours with equal flags joined, then cut so that each is within
/// `max_segment` and `segment_boundary`, and ends at a multiple of `virt_boundary` and
/// `dma_alignment` where it is followed by the rest of the same run.
///
/// This is how segments are counted everywhere here: of a request that reaches a driver it yields at
/// most [`max_segments`](Limits::max_segments).
///
/// ```
/// use pageless_block::{Limits, device_segments};
/// use pageless_pfn::{ByteLen, FrameOffset, Pfn, PhysSegment};
/// let mut limits = Limits::new(ByteLen::new(1 << 30));
/// limits.max_segment = ByteLen::new(64 << 10);
/// let frame = Pfn::try_new(0x100).unwrap().into();
/// let memory = PhysSegment::try_new(frame, FrameOffset::ZERO, ByteLen::new(100 << 10))?;
/// let lengths: Vec<u64> = device_segments(&limits, [memory]).map(|one| one.len().get()).collect();
/// assert_eq!(lengths, [64 << 10, 36 << 10]);
/// # Ok::<(), pageless_pfn::SegmentError>(())
/// ```
pub fn device_segments<I>(limits: &Limits, segments: I) -> DeviceSegments<I::IntoIter>
where
    I: IntoIterator<Item = PhysSegment>,
{
    SegmentRules::of(limits).cut(segments.into_iter())
}

/// Segments as hardware sees them. Made by [`device_segments`].
#[derive(Clone, Debug)]
pub struct DeviceSegments<I> {
    segments: I,
    /// What is left of a run of neighbours, all of which have been joined.
    run: Option<PhysSegment>,
    /// The first segment after the run.
    ahead: Option<PhysSegment>,
    rules: SegmentRules,
}

impl<I: Iterator<Item = PhysSegment>> DeviceSegments<I> {
    /// The next run of neighbours as a whole, or what is left of the present one.
    #[inline]
    pub(crate) fn run(&mut self) -> Option<PhysSegment> {
        if let Some(run) = self.run.take() {
            return Some(run);
        }
        let mut run = match self.ahead.take() {
            Some(first) => first,
            None => self.segments.next()?,
        };
        for next in self.segments.by_ref() {
            match run.try_merge(next) {
                Some(longer) => run = longer,
                None => {
                    self.ahead = Some(next);
                    break;
                }
            }
        }
        Some(run)
    }

    /// The next segment, and by how many bytes it could be longer if nothing followed it.
    #[inline]
    pub(crate) fn next_with_slack(&mut self) -> Option<(PhysSegment, u64)> {
        let run = self.run()?;
        let addr = run.phys().get();
        let reach = self.rules.reach(addr);
        if run.len().get() <= reach {
            return Some((run, 0));
        }
        let len = self.rules.followed(addr, reach);
        let (segment, rest) = run.split_at(ByteLen::new(len))?;
        self.run = Some(rest);
        Some((segment, reach - len))
    }
}

impl<I: Iterator<Item = PhysSegment>> Iterator for DeviceSegments<I> {
    type Item = PhysSegment;

    #[inline]
    fn next(&mut self) -> Option<PhysSegment> {
        let (segment, _) = self.next_with_slack()?;
        Some(segment)
    }
}

impl<I: FusedIterator<Item = PhysSegment>> FusedIterator for DeviceSegments<I> {}
