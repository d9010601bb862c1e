//! LZ4.

use core::fmt;

use lz4_flex::block::{CompressTable, compress_into_with_table, decompress_into};

use super::{Compressor, DecompressError, Page, Room};

/// LZ4's block format, without frame or length, as the kernel's `lz4` writes and reads it (lib/lz4). Its [`Work`](Compressor::Work) is 8 KiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Lz4;

/// The table of a compression.
pub struct Lz4Work(CompressTable);

impl fmt::Debug for Lz4Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lz4Work").finish_non_exhaustive()
    }
}

impl Compressor for Lz4 {
    type Work = Lz4Work;

    fn name(self) -> &'static str {
        "lz4"
    }

    fn work(self) -> Lz4Work {
        // Sixteen bits are enough for any place in a page.
        Lz4Work(CompressTable::small())
    }

    fn compress(self, work: &mut Lz4Work, page: &Page, into: &mut Room) -> Option<usize> {
        compress_into_with_table(page, into, &mut work.0).ok()
    }

    fn decompress(self, bytes: &[u8], page: &mut Page) -> Result<(), DecompressError> {
        DecompressError::unless_page(self.name(), bytes, decompress_into(bytes, page).ok())
    }
}
