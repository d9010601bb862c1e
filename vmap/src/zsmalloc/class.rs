//! Size classes: which sizes share their zspages, and how many frames a zspage has (Linux: mm/zsmalloc.c).

use alloc::vec::Vec;

use pageless_pfn::PAGE_SIZE;

/// Objects begin at multiples of this many bytes.
pub const ALIGN: usize = 8;
/// Bytes at the start of each object that hold its handle, except in the huge class.
pub const HEADER: usize = 8;
/// The smallest class, in bytes.
pub const MIN_CLASS: usize = 32;
/// From one class to the next before any are merged, in bytes.
pub const CLASS_DELTA: usize = 16;
/// The largest object, in bytes.
pub const MAX_OBJECT: usize = PAGE_SIZE as usize;
/// Classes before any are merged.
pub const CLASSES: usize = (MAX_OBJECT - MIN_CLASS).div_ceil(CLASS_DELTA) + 1;

const _: () = assert!(CLASSES == 255 && CLASS_DELTA == PAGE_SIZE as usize >> 8);
const _: () = assert!(HEADER.is_multiple_of(ALIGN) && CLASS_DELTA.is_multiple_of(ALIGN));
/// The class of a size is kept in eight bits.
const _: () = assert!(CLASSES <= u8::MAX as usize);

/// The most frames that a zspage may have (Linux: `CONFIG_ZSMALLOC_CHAIN_SIZE`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChainSize(u8);

/// Not a chain size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("zspages of up to {frames} frames: 4 to 16 are possible")]
pub struct ChainSizeOutOfRange {
    /// What was asked for.
    pub frames: u8,
}

impl ChainSize {
    /// Linux's default, 8.
    pub const DEFAULT: ChainSize = ChainSize(8);
    pub(super) const LARGEST: usize = 16;

    /// At most `frames` frames in a zspage.
    ///
    /// # Errors
    ///
    /// It is not 4 to 16.
    pub const fn try_new(frames: u8) -> Result<Self, ChainSizeOutOfRange> {
        if frames >= 4 && frames as usize <= Self::LARGEST {
            Ok(ChainSize(frames))
        } else {
            Err(ChainSizeOutOfRange { frames })
        }
    }

    /// As a number.
    #[must_use]
    pub const fn get(self) -> u8 {
        self.0
    }
}

impl Default for ChainSize {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// What all zspages of a class have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClassShape {
    /// Its number among the 255: the largest of those merged into it.
    pub number: u8,
    /// Bytes from one object to the next.
    pub size: u16,
    /// Frames of a zspage.
    pub pages: u8,
    /// Objects of a zspage.
    pub objects: u16,
}

impl ClassShape {
    /// Whether a zspage is one frame with one object in it. Such an object has no header: its handle is kept beside the frame.
    #[must_use]
    pub const fn is_huge(self) -> bool {
        self.pages == 1 && self.objects == 1
    }

    /// Bytes that an object of this class can hold.
    #[must_use]
    pub const fn capacity(self) -> usize {
        self.size as usize - self.header()
    }

    pub(super) const fn header(self) -> usize {
        if self.is_huge() { 0 } else { HEADER }
    }

    /// How many of its objects cross from one frame into the next.
    #[must_use]
    pub fn crossing(self) -> u16 {
        let page = PAGE_SIZE as usize;
        let size = usize::from(self.size);
        let crosses = |index: u16| {
            let first = usize::from(index) * size;
            first / page != (first + size - 1) / page
        };
        (0..self.objects)
            .map(|index| u16::from(crosses(index)))
            .sum()
    }
}

/// Frames of a zspage of objects of `size` bytes: as many as waste the least, and the fewest of those.
const fn frames_of_zspage(size: usize, chain: ChainSize) -> u8 {
    if size.is_power_of_two() {
        return 1;
    }
    let mut best = (1_u8, usize::MAX);
    let mut frames = 1;
    while frames <= chain.0 {
        let waste = frames as usize * PAGE_SIZE as usize % size;
        if waste < best.1 {
            best = (frames, waste);
        }
        frames += 1;
    }
    best.0
}

/// All classes of a pool, and which size belongs to which.
#[derive(Debug)]
pub struct ClassTable {
    shapes: Vec<ClassShape>,
    by_number: [u8; CLASSES],
    huge_threshold: usize,
}

impl ClassTable {
    /// The classes of zspages of at most `chain` frames. Neighbours whose zspages have as many frames and as many objects are one class.
    ///
    /// ```
    /// use pageless_vmap::zsmalloc::{ChainSize, ClassTable};
    /// let classes = ClassTable::new(ChainSize::DEFAULT);
    /// assert_eq!((classes.shapes().len(), classes.huge_threshold()), (119, 3625));
    /// ```
    #[must_use]
    pub fn new(chain: ChainSize) -> Self {
        let mut shapes: Vec<ClassShape> = Vec::new();
        let mut by_number = [0; CLASSES];
        let mut huge_threshold = None;
        for number in (0..CLASSES).rev() {
            let size = MIN_CLASS + number * CLASS_DELTA;
            let pages = frames_of_zspage(size, chain);
            let objects = usize::from(pages) * PAGE_SIZE as usize / size;
            let shape = ClassShape {
                number: number as u8,
                size: size as u16,
                pages,
                objects: objects as u16,
            };
            if pages != 1 && objects != 1 && huge_threshold.is_none() {
                // With its header it would no longer fit here.
                huge_threshold = Some(size - HEADER + 1);
            }
            let same = |last: &&ClassShape| (last.pages, last.objects) == (pages, shape.objects);
            if shapes.last().filter(same).is_none() {
                shapes.push(shape);
            }
            by_number[number] = (shapes.len() - 1) as u8;
        }
        // They were found from the largest down.
        shapes.reverse();
        shapes.shrink_to_fit();
        let last = shapes.len() - 1;
        for class in &mut by_number {
            *class = last as u8 - *class;
        }
        ClassTable {
            shapes,
            by_number,
            huge_threshold: huge_threshold.unwrap_or(MAX_OBJECT),
        }
    }

    /// The classes, smallest first.
    #[must_use]
    pub fn shapes(&self) -> &[ClassShape] {
        &self.shapes
    }

    /// The smallest object, in bytes, that has a frame for itself (`zs_huge_class_size`).
    #[must_use]
    pub fn huge_threshold(&self) -> usize {
        self.huge_threshold
    }

    /// Which class an object of `size` bytes belongs to, by its place in [`shapes`](Self::shapes); `None` if there is none.
    #[must_use]
    pub fn index_of(&self, size: usize) -> Option<usize> {
        if size == 0 || size > MAX_OBJECT {
            return None;
        }
        let above = (size + HEADER).saturating_sub(MIN_CLASS);
        let number = above.div_ceil(CLASS_DELTA).min(CLASSES - 1);
        Some(usize::from(self.by_number[number]))
    }
}
