//! LZO.

use alloc::boxed::Box;
use core::fmt;

use lzokay::compress::{Dict, compress_no_alloc};
use lzokay::decompress::decompress;

use super::{Compressor, DecompressError, Page, Room};

/// LZO1X, the stream that the kernel's `lzo` writes and reads (lib/lzo; not that of `lzo-rle`).
///
/// The compressor follows chains of up to 2048 earlier places, where the kernel's looks at one: what it makes is a tenth smaller, and it
/// takes many times as long, most of all for pages of few different bytes. Its [`Work`](Compressor::Work) is 450 KiB. Where time
/// counts, take [`Lz4`](super::Lz4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Lzo;

/// The dictionary of a compression.
pub struct LzoWork(Box<Dict>);

impl fmt::Debug for LzoWork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LzoWork").finish_non_exhaustive()
    }
}

impl Compressor for Lzo {
    type Work = LzoWork;

    fn name(self) -> &'static str {
        "lzo"
    }

    fn work(self) -> LzoWork {
        LzoWork(Dict::new())
    }

    fn compress(self, work: &mut LzoWork, page: &Page, into: &mut Room) -> Option<usize> {
        compress_no_alloc(page, into, &mut work.0).ok()
    }

    fn decompress(self, bytes: &[u8], page: &mut Page) -> Result<(), DecompressError> {
        DecompressError::unless_page(self.name(), bytes, decompress(bytes, page).ok())
    }
}
