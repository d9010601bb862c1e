//! Frames: who has which, and how one asks for them.
//!
//! # Ownership
//!
//! [`FrameAllocator`] owns every frame of a [`FrameMemory`](pageless_fault::FrameMemory) that is not in a [`PageBlock`]. It hands out
//! blocks of 2^order frames, each at a multiple of its own size, and takes them back. It never looks into a frame.
//!
//! ```text
//!   zone:  free blocks of order 0 | 1 | 2 | ... | max     one lock
//!            ^                |
//!            | drain, spill   | refill (a batch)
//!            |                v
//!          list of CPU 0    list of CPU 1    ...          a lock each
//!            ^                |
//!   free of one frame       alloc of one frame            larger ones go to the zone itself
//! ```
//!
//! # Books
//!
//! A kernel keeps the lists of its buddy allocator in the 64-byte descriptors of the free frames. Here frames have none, so the books
//! stand beside them, and are the smaller for it:
//!
//! | book | bytes for each frame |
//! |---|---|
//! | a byte of state: free, taken (of which order), parked, tail | 1 |
//! | a bit for each block of each order: free as a whole | 0.25 |
//! | a bit for each word of those bits that is not zero, and so on | 0.004 |
//!
//! That is 1.26 bytes, a fiftieth of a descriptor: 320 MiB for each TiB, where an array of descriptors takes 16 GiB. Finding the lowest
//! free block of an order reads one word for each factor of 64 in the number of blocks.
//!
//! A block that comes back twice, or that another allocator handed out, is found by its state: [`FrameAllocator::try_free`].

mod allocator;
mod bit_tree;
mod block_at;
mod config;
mod counters;
mod fragmentation;
mod free_blocks;
mod gfp;
mod injection;
mod order;
mod percpu;
mod reclaimer;
mod self_check;
mod states;
mod statistics;
mod watermark;
mod zone;

pub use allocator::{AllocError, FrameAllocator, NotTaken};
pub use config::{FrameConfig, FrameConfigError, PerCpuPlan};
pub use counters::EventCounts;
pub use fragmentation::{FragmentError, Fragmentation, Fragmented};
pub use gfp::{Context, Gfp, ZoneKind};
pub use injection::{Injected, Injection};
pub use order::{Order, OrderOutOfRange, PageBlock};
pub use percpu::ListCounts;
pub use reclaimer::{Reclaimer, ReclaimerGuard};
pub use statistics::{FrameStatistics, FreeBlockCounts, ListStatistics, PerMille, ZoneStatistics};
pub use watermark::{WatermarkPlan, Watermarks};
