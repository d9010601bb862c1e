//! Objects of 1 to 4096 bytes, stored almost without gaps: what compressed pages are kept in (Linux: mm/zsmalloc.c).
//!
//! # Ownership
//!
//! A pool ([`Zsmalloc`]) owns frames, which it takes one at a time from a [`FrameSource`]. Whoever holds a [`Handle`] owns the object
//! behind it, and it is given back once, by type. Where the object lies is the pool's affair: [compaction](Zsmalloc::compact) moves it
//! while nobody looks, so there are no pointers to it, only ways to look while it is held.
//!
//! ```text
//!   Handle --> slot: zspage, object, length, who holds it
//!                 |
//!                 v
//!   zspage:  frame 7        frame 3        frame 9            1 to 8 frames, wherever they are; objects of one size
//!           +--------+-----+---+-----------+----------+
//!           |object 0|object 1 |object 2   |object 3 ..       each with 8 bytes of header: the handle
//!           +--------+-----+---+-----------+----------+
//!                          ^ crosses a boundary
//! ```
//!
//! # Three ways to an object that crosses a boundary
//!
//! | way | what it costs | who it suits |
//! |---|---|---|
//! | [`with_copy`](Zsmalloc::with_copy) | a copy of the object | everybody |
//! | [`segments`](Zsmalloc::segments) | nothing | who can work on two pieces |
//! | [`PairWindow::map`] | two page-table entries and a flush on this CPU | who needs one piece, or writes in place |
//!
//! An object that lies within one frame is shown in place by all of them.
//!
//! # Locks
//!
//! A reader takes no lock: it holds the object by a count in its slot, so readers of different objects share nothing that is written, and
//! readers of one share one word. A writer holds it alone. The lock of a class protects its lists and the records of its zspages; it
//! is held while objects are placed, freed and moved, and never while frames are taken or given back.
//!
//! ```text
//!   an object that is held  >  lock of a class  >  another object, held alone: tried, never waited for
//! ```
//!
//! So whoever holds an object may store, free and compact others; nobody waits for an object with the lock of a class in his hands, and
//! nobody holds the locks of two classes. Whoever wants to write an object while he reads it waits for himself. A writer waits until
//! there is no reader, however many come.
//!
//! # What it takes
//!
//! The classes, the headers and the zspages are Linux's, so a pool has exactly as many frames as zsmalloc would have. Which objects
//! are in use is in a bitmap beside the zspage, not in links through the free ones: one bit for an object is less than 0.4 % of the
//! smallest, a caller's mistake in a frame cannot lead an allocation astray, and compaction need not read frames to find what is in
//! use. The header of a huge object, which has a frame for itself, is in the record of its zspage.
//!
//! | beside the frames | bytes |
//! |---|---|
//! | for each object | 8 |
//! | for each frame | 8 |
//! | for each zspage | 16, and 8 for each 64 objects |
//! | unused, of all these | at most an eighth |
//! | for the pool | 26 thousand |
//!
//! That is 0.8 % of the frames where objects are between 600 and 3000 bytes. [`PoolStats::memory_used`] counts it.
//!
//! # Example
//!
//! ```
//! use pageless_fault::MaySleep;
//! use pageless_vmap::frames::Gfp;
//! use pageless_vmap::zsmalloc::{FrameSource, Zsmalloc};
//!
//! fn round_trip<F: FrameSource>(pool: &Zsmalloc<F>) -> Result<(), Box<dyn std::error::Error>> {
//!     let ctx = MaySleep::claim();
//!     let handle = pool.malloc(&Gfp::kernel(&ctx), 5)?;
//!     pool.write(&handle, b"bytes")?;
//!     let mut local = [0; 4096];
//!     pool.with_copy(&handle, &mut local, |bytes| assert_eq!(bytes, b"bytes"))?;
//!     pool.free(handle)?;
//!     Ok(())
//! }
//! ```
mod access;
mod check;
mod class;
mod compact;
mod error;
mod handle;
mod pair;
mod pool;
mod slot;
mod source;
mod span;
mod stats;
mod table;
mod zspage;

pub use class::{
    ALIGN, CLASS_DELTA, CLASSES, ChainSize, ChainSizeOutOfRange, ClassShape, ClassTable, HEADER,
    MAX_OBJECT, MIN_CLASS,
};
pub use error::{AccessError, FreeRefused, MallocError, NotFreed};
pub use handle::Handle;
pub use pair::{ClaimError, MapPolicy, PairError, PairMapping, PairWindow, PairWindows};
pub use pool::Zsmalloc;
pub use source::{Frame, FrameSource, NoFrame};
pub use stats::{ClassStats, PoolStats};
