//! Frames: who has which, and how one asks for them.

mod gfp;
mod order;

pub use gfp::{Context, Gfp, ZoneKind};
pub use order::{Order, OrderOutOfRange, PageBlock};
