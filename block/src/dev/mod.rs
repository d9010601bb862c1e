//! Drivers.

pub(crate) mod bounce;
pub(crate) mod delay;
pub(crate) mod flakey;
pub(crate) mod linear;
mod members;
pub(crate) mod null;
pub(crate) mod partition;
#[cfg(feature = "std")]
pub(crate) mod pmem;
pub(crate) mod ram;
pub(crate) mod stripe;
mod trail;
pub(crate) mod write_cache;

use pageless_pfn::{ByteLen, PhysSegment};

use crate::access::FrameAccess;
use crate::frames::sparse::{SparseError, SparseFrames};
use crate::position::BytePos;
use crate::request::Request;
use crate::request::data::Data;
use crate::status::Failure;

/// Moves the first `len` bytes of a request between its memory and `at` in a store. The failure of
/// a segment says how many bytes those before it had.
fn transfer(
    store: &SparseFrames,
    memory: &impl FrameAccess,
    request: &Request,
    at: BytePos,
    len: ByteLen,
) -> Result<(), Failure> {
    match request.data() {
        Data::ToMemory(parts) => {
            each_part(parts.map(|part| part.segment()), at, len, |at, part| {
                store.read(at, memory, part)
            })
        }
        Data::FromMemory(parts) => {
            each_part(parts.map(|part| part.segment()), at, len, |at, part| {
                store.write(at, memory, part)
            })
        }
        Data::None => Ok(()),
    }
}

/// Calls `copy` with each segment of memory and the place that belongs to it, for the first `len`
/// bytes.
fn each_part(
    memory: impl Iterator<Item = PhysSegment>,
    at: BytePos,
    len: ByteLen,
    mut copy: impl FnMut(BytePos, PhysSegment) -> Result<(), SparseError>,
) -> Result<(), Failure> {
    let mut done = 0;
    for segment in memory {
        let here = segment.len().get().min(len.get() - done);
        // No bytes are left.
        let Some(part) = segment.slice(ByteLen::ZERO, ByteLen::new(here)) else {
            break;
        };
        at.checked_add(ByteLen::new(done))
            .ok_or(Failure::from(crate::BlkError::Io))
            .and_then(|at| copy(at, part).map_err(Failure::from))
            .map_err(|failure| Failure {
                done: ByteLen::new(done),
                ..failure
            })?;
        done += here;
    }
    Ok(())
}
