//! Looking on: events, and what is made of them.

pub(crate) mod event;
