//! The memory of a request, and which way its bytes go.

use alloc::boxed::Box;
use core::marker::PhantomData;

use pageless_pfn::{ByteLen, PhysSegment};

use crate::access::{AccessError, FrameAccess, copy_frames};
use crate::bio;
use crate::bio::direction::{FromDevice, ToDevice};
use crate::request::bios::Bios;

/// What moves in a request.
#[derive(Clone, Debug)]
pub enum Data<'a> {
    /// The driver fills memory: a read.
    ToMemory(Memory<'a, FromDevice>),
    /// The driver takes from memory: a write, an append.
    FromMemory(Memory<'a, ToDevice>),
    /// Nothing.
    None,
}

/// The memory of a [`Request`](crate::Request), segment by segment, each of which can be used in one
/// direction only.
#[derive(Clone, Debug)]
pub struct Memory<'a, D> {
    segments: Segments<'a>,
    direction: PhantomData<D>,
}

impl<'a, D> Memory<'a, D> {
    #[inline]
    pub(crate) fn new(segments: Segments<'a>) -> Self {
        Self {
            segments,
            direction: PhantomData,
        }
    }
}

impl<D> Iterator for Memory<'_, D> {
    type Item = MemorySegment<D>;

    #[inline]
    fn next(&mut self) -> Option<MemorySegment<D>> {
        Some(MemorySegment {
            segment: self.segments.next()?,
            direction: PhantomData,
        })
    }
}

impl<D> core::iter::FusedIterator for Memory<'_, D> {}

/// A segment of memory that a driver may fill (`FromDevice`) or take from (`ToDevice`), not both.
#[derive(Clone, Copy, Debug)]
pub struct MemorySegment<D> {
    segment: PhysSegment,
    direction: PhantomData<D>,
}

impl<D> MemorySegment<D> {
    /// Where it is. For drivers that hand addresses on: what they do there is theirs to get right.
    #[inline]
    pub fn segment(&self) -> PhysSegment {
        self.segment
    }

    /// How many bytes.
    #[inline]
    pub fn len(&self) -> ByteLen {
        self.segment.len()
    }

    /// `len` bytes from the `skip`-th on, or `None` if they are not all there or none at all.
    #[inline]
    pub fn slice(&self, skip: ByteLen, len: ByteLen) -> Option<Self> {
        Some(Self {
            segment: self.segment.slice(skip, len)?,
            direction: PhantomData,
        })
    }
}

impl MemorySegment<FromDevice> {
    /// Fills it with `data`, as far as the shorter of the two goes.
    ///
    /// # Errors
    /// [`AccessError`]; the first bytes may have been written.
    #[inline]
    pub fn fill(&self, memory: &impl FrameAccess, data: &[u8]) -> Result<(), AccessError> {
        memory.write_bytes(self.segment, data)
    }

    /// Fills it from frames of the device, as far as the shorter of the two goes.
    ///
    /// # Errors
    /// [`AccessError`]; the first bytes may have been written.
    #[inline]
    pub fn fill_from(
        &self,
        memory: &impl FrameAccess,
        device: &impl FrameAccess,
        from: PhysSegment,
    ) -> Result<(), AccessError> {
        copy_frames(device, from, memory, self.segment)
    }

    /// Makes it zero.
    ///
    /// # Errors
    /// [`AccessError`]; the first bytes may have been zeroed.
    #[inline]
    pub fn zero(&self, memory: &impl FrameAccess) -> Result<(), AccessError> {
        memory.zero_bytes(self.segment)
    }
}

impl MemorySegment<ToDevice> {
    /// Copies it to `out`, as far as the shorter of the two goes.
    ///
    /// # Errors
    /// [`AccessError`]; the first bytes of `out` may have been written.
    #[inline]
    pub fn take(&self, memory: &impl FrameAccess, out: &mut [u8]) -> Result<(), AccessError> {
        memory.read_bytes(self.segment, out)
    }

    /// Copies it to frames of the device, as far as the shorter of the two goes.
    ///
    /// # Errors
    /// [`AccessError`]; the first bytes may have been written.
    #[inline]
    pub fn take_to(
        &self,
        memory: &impl FrameAccess,
        device: &impl FrameAccess,
        to: PhysSegment,
    ) -> Result<(), AccessError> {
        copy_frames(memory, self.segment, device, to)
    }
}

/// The memory of a [`Request`](crate::Request), segment by segment. Made by
/// [`Request::segments`](crate::Request::segments).
#[derive(Clone)]
pub struct Segments<'a> {
    /// What is left of the current bio's list.
    list: &'a [PhysSegment],
    /// The bios after it.
    bios: &'a [Box<bio::Inner>],
}

impl<'a> Segments<'a> {
    #[inline]
    pub(crate) fn of_list(list: &'a [PhysSegment]) -> Self {
        Self { list, bios: &[] }
    }

    #[inline]
    pub(crate) fn of_bios(bios: &'a Bios) -> Self {
        Self {
            list: bios.first().map_or(&[], |first| &first.segments),
            bios: bios.rest(),
        }
    }

    /// Where bio meets bio: goes on to the next one's list.
    #[cold]
    fn step(&mut self) -> Option<()> {
        while self.list.is_empty() {
            let (next, bios) = self.bios.split_first()?;
            self.list = &next.segments;
            self.bios = bios;
        }
        Some(())
    }
}

impl Iterator for Segments<'_> {
    type Item = PhysSegment;

    #[inline]
    fn next(&mut self) -> Option<PhysSegment> {
        if self.list.is_empty() {
            self.step()?;
        }
        let (&first, rest) = self.list.split_first()?;
        self.list = rest;
        let mut whole = first;
        // Within a bio neighbours are merged already; two bios may meet in memory.
        while self.list.is_empty() && !self.bios.is_empty() {
            if self.step().is_none() {
                break;
            }
            let (&next, rest) = self.list.split_first()?;
            match whole.try_merge(next) {
                Some(merged) => {
                    whole = merged;
                    self.list = rest;
                }
                None => break,
            }
        }
        Some(whole)
    }
}

impl core::iter::FusedIterator for Segments<'_> {}

impl core::fmt::Debug for Segments<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_list().entries(self.clone()).finish()
    }
}
