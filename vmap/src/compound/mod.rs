//! Blocks of pages that are contiguous, physically if that can be had and virtually if it cannot.
//!
//! # Ownership
//!
//! [`Pages::alloc`] answers with a [`Page`]: a counted reference to a block of 2^order pages, of which the first, the *head*, stands for
//! all. More references come of [`Page::get`]; dropping the last one ends the block. The frames of a block, and one reference to the
//! descriptor of each, belong to the block. Where the block stands together through a mapping they are locked into that mapping, and so
//! into its shootdown: nobody has them back before no CPU can see them at the old addresses.
//!
//! ```text
//!                     one piece?                         references: word 1 of the head
//!   alloc(gfp, order) ----yes---> PageBlock --- marks ---> Page --get--> Page ... --drop--> last one
//!        | no, and the fallback is permitted                                                  |
//!        v                                                            tails first, the head's marks last
//!   2^order single frames --> AreaSpace::map --- marks, chain ---> Page                       |
//!                                   one piece: frames back at once <--------------------------+
//!                                   virtual: entries cleared, lazily shot down, then frames back
//! ```
//!
//! # What a caller has to know
//!
//! `head + n` is the n-th page of a block in one piece and of no other: ask [`Pages::compound_nth_page`], which counts or looks into the
//! page table. The address of a page is [`Pages::page_to_addr`]: in the direct map, or in the mapping. With that, all of it works the
//! same for both.
//!
//! Ending a block never sleeps and never sends an interrupt, whichever kind it is. What it leaves behind is purged by the next who may
//! sleep, when it has become too much.

mod check;
mod counters;
mod destructor;
mod error;
mod kept;
mod lookup;
mod mark;
mod page;
mod pages;
mod split;
mod teardown;

pub use counters::PageCounters;
pub use destructor::{Destructor, DestructorId};
pub use error::{AllocPagesError, NotSplit, SplitError};
pub use kept::KeptBlock;
pub use lookup::NoSuchAddress;
pub use page::Page;
pub use pages::Pages;
pub use split::Split;
