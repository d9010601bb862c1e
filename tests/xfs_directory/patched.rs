//! An image with some of its blocks replaced, in memory; directory blocks are copied together from their pieces.

use alloc::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use pageless_block::BytePos;
use pageless_pfn::ByteLen;

use crate::xfs::error::{Place, XfsError};
use crate::xfs::inode::Piece;
use crate::xfs::object::{Object, Objects};
use crate::xfs::volume::Source;

const BLOCK: u64 = 4096;

/// The image, and what is different.
#[derive(Debug)]
pub(crate) struct Patched {
    file: File,
    len: u64,
    blocks: BTreeMap<u64, Vec<u8>>,
}

impl Patched {
    pub(crate) fn open(image: &Path) -> Self {
        let file = File::open(image).unwrap();
        let len = file.metadata().unwrap().len();
        Patched {
            file,
            len,
            blocks: BTreeMap::new(),
        }
    }

    /// Ends the image here.
    pub(crate) fn cut(&mut self, len: u64) {
        self.len = len;
    }

    /// Makes the image itself what this is.
    pub(crate) fn save(&self, image: &Path) {
        let file = File::options().write(true).open(image).unwrap();
        for (block, bytes) in &self.blocks {
            file.write_all_at(bytes, block * BLOCK).unwrap();
        }
    }

    /// Undoes all patches.
    pub(crate) fn restore(&mut self) {
        self.blocks.clear();
    }

    fn block(&self, block: u64) -> Vec<u8> {
        self.blocks.get(&block).cloned().unwrap_or_else(|| {
            let mut bytes = vec![0; BLOCK as usize];
            self.file.read_exact_at(&mut bytes, block * BLOCK).unwrap();
            bytes
        })
    }

    pub(crate) fn get(&self, at: BytePos, into: &mut [u8]) -> Result<(), XfsError> {
        let len = ByteLen::new(into.len() as u64);
        assert!(
            at.checked_add(len).is_some_and(|end| end.get() <= self.len),
            "{len} at {at} are read from {} bytes",
            self.len
        );
        let mut at = at.get();
        let mut rest = into;
        while !rest.is_empty() {
            let skip = (at % BLOCK) as usize;
            let len = rest.len().min(BLOCK as usize - skip);
            let (here, behind) = rest.split_at_mut(len);
            here.copy_from_slice(&self.block(at / BLOCK)[skip..skip + len]);
            at += len as u64;
            rest = behind;
        }
        Ok(())
    }

    /// Replaces bytes.
    pub(crate) fn put(&mut self, at: u64, bytes: &[u8]) {
        for (nth, byte) in bytes.iter().enumerate() {
            let at = at + nth as u64;
            let block = self.block(at / BLOCK);
            let block = self.blocks.entry(at / BLOCK).or_insert(block);
            block[(at % BLOCK) as usize] = *byte;
        }
    }
}

impl Source for &Patched {
    fn capacity(&self) -> ByteLen {
        ByteLen::new(self.len)
    }

    fn read(&mut self, at: BytePos, into: &mut [u8]) -> Result<(), XfsError> {
        self.get(at, into)
    }
}

impl Objects for &Patched {
    type Object = Box<[u8]>;

    fn object(&self, pieces: &[Piece], _place: Place) -> Result<Box<[u8]>, XfsError> {
        let mut whole = Vec::new();
        for piece in pieces {
            let start = whole.len();
            whole.resize(start + piece.len.get() as usize, 0);
            self.get(piece.at, &mut whole[start..])?;
        }
        Ok(whole.into_boxed_slice())
    }
}

impl Object for Box<[u8]> {
    fn look<R>(&self, look: impl FnOnce(&[u8]) -> R) -> Result<R, XfsError> {
        Ok(look(self))
    }
}
