//! Looking on: events, and what is made of them.

pub(crate) mod blktrace;
pub(crate) mod counts;
pub(crate) mod event;
pub(crate) mod rwbs;
