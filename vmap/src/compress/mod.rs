//! Pages made small: LZO and LZ4 from crates of others, behind one trait.
//!
//! ```text
//!   page --compress(Work)--> bytes --> an object of zsmalloc
//!                                            |  mapped, or copied where it crosses
//!   page <----------decompress---------------+  needs nothing but the bytes: they may be anything
//! ```
//!
//! What is decompressed has been in memory that others could have spoilt: every decoder here takes any bytes, and answers with a page or
//! with an error.

mod counted;
mod filled;
mod lz4;
mod lzo;
mod store;
mod windows;

use core::fmt;
use core::str::FromStr;

use pageless_pfn::PAGE_SIZE;

pub use counted::Counted;
pub use filled::{fill, filled_with};
pub use lz4::Lz4;
pub use lzo::Lzo;
pub use store::{
    Access, CompressedStore, Incompressible, LoadError, PutError, Reads, StoreStats, Stored,
};
pub use windows::{NoWindows, Windows};

/// Bytes of a page, as Rust counts them.
pub const PAGE: usize = PAGE_SIZE as usize;

/// The bytes of a page.
pub type Page = [u8; PAGE];

/// Where a page is compressed to: a page that does not get smaller gets larger.
pub type Room = [u8; 2 * PAGE];

/// What makes pages small, and whole again. The same page always becomes the same bytes.
///
/// ```
/// use pageless_vmap::compress::{Compressor, Lzo, PAGE};
/// let mut page = [0; PAGE];
/// page[..12].copy_from_slice(b"twelve bytes");
/// let mut small = [0; 2 * PAGE];
/// let len = Lzo.compress(&mut Lzo.work(), &page, &mut small).expect("mostly zeroes");
/// let mut again = [0xFF; PAGE];
/// Lzo.decompress(&small[..len], &mut again)?;
/// assert!(len < 64 && again == page);
/// # Ok::<(), pageless_vmap::compress::DecompressError>(())
/// ```
pub trait Compressor: Copy + Send + Sync + fmt::Debug {
    /// What one compression at a time works with: some KiB, kept for the next one.
    type Work: Send;

    /// What the kernel calls it (`comp_algorithm` of zram).
    fn name(self) -> &'static str;

    /// Memory to work with.
    fn work(self) -> Self::Work;

    /// Compresses `page` into the first bytes of `into` and says how many; `None` if the room is too small for them.
    fn compress(self, work: &mut Self::Work, page: &Page, into: &mut Room) -> Option<usize>;

    /// Makes a page of `bytes`, whatever they are.
    ///
    /// # Errors
    ///
    /// See [`DecompressError`]; what is in `page` then is unspecified.
    fn decompress(self, bytes: &[u8], page: &mut Page) -> Result<(), DecompressError>;
}

/// Bytes that are no compressed page. The page is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecompressError {
    /// They are not what the compressor makes.
    #[error("{bytes} bytes are no {algorithm} stream of a page")]
    Malformed {
        /// The compressor's name.
        algorithm: &'static str,
        /// How many bytes there were.
        bytes: usize,
    },
    /// They are, but of something shorter than a page.
    #[error("{bytes} bytes of {algorithm} become {made} bytes, which is no page")]
    Short {
        /// The compressor's name.
        algorithm: &'static str,
        /// How many bytes there were.
        bytes: usize,
        /// How many became of them.
        made: usize,
    },
}

impl DecompressError {
    /// What it means that the decoder of `algorithm` has made so many bytes of `bytes`, or has found no stream in them.
    fn unless_page(
        algorithm: &'static str,
        bytes: &[u8],
        made: Option<usize>,
    ) -> Result<(), DecompressError> {
        let bytes = bytes.len();
        match made {
            Some(PAGE) => Ok(()),
            Some(made) => Err(DecompressError::Short {
                algorithm,
                bytes,
                made,
            }),
            None => Err(DecompressError::Malformed { algorithm, bytes }),
        }
    }
}

/// A compressor chosen at run time.
///
/// ```
/// use pageless_vmap::compress::Algorithm;
/// assert_eq!("lz4".parse(), Ok(Algorithm::Lz4));
/// assert!("zip".parse::<Algorithm>().is_err());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// [`Lzo`].
    Lzo,
    /// [`Lz4`].
    Lz4,
}

impl Algorithm {
    /// Every one.
    pub const ALL: [Algorithm; 2] = [Algorithm::Lzo, Algorithm::Lz4];
}

/// What a compressor chosen at run time works with. Belongs to the one that made it: handed to another, it is
/// replaced.
#[derive(Debug)]
pub enum AlgorithmWork {
    /// Of [`Algorithm::Lzo`].
    Lzo(<Lzo as Compressor>::Work),
    /// Of [`Algorithm::Lz4`].
    Lz4(<Lz4 as Compressor>::Work),
}

impl Compressor for Algorithm {
    type Work = AlgorithmWork;

    fn name(self) -> &'static str {
        match self {
            Algorithm::Lzo => Lzo.name(),
            Algorithm::Lz4 => Lz4.name(),
        }
    }

    fn work(self) -> AlgorithmWork {
        match self {
            Algorithm::Lzo => AlgorithmWork::Lzo(Lzo.work()),
            Algorithm::Lz4 => AlgorithmWork::Lz4(Lz4.work()),
        }
    }

    fn compress(self, work: &mut AlgorithmWork, page: &Page, into: &mut Room) -> Option<usize> {
        match (self, work) {
            (Algorithm::Lzo, AlgorithmWork::Lzo(work)) => Lzo.compress(work, page, into),
            (Algorithm::Lz4, AlgorithmWork::Lz4(work)) => Lz4.compress(work, page, into),
            (_, work) => {
                *work = self.work();
                self.compress(work, page, into)
            }
        }
    }

    fn decompress(self, bytes: &[u8], page: &mut Page) -> Result<(), DecompressError> {
        match self {
            Algorithm::Lzo => Lzo.decompress(bytes, page),
            Algorithm::Lz4 => Lz4.decompress(bytes, page),
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Not the name of a compressor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no such compressor; there are lzo and lz4")]
pub struct UnknownAlgorithm;

impl FromStr for Algorithm {
    type Err = UnknownAlgorithm;

    fn from_str(name: &str) -> Result<Self, UnknownAlgorithm> {
        Algorithm::ALL
            .into_iter()
            .find(|algorithm| algorithm.name() == name)
            .ok_or(UnknownAlgorithm)
    }
}
