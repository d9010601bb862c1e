//! Frames of the host: stretches of files in memory, each of which can be mapped in many places.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::cell::UnsafeCell;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use pageless_pfn::{FrameCount, PfnRange, PhysAddr};

use super::sys::{FileMapping, MemoryFile};
use crate::frames::{FrameMemory, NoSuchFrame};
use crate::machine::ReserveError;
use crate::vspace::VirtAddr;

/// Memory of this process that has frame numbers: a memfd, and a mapping of all of it, which stays.
///
/// ```
/// use pageless_fault::{FrameMemory, host::HostRam};
/// use pageless_pfn::{FrameCount, Pfn, PfnRange};
/// let frames = PfnRange::try_new(Pfn::try_new(0x100)?, FrameCount::new(16))?;
/// let ram = HostRam::new(frames)?;
/// ram.write(frames.start().phys(), b"hello")?;
/// let mut read = [0; 5];
/// ram.read(frames.start().phys(), &mut read)?;
/// assert_eq!(&read, b"hello");
/// # Ok::<(), Box<dyn core::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct HostRam {
    frames: PfnRange,
    file: MemoryFile,
    direct: FileMapping,
}

impl HostRam {
    /// Memory that is to be known as `frames`, zeroed. Memory is taken when it is first touched.
    ///
    /// # Errors
    ///
    /// [`ReserveError::AddressSpace`], [`ReserveError::Resources`].
    pub fn new(frames: PfnRange) -> Result<Self, ReserveError> {
        let asked = frames.count().get().saturating_mul(4096);
        let file = MemoryFile::new(asked)?;
        let direct = FileMapping::whole(file.as_fd(), asked)?;
        Ok(HostRam {
            frames,
            file,
            direct,
        })
    }

    /// The file that the frames are stretches of, from its beginning.
    #[must_use]
    pub fn file(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// Where in the direct mapping `len` bytes at `at` are.
    fn locate(&self, at: PhysAddr, len: usize) -> Result<usize, NoSuchFrame> {
        let inside = || {
            let first = at.get().checked_sub(self.frames.start().phys().get())?;
            let fits = first.checked_add(len as u64)? <= self.frames.count().bytes()?.get();
            fits.then_some(first as usize)
        };
        inside().ok_or(NoSuchFrame {
            at: at.get(),
            len: len as u64,
            frames: self.frames,
        })
    }
}

impl FrameMemory for HostRam {
    fn frames(&self) -> PfnRange {
        self.frames
    }

    fn direct_map(&self) -> VirtAddr {
        VirtAddr::new(self.direct.start())
    }

    fn read(&self, at: PhysAddr, into: &mut [u8]) -> Result<(), NoSuchFrame> {
        let at = self.locate(at, into.len())?;
        self.direct.read(at, into);
        Ok(())
    }

    fn write(&self, at: PhysAddr, from: &[u8]) -> Result<(), NoSuchFrame> {
        let at = self.locate(at, from.len())?;
        self.direct.write(at, from);
        Ok(())
    }

    fn zero(&self, frames: PfnRange) -> Result<(), NoSuchFrame> {
        let len = frames.count().get().saturating_mul(4096) as usize;
        let at = self.locate(frames.start().phys(), len)?;
        self.direct.zero(at, len);
        Ok(())
    }

    fn retire(&self, _frames: PfnRange) {}

    fn cells(&self, at: PhysAddr, len: usize) -> Option<&[UnsafeCell<u8>]> {
        let at = self.locate(at, len).ok()?;
        Some(self.direct.cells(at, len))
    }

    #[expect(unsafe_code, reason = "passes its own contract on")]
    unsafe fn view<R>(
        &self,
        at: PhysAddr,
        len: usize,
        look: impl FnOnce(&[u8]) -> R,
    ) -> Result<R, NoSuchFrame> {
        let at = self.locate(at, len)?;
        // SAFETY: the caller's word that nobody writes to these bytes meanwhile.
        Ok(look(unsafe { self.direct.bytes(at, len) }))
    }
}

/// Some frames, and the file that they are a stretch of.
#[derive(Debug)]
struct Backing {
    frames: PfnRange,
    file: OwnedFd,
    offset: u64,
}

/// What address space can be made to show: which frame is which page of which file.
#[derive(Debug, Default)]
pub struct HostFrames {
    /// In order of frame number, disjoint.
    backings: Vec<Backing>,
}

/// Why frames could not be added.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BackingError {
    /// Some of them are there already.
    #[error("frames {new:?} overlap frames {present:?}")]
    Overlap {
        /// To be added.
        new: PfnRange,
        /// There.
        present: PfnRange,
    },
    /// A file is mapped by whole pages.
    #[error("frames cannot begin at byte {offset} of a file: it is not a multiple of 4096")]
    Unaligned {
        /// In bytes.
        offset: u64,
    },
    /// No file is so long.
    #[error("frames {new:?} from byte {offset} of a file on end beyond any file")]
    BeyondFile {
        /// To be added.
        new: PfnRange,
        /// In bytes.
        offset: u64,
    },
    /// The file could not be duplicated.
    #[error("the file of frames {new:?}: {error}")]
    File {
        /// To be added.
        new: PfnRange,
        /// The system's answer.
        error: std::io::Error,
    },
}

impl HostFrames {
    /// No frames.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds `frames`, the first of which is at byte `offset` of `file`. The file is duplicated, not kept borrowed.
    ///
    /// # Errors
    ///
    /// See [`BackingError`]; nothing has been added.
    pub fn add(
        &mut self,
        frames: PfnRange,
        file: BorrowedFd<'_>,
        offset: u64,
    ) -> Result<(), BackingError> {
        if !offset.is_multiple_of(4096) {
            return Err(BackingError::Unaligned { offset });
        }
        let end = frames
            .count()
            .bytes()
            .and_then(|bytes| offset.checked_add(bytes.get()));
        if end.is_none_or(|end| i64::try_from(end).is_err()) {
            return Err(BackingError::BeyondFile {
                new: frames,
                offset,
            });
        }
        if frames.is_empty() {
            return Ok(());
        }
        let overlapping = self.backings.iter().find(|b| b.frames.intersects(frames));
        if let Some(present) = overlapping {
            return Err(BackingError::Overlap {
                new: frames,
                present: present.frames,
            });
        }
        let file = file
            .try_clone_to_owned()
            .map_err(|error| BackingError::File { new: frames, error })?;
        let at = self
            .backings
            .partition_point(|backing| backing.frames.start() < frames.start());
        let backing = Backing {
            frames,
            file,
            offset,
        };
        self.backings.insert(at, backing);
        Ok(())
    }

    /// Adds the frames of `ram`.
    ///
    /// # Errors
    ///
    /// As [`add`](Self::add).
    pub fn add_ram(&mut self, ram: &HostRam) -> Result<(), BackingError> {
        self.add(ram.frames, ram.file(), 0)
    }

    /// The frames of `ram` and no others, ready to be shared by spaces.
    ///
    /// # Errors
    ///
    /// As [`add`](Self::add).
    pub fn of_ram(ram: &HostRam) -> Result<Arc<Self>, BackingError> {
        let mut frames = Self::new();
        frames.add_ram(ram)?;
        Ok(Arc::new(frames))
    }

    /// How many of `frames`, from the first, are a stretch of one file, and the file and the offset in it. `None` if there is no such
    /// frame; `frames` is not empty.
    pub(super) fn locate(&self, frames: PfnRange) -> Option<(FrameCount, BorrowedFd<'_>, u64)> {
        let after = self
            .backings
            .partition_point(|backing| backing.frames.start() <= frames.start());
        let backing = &self.backings[after.checked_sub(1)?];
        let into = backing.frames.index_of(frames.start())?;
        let rest = backing.frames.count().get() - into;
        Some((
            frames.count().min(FrameCount::new(rest)),
            backing.file.as_fd(),
            backing.offset + into * 4096,
        ))
    }
}
