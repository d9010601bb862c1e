//! The log: what had been decided when the machine stopped, and may not be on the device yet.
//!
//! ```text
//!   tail                                                    head
//!   | record: header, operations | record | ... | record     |  older or nothing
//! ```
//!
//! An operation is a piece of a transaction; transactions consist of items, and an item says what a buffer or an inode looks like from now on.
//! Only items of buffers are put back here: parts of 128 bytes and where they belong. A directory block that lies scattered on the device
//! has one item for each of its pieces.

mod buffer;
mod record;
mod recovery;
mod transaction;

pub(crate) use record::{Log, State};
pub(crate) use recovery::{Recovered, recover};
