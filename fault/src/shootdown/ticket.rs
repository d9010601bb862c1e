//! Tickets: one flush for all who asked before it.
