//! Objects that are the device's own frames, wherever they are: mapped one behind the other.

use alloc::sync::Arc;
use core::cell::Cell;

use pageless_block::{BytePos, PmemFrames};
use pageless_fault::host::{HostFrames, HostVspace};
use pageless_fault::{MaySleep, Protection, VirtAddr, Vspace, WindowLen, WindowOffset};
use pageless_pfn::{ByteLen, PAGE_SIZE, PfnFlags, PfnT};
use pageless_vmap::area::{NoDescriptors, Vmalloc, VmallocConfig};

use crate::xfs::error::{Place, XfsError};
use crate::xfs::inode::Piece;
use crate::xfs::object::{Change, Object, Objects};

/// Addresses for directory blocks.
const SPACE: u64 = 1 << 30;

/// Which frame a byte of a device is in.
pub(crate) trait DeviceFrames {
    /// How many bytes the device has.
    fn capacity(&self) -> ByteLen;

    /// The frame of byte `at`: device memory without a descriptor.
    fn frame(&self, at: BytePos) -> Option<PfnT>;
}

impl DeviceFrames for PmemFrames {
    fn capacity(&self) -> ByteLen {
        self.len()
    }

    fn frame(&self, at: BytePos) -> Option<PfnT> {
        self.pfn_of(at, PfnFlags::DEV)
    }
}

/// The address space that a device's frames are mapped in, for one thread.
#[derive(Debug)]
pub(crate) struct Mapper<'i, V: Vspace, F> {
    vmalloc: Vmalloc<V, NoDescriptors>,
    frames: &'i F,
    ctx: MaySleep,
    /// Whether objects may be changed.
    protection: Protection,
    mapped: Cell<u64>,
}

impl<'i> Mapper<'i, HostVspace, PmemFrames> {
    /// A space of this process for the frames of `frames`. Nothing is mapped yet.
    pub(crate) fn new(
        frames: &'i PmemFrames,
        protection: Protection,
    ) -> Result<Self, Box<dyn core::error::Error>> {
        let mut shown = HostFrames::new();
        shown.add(frames.range(), frames.file(), 0)?;
        let len = WindowLen::covering(SPACE).ok_or("no such space")?;
        let space = HostVspace::reserve(Arc::new(shown), len)?;
        Ok(Self::within(space, frames, protection))
    }
}

impl<'i, V: Vspace, F: DeviceFrames> Mapper<'i, V, F> {
    /// All of `space` for the frames of `frames`, which it has to be able to show.
    pub(crate) fn within(space: V, frames: &'i F, protection: Protection) -> Self {
        Mapper {
            vmalloc: Vmalloc::new(space, NoDescriptors, VmallocConfig::for_cpus(1)),
            frames,
            ctx: MaySleep::claim(),
            protection,
            mapped: Cell::new(0),
        }
    }

    /// Frames that have been mapped.
    pub(crate) fn mapped(&self) -> u64 {
        self.mapped.get()
    }

    /// The frames of `pieces`. None has a descriptor: they are `DEV` and not `MAP`.
    fn frames_of(&self, pieces: &[Piece], place: Place) -> Result<Vec<PfnT>, XfsError> {
        let mut frames = Vec::new();
        for Piece { at, len } in pieces {
            if !at.get().is_multiple_of(PAGE_SIZE) || !len.get().is_multiple_of(PAGE_SIZE) {
                return Err(XfsError::Unsupported {
                    place,
                    field: "piece of a directory block at byte",
                    value: at.get(),
                    why: "it is not a number of whole frames",
                });
            }
            for nth in 0..len.get() / PAGE_SIZE {
                let at = BytePos::new(at.get() + nth * PAGE_SIZE);
                let frame = self.frames.frame(at);
                frames.push(frame.ok_or(XfsError::BeyondDevice {
                    place,
                    at,
                    len: *len,
                    capacity: self.frames.capacity(),
                })?);
            }
        }
        Ok(frames)
    }
}

impl<'m, V: Vspace, F: DeviceFrames> Objects for &'m Mapper<'_, V, F> {
    type Object = Mapped<'m, V>;

    fn object(&self, pieces: &[Piece], place: Place) -> Result<Mapped<'m, V>, XfsError> {
        let mapper: &'m Mapper<'_, V, F> = self;
        let frames = mapper.frames_of(pieces, place)?;
        let refused = |reason: Box<str>| XfsError::Map {
            place,
            frames: frames.len(),
            reason,
        };
        let address = mapper
            .vmalloc
            .vmap(&mapper.ctx, &frames, mapper.protection)
            .map_err(|error| refused(error.to_string().into()))?;
        mapper.mapped.set(mapper.mapped.get() + frames.len() as u64);
        let at = mapper.vmalloc.space().offset_of(address);
        Ok(Mapped {
            mapper: &mapper.vmalloc,
            ctx: &mapper.ctx,
            address,
            at: at.ok_or_else(|| refused("an address outside its space".into()))?,
            frames: frames.len(),
            place,
        })
    }
}

/// A directory block, as one run of addresses.
#[derive(Debug)]
pub(crate) struct Mapped<'m, V: Vspace> {
    mapper: &'m Vmalloc<V, NoDescriptors>,
    ctx: &'m MaySleep,
    address: VirtAddr,
    at: WindowOffset,
    frames: usize,
    place: Place,
}

impl<V: Vspace> Mapped<'_, V> {
    fn refused(&self, reason: impl core::fmt::Display) -> XfsError {
        XfsError::Map {
            place: self.place,
            frames: self.frames,
            reason: reason.to_string().into(),
        }
    }
}

impl<V: Vspace> Object for Mapped<'_, V> {
    #[expect(unsafe_code, reason = "looks at the device's own bytes")]
    fn look<R>(&self, look: impl FnOnce(&[u8]) -> R) -> Result<R, XfsError> {
        let (space, len) = (self.mapper.space(), self.frames * PAGE_SIZE as usize);
        // SAFETY: only our drop unmaps the pages. Their bytes change by `change`, which takes `&mut self`, while no other object of the
        // directory block exists; and by bios that write, of which there is none. Other processes are asked to leave the image alone.
        let seen = unsafe { space.view(self.at, len, look) };
        seen.map_err(|error| self.refused(error))
    }
}

impl<V: Vspace> Change for Mapped<'_, V> {
    fn change(&mut self, at: usize, bytes: &[u8]) -> Result<(), XfsError> {
        let end = at.checked_add(bytes.len());
        let inside = end.is_some_and(|end| end <= self.frames * PAGE_SIZE as usize);
        let at = self.at.checked_add(at as u64).filter(|_| inside);
        let at = at.ok_or_else(|| self.refused("a change past its end"))?;
        let written = self.mapper.space().write(at, bytes);
        written.map_err(|error| self.refused(error))
    }
}

impl<V: Vspace> Drop for Mapped<'_, V> {
    fn drop(&mut self) {
        // Lazily: its addresses come back with the next purge. What is refused stays mapped, and can be seen in the list of areas.
        let _ = self.mapper.vunmap(self.ctx, self.address);
    }
}
