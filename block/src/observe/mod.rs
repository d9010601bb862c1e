//! Looking on: events, and what is made of them.

pub(crate) mod blktrace;
pub(crate) mod counts;
pub(crate) mod event;
#[cfg(feature = "tracing")]
pub(crate) mod events;
pub(crate) mod histogram;
pub(crate) mod rwbs;
pub(crate) mod stat;
