//! Persistent memory that is not there: a memfd, or an image file.

use core::fmt;
use std::fs::{File, OpenOptions};
use std::io::{Error as IoError, ErrorKind};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use pageless_pfn::{
    ByteLen, FrameCount, FrameOffset, PAGE_SHIFT, PAGE_SIZE, Pfn, PfnFlags, PfnRange, PfnT,
    PhysSegment, RangeOutOfRange,
};
use rustix::fs::{FallocateFlags, MemfdFlags};
use rustix::io::Errno;
use thiserror::Error;

use super::mapping::{MapError, Mapping};
use super::ram::{offset_in, within};
use super::windows::Windows;
use crate::access::{AccessError, FrameAccess};
use crate::copy::Span;
use crate::position::BytePos;

/// How a device's bytes are brought into the address space.
///
/// A processor leaves a process 47 bits. What fits is mapped once and for all; of larger devices
/// a number of windows is mapped as they are needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapPolicy {
    /// Devices up to this size are mapped whole.
    pub direct_limit: ByteLen,
    /// Bytes of a window, a power of two and at least a frame.
    pub window: ByteLen,
    /// How many windows may be mapped at a time. Each copy uses up to two.
    pub windows: u16,
}

impl Default for MapPolicy {
    /// Up to 32 TiB whole; 32 windows of 1 TiB otherwise.
    fn default() -> Self {
        Self {
            direct_limit: ByteLen::new(32 << 40),
            window: ByteLen::new(1 << 40),
            windows: 32,
        }
    }
}

/// The frames of a device of persistent memory, backed by a memfd or by an image file.
///
/// A memfd is sparse, goes away with the process and may have any size up to 1 PiB. An image is
/// mapped shared: what is written reaches the file, by the time of a flush at the latest.
///
/// # Truncated images
/// The size of an image is checked when it is opened. If another process truncates it later,
/// touching what is gone raises SIGBUS, as with every mapped file. The same happens when the file
/// system, or memory in the case of a memfd, runs out while a hole is first touched;
/// [`PmemFrames::layout`] finds that out beforehand.
///
/// ```
/// use pageless_block::PmemFrames;
/// use pageless_pfn::{ByteLen, Pfn};
/// let frames = PmemFrames::memfd(Pfn::try_new(1 << 30)?, ByteLen::new(1 << 50))?;
/// assert_eq!(frames.range().count().get(), 1 << 38);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct PmemFrames {
    range: PfnRange,
    /// Bytes; a multiple of the frame size, not 0.
    len: u64,
    file: File,
    backing: Backing,
    source: Source,
}

#[derive(Debug)]
enum Backing {
    Direct(Mapping),
    Windowed(Windows),
}

#[derive(Debug)]
enum Source {
    Memfd,
    Image(PathBuf),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Memfd => f.write_str("memfd"),
            Self::Image(path) => write!(f, "{}", path.display()),
        }
    }
}

impl PmemFrames {
    /// The largest device: 1 PiB.
    pub const MAX_BYTES: u64 = 1 << 50;

    /// A sparse device in memory: `size` bytes of zeroes, whose first frame is `base`.
    ///
    /// # Errors
    /// [`PmemOpenError`]: a bad size, no address space, no memfd.
    pub fn memfd(base: Pfn, size: ByteLen) -> Result<Self, PmemOpenError> {
        Self::memfd_with(base, size, MapPolicy::default())
    }

    /// [`PmemFrames::memfd`] under another policy.
    ///
    /// # Errors
    /// As there, and [`PmemOpenError::Policy`].
    pub fn memfd_with(base: Pfn, size: ByteLen, policy: MapPolicy) -> Result<Self, PmemOpenError> {
        let path = Path::new("memfd");
        check_size(path, size)?;
        let os = |during| move |errno: Errno| PmemOpenError::os(path, during, errno.into());
        let fd = rustix::fs::memfd_create("pageless-pmem", MemfdFlags::CLOEXEC)
            .map_err(os("creating it"))?;
        rustix::fs::ftruncate(&fd, size.get()).map_err(os("giving it its size"))?;
        Self::build(base, size, File::from(fd), Source::Memfd, policy)
    }

    /// A device whose bytes are those of the image file at `path`, all of it.
    ///
    /// # Errors
    /// [`PmemOpenError`]: missing, a directory, read-only, empty, not a whole number of frames,
    /// no address space.
    pub fn open(base: Pfn, path: impl AsRef<Path>) -> Result<Self, PmemOpenError> {
        Self::open_with(base, path.as_ref(), None, MapPolicy::default())
    }

    /// A device of `size` bytes, the first ones of the image file at `path`.
    ///
    /// # Errors
    /// As [`PmemFrames::open`], and [`PmemOpenError::TooShort`].
    pub fn open_sized(
        base: Pfn,
        path: impl AsRef<Path>,
        size: ByteLen,
    ) -> Result<Self, PmemOpenError> {
        Self::open_with(base, path.as_ref(), Some(size), MapPolicy::default())
    }

    /// Either of the two under another policy; `size` is the file's where it is `None`.
    ///
    /// # Errors
    /// As there, and [`PmemOpenError::Policy`].
    pub fn open_with(
        base: Pfn,
        path: &Path,
        size: Option<ByteLen>,
        policy: MapPolicy,
    ) -> Result<Self, PmemOpenError> {
        let meta = std::fs::metadata(path).map_err(|e| PmemOpenError::from_open(path, e))?;
        if meta.is_dir() {
            return Err(PmemOpenError::Directory { path: path.into() });
        }
        if !meta.is_file() {
            return Err(PmemOpenError::NotAFile { path: path.into() });
        }
        // The system lets root write what nobody may write; an image is better left alone then.
        if meta.permissions().readonly() {
            let source = IoError::from(ErrorKind::PermissionDenied);
            return Err(PmemOpenError::ReadOnly {
                path: path.into(),
                source,
            });
        }
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(path)
            .map_err(|e| PmemOpenError::from_open(path, e))?;
        // Of the file that is now open, whatever the path leads to by now.
        let len = file
            .metadata()
            .map_err(|e| PmemOpenError::os(path, "looking at it", e))?
            .len();
        let size = size.unwrap_or(ByteLen::new(len));
        check_size(path, size)?;
        if len < size.get() {
            let (len, needed) = (ByteLen::new(len), size);
            return Err(PmemOpenError::TooShort {
                path: path.into(),
                len,
                needed,
            });
        }
        Self::build(base, size, file, Source::Image(path.into()), policy)
    }

    /// Makes a new, sparse image file of `size` bytes at `path` and opens it.
    ///
    /// # Errors
    /// [`PmemOpenError`]: there is something at `path` already, or as [`PmemFrames::open`].
    pub fn create(base: Pfn, path: impl AsRef<Path>, size: ByteLen) -> Result<Self, PmemOpenError> {
        let path = path.as_ref();
        check_size(path, size)?;
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .open(path)
            .map_err(|e| PmemOpenError::from_open(path, e))?;
        let source = Source::Image(path.into());
        let built = file
            .set_len(size.get())
            .map_err(|e| PmemOpenError::os(path, "giving it its size", e))
            .and_then(|()| Self::build(base, size, file, source, MapPolicy::default()));
        if built.is_err() {
            // Ours and empty. Left behind, it would stand in the way of the next attempt; if it
            // cannot be removed either, the first error is the one to tell.
            let _ = std::fs::remove_file(path);
        }
        built
    }

    fn build(
        base: Pfn,
        size: ByteLen,
        file: File,
        source: Source,
        policy: MapPolicy,
    ) -> Result<Self, PmemOpenError> {
        let range = PfnRange::try_new(base, FrameCount::new(size.get() >> PAGE_SHIFT))?;
        let MapPolicy {
            direct_limit,
            window,
            windows,
        } = policy;
        let backing = if size <= direct_limit {
            Backing::Direct(Mapping::shared(&file, 0, size)?)
        } else if window.get().is_power_of_two() && window.get() >= PAGE_SIZE && windows != 0 {
            Backing::Windowed(Windows::new(
                size.get(),
                window.get().trailing_zeros(),
                windows,
            )?)
        } else {
            return Err(PmemOpenError::Policy { policy });
        };
        Ok(Self {
            range,
            len: size.get(),
            file,
            backing,
            source,
        })
    }

    /// Which frames.
    pub const fn range(&self) -> PfnRange {
        self.range
    }

    /// How many bytes.
    pub const fn len(&self) -> ByteLen {
        ByteLen::new(self.len)
    }

    /// Never: a device has at least one frame.
    pub const fn is_empty(&self) -> bool {
        false
    }

    /// The file that the frames are stretches of, from its beginning: for whoever maps some of them once more.
    ///
    /// ```
    /// use std::os::unix::fs::FileExt as _;
    ///
    /// use pageless_block::{BytePos, FrameAccess, PmemFrames};
    /// use pageless_pfn::{ByteLen, Pfn, PfnFlags};
    /// let frames = PmemFrames::memfd(Pfn::try_new(1 << 30)?, ByteLen::new(1 << 20))?;
    /// let far = frames.segment(BytePos::new(0x5000), ByteLen::new(5), PfnFlags::DEV).unwrap();
    /// frames.write_bytes(far, b"hello")?;
    ///
    /// let file = std::fs::File::from(frames.file().try_clone_to_owned()?);
    /// let mut read = [0; 5];
    /// file.read_exact_at(&mut read, 0x5000)?;
    /// assert_eq!(&read, b"hello");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn file(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// Whether the bytes survive the process.
    pub const fn is_image(&self) -> bool {
        matches!(self.source, Source::Image(_))
    }

    /// Whether the device is mapped whole, so that reaching a byte never maps a window.
    pub const fn is_direct(&self) -> bool {
        matches!(self.backing, Backing::Direct(_))
    }

    /// The frame that holds byte `at`, with `flags` and `DEV`; `None` past the end.
    #[inline]
    pub fn pfn_of(&self, at: BytePos, flags: PfnFlags) -> Option<PfnT> {
        let pfn = self.range.nth(at.get() >> PAGE_SHIFT)?;
        Some(PfnT::new(pfn, flags.union(PfnFlags::DEV)))
    }

    /// `len` bytes from `at` on, with `flags` and `DEV`; `None` unless they all lie within and
    /// there is at least one.
    #[inline]
    pub fn segment(&self, at: BytePos, len: ByteLen, flags: PfnFlags) -> Option<PhysSegment> {
        if at.checked_add(len)?.get() > self.len {
            return None;
        }
        let within = FrameOffset::try_new(at.get() & (PAGE_SIZE - 1)).ok()?;
        PhysSegment::try_new(self.pfn_of(at, flags)?, within, len).ok()
    }

    /// Has the first `lines` cache lines from `at` on brought near, where the device is mapped as a whole.
    #[inline]
    pub(crate) fn expect(&self, at: BytePos, write: bool, lines: usize) {
        if let Backing::Direct(mapping) = &self.backing
            && let Some(span) = mapping.span(at.get(), 1)
        {
            span.expect(write, lines);
        }
    }

    /// Gives every frame of `len` bytes from `at` on its memory, or its blocks of the image's
    /// file system, so that writing there cannot run out of either. Contents stay.
    ///
    /// # Errors
    /// [`LayoutError`] if there is not enough, which is found out before anything is taken as far
    /// as that can be known.
    pub fn layout(&self, at: BytePos, len: ByteLen) -> Result<(), LayoutError> {
        let end = at.checked_add(len).map_or(u64::MAX, BytePos::get);
        if end > self.len {
            let capacity = self.len();
            return Err(LayoutError::PastEnd { at, len, capacity });
        }
        if len.is_zero() {
            return Ok(());
        }
        let taken = self
            .file
            .metadata()
            .map_or(0, |m| m.blocks().saturating_mul(512));
        let needed = ByteLen::new(len.get().saturating_sub(taken));
        let available = match self.source {
            Source::Memfd => available_memory(),
            Source::Image(_) => self.available_blocks(),
        };
        if let Some(available) = available
            && needed > available
        {
            return Err(match self.source {
                Source::Memfd => LayoutError::NoMemory { needed, available },
                Source::Image(_) => self.no_space(len, Some(available)),
            });
        }
        match rustix::fs::fallocate(&self.file, FallocateFlags::empty(), at.get(), len.get()) {
            // A file system that cannot do this allocates on the first write, as it likes.
            Ok(()) | Err(Errno::OPNOTSUPP) => {}
            Err(Errno::NOSPC | Errno::NOMEM | Errno::DQUOT) => {
                return Err(self.no_space(len, available));
            }
            Err(errno) => return Err(self.layout_os(errno)),
        }
        match self.source {
            Source::Memfd => self.populate(at, len),
            Source::Image(_) => Ok(()),
        }
    }

    /// Maps every frame of `len` bytes from `at` on, writable, so that touching it later does not
    /// fault. The frames of an image are read from it, and count as changed. Contents stay.
    /// Nothing to do where the device is not mapped whole.
    ///
    /// # Errors
    /// [`LayoutError`] as for [`PmemFrames::layout`], which has to come first if holes of an image
    /// are not to be filled here.
    pub fn populate(&self, at: BytePos, len: ByteLen) -> Result<(), LayoutError> {
        let end = at.checked_add(len).map_or(u64::MAX, BytePos::get);
        if end > self.len {
            let capacity = self.len();
            return Err(LayoutError::PastEnd { at, len, capacity });
        }
        let Backing::Direct(mapping) = &self.backing else {
            return Ok(());
        };
        if len.is_zero() {
            return Ok(());
        }
        let first = at.get() & !(PAGE_SIZE - 1);
        match mapping.populate(first, end.next_multiple_of(PAGE_SIZE) - first) {
            // Kernels before 5.14 map them on first touch.
            Ok(()) | Err(Errno::INVAL) => Ok(()),
            Err(Errno::NOMEM | Errno::FAULT) => Err(self.no_space(len, None)),
            Err(errno) => Err(self.layout_os(errno)),
        }
    }

    /// What the image's file system has left for us, if it says so.
    fn available_blocks(&self) -> Option<ByteLen> {
        let stat = rustix::fs::fstatvfs(&self.file).ok()?;
        Some(ByteLen::new(stat.f_bavail.saturating_mul(stat.f_frsize)))
    }

    fn no_space(&self, len: ByteLen, available: Option<ByteLen>) -> LayoutError {
        LayoutError::NoSpace {
            source_name: self.source.to_string(),
            len,
            available,
        }
    }

    fn layout_os(&self, errno: Errno) -> LayoutError {
        LayoutError::Os {
            source_name: self.source.to_string(),
            source: errno.into(),
        }
    }

    /// Writes what has been changed back to the image, and waits. Nothing to do for a memfd.
    pub(crate) fn sync(&self) -> Result<(), Errno> {
        match self.source {
            Source::Memfd => Ok(()),
            // Linux's `msync(MS_SYNC)` is this and a walk over the mappings. Windows come and go besides.
            Source::Image(_) => rustix::fs::fdatasync(&self.file),
        }
    }

    /// Gives the memory or the blocks behind a range back; it reads as zeroes afterwards.
    pub(crate) fn punch(&self, at: BytePos, len: ByteLen) -> Result<(), Errno> {
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        rustix::fs::fallocate(&self.file, flags, at.get(), len.get())
    }
}

impl FrameAccess for PmemFrames {
    #[inline]
    fn covers(&self, pfn: Pfn) -> bool {
        self.range.contains(pfn)
    }

    #[inline]
    fn with<R>(
        &self,
        segment: PhysSegment,
        f: impl FnOnce(Span<'_>) -> R,
    ) -> Result<R, AccessError> {
        let pfn = segment.frame().pfn();
        let offset = offset_in(self.range, segment.phys());
        // A segment may run on into the frames of another provider: this one ends where it ends.
        let len = within(self.range, offset, segment.len().get());
        match &self.backing {
            Backing::Direct(mapping) => match mapping.span(offset, len) {
                Some(span) if len > 0 => Ok(f(span)),
                _ => Err(AccessError::NotBacked { pfn }),
            },
            Backing::Windowed(windows) => {
                if len == 0 {
                    return Err(AccessError::NotBacked { pfn });
                }
                windows
                    .with(&self.file, offset, len, f)
                    .map_err(|_| AccessError::NoWindow {
                        pfn,
                        windows: windows.count(),
                    })
            }
        }
    }
}

fn check_size(path: &Path, size: ByteLen) -> Result<(), PmemOpenError> {
    if size.is_zero() {
        Err(PmemOpenError::Empty { path: path.into() })
    } else if size.get() > PmemFrames::MAX_BYTES {
        Err(PmemOpenError::TooLarge {
            path: path.into(),
            size,
        })
    } else if !size.get().is_multiple_of(PAGE_SIZE) {
        Err(PmemOpenError::PartialFrame {
            path: path.into(),
            size,
        })
    } else {
        Ok(())
    }
}

/// What the kernel thinks could be allocated without swapping, if it says so.
fn available_memory() -> Option<ByteLen> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(ByteLen::new(kib.checked_mul(1024)?))
}

/// Why there is no such device. Sizes are in bytes.
#[derive(Debug, Error)]
pub enum PmemOpenError {
    /// There is no file.
    #[error("{}: there is no such file", path.display())]
    Missing {
        /// Where.
        path: PathBuf,
    },
    /// There is a file already, and a new one was asked for.
    #[error("{}: exists already", path.display())]
    Exists {
        /// Where.
        path: PathBuf,
    },
    /// It is a directory.
    #[error("{}: is a directory, not an image file", path.display())]
    Directory {
        /// Where.
        path: PathBuf,
    },
    /// It is a device, a pipe or the like.
    #[error("{}: is not a regular file", path.display())]
    NotAFile {
        /// Where.
        path: PathBuf,
    },
    /// It may not be written. A file whose mode lets nobody write counts, for root too.
    #[error("{}: cannot be opened for writing: {source}", path.display())]
    ReadOnly {
        /// Where.
        path: PathBuf,
        /// What the system says.
        source: IoError,
    },
    /// It is shorter than the device.
    #[error("{}: has {len}, the device needs {needed}", path.display())]
    TooShort {
        /// Where.
        path: PathBuf,
        /// Its size.
        len: ByteLen,
        /// The size of the device.
        needed: ByteLen,
    },
    /// No bytes.
    #[error("{}: a device of 0 bytes", path.display())]
    Empty {
        /// Where.
        path: PathBuf,
    },
    /// Not a whole number of frames.
    #[error("{}: {size} are not a multiple of the frame size, {PAGE_SIZE}", path.display())]
    PartialFrame {
        /// Where.
        path: PathBuf,
        /// The size.
        size: ByteLen,
    },
    /// More than 1 PiB.
    #[error("{}: {size} are more than the largest device, 1 PiB = {} bytes", path.display(), PmemFrames::MAX_BYTES)]
    TooLarge {
        /// Where.
        path: PathBuf,
        /// The size.
        size: ByteLen,
    },
    /// The window size is no power of two or below a frame, or there are no windows.
    #[error(
        "{} windows of {}: a window is a power of two of at least {PAGE_SIZE} bytes",
        policy.windows,
        policy.window
    )]
    Policy {
        /// The policy.
        policy: MapPolicy,
    },
    /// The last frame would have no number.
    #[error(transparent)]
    Range(#[from] RangeOutOfRange),
    /// It cannot be mapped.
    #[error(transparent)]
    Map(#[from] MapError),
    /// The system refused for another reason.
    #[error("{}: {during} failed: {source}", path.display())]
    Os {
        /// Where.
        path: PathBuf,
        /// At what.
        during: &'static str,
        /// What the system says.
        source: IoError,
    },
}

impl PmemOpenError {
    fn os(path: &Path, during: &'static str, source: IoError) -> Self {
        Self::Os {
            path: path.into(),
            during,
            source,
        }
    }

    fn from_open(path: &Path, source: IoError) -> Self {
        let path = path.to_path_buf();
        match source.kind() {
            ErrorKind::NotFound => Self::Missing { path },
            ErrorKind::AlreadyExists => Self::Exists { path },
            ErrorKind::IsADirectory => Self::Directory { path },
            ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
                Self::ReadOnly { path, source }
            }
            _ => Self::Os {
                path,
                during: "opening it",
                source,
            },
        }
    }
}

/// Why a range cannot be laid out.
#[derive(Debug, Error)]
pub enum LayoutError {
    /// The range does not lie within the device.
    #[error("{len} at {at} reach past the end of the device, {capacity}")]
    PastEnd {
        /// Where it begins.
        at: BytePos,
        /// How many bytes.
        len: ByteLen,
        /// The size of the device.
        capacity: ByteLen,
    },
    /// The host has less memory than that: lay out less.
    #[error("laying out takes {needed} more of memory, of which {available} are available")]
    NoMemory {
        /// How much more is needed at least.
        needed: ByteLen,
        /// How much there is.
        available: ByteLen,
    },
    /// The file system, or memory, ran out on the way. Part of the range may be laid out.
    #[error("{source_name}: no space to lay out {len}{}", .available.map(|a| format!("; {a} were left")).unwrap_or_default())]
    NoSpace {
        /// Which device.
        source_name: String,
        /// How many bytes were to be laid out, those included that were there already.
        len: ByteLen,
        /// What was left beforehand, where that is known.
        available: Option<ByteLen>,
    },
    /// The system refused for another reason.
    #[error("{source_name}: laying out failed: {source}")]
    Os {
        /// Which device.
        source_name: String,
        /// What the system says.
        source: IoError,
    },
}
