//! Devices that together make one: how a request finds the member it is for, and how a flush finds
//! all.
//!
//! ```text
//!             within one member: the same request, at its place there     --> one device
//!  request -> across an end:     pieces, one after the other (nested)     --> several
//!             flush:             the same request, from member to member  --> all
//! ```

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::fmt;

use pageless_pfn::{ByteLen, PhysSegment};

use super::trail::Trail;
use crate::bio::SegmentList;
use crate::device::{Abort, BlockDevice, Submitted};
use crate::flags::BioFlags;
use crate::op::Op;
use crate::position::{BytePos, SECTOR_SIZE, Sector};
use crate::request::nested::carry_out;
use crate::request::{Done, QueueId, Request, Tag};
use crate::status::{BlkError, Failure};
use crate::sync::Lock;

/// Where a place of the whole lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) member: usize,
    /// Where on the member.
    pub(super) position: BytePos,
    /// How many bytes from there on belong together.
    pub(super) left: u64,
}

/// How the places of the whole lie on its members.
pub(super) trait Layout {
    /// Where a place is; `None` past the end.
    fn place(&self, at: BytePos) -> Option<Place>;

    /// The place of the whole at which `at` of a member lies: what [`Layout::place`] does,
    /// backwards.
    fn origin(&self, member: usize, at: BytePos) -> BytePos;
}

/// A request that goes to all members, waiting for one that had no room for it.
struct Waiting {
    member: usize,
    request: Request,
}

/// Requests on their way from member to member.
#[derive(Default)]
struct Round {
    /// Where each of those is that some member keeps, by the address of what its handle points to:
    /// queue and tag do not tell nested ones apart.
    at: BTreeMap<usize, usize>,
    waiting: Vec<Waiting>,
}

/// The members of a device.
pub(super) struct Members<D> {
    devices: Box<[D]>,
    pub(super) trail: Trail,
    round: Lock<Round>,
}

impl<D: BlockDevice> Members<D> {
    pub(super) fn new(devices: Box<[D]>) -> Self {
        Self {
            devices,
            trail: Trail::default(),
            round: Lock::default(),
        }
    }

    pub(super) fn devices(&self) -> &[D] {
        &self.devices
    }

    #[inline]
    pub(super) fn submit(&self, layout: &impl Layout, mut request: Request) -> Submitted {
        let op = request.op();
        if matches!(op, Op::Flush | Op::ZoneResetAll) {
            return self.visit(0, request);
        }
        let above = request.position();
        let Some(place) = layout.place(above) else {
            return request.run(|_| Err(BlkError::Io.into()));
        };
        if request.len().get() > place.left {
            return request.run(|request| self.in_pieces(layout, request));
        }
        if let Err(error) = self.trail.remap(&mut request, place.position) {
            return request.run(|_| Err(error.into()));
        }
        match self.devices[place.member].submit(request) {
            Submitted::Done(done) => Submitted::Done(from_member(layout, place.member, done)),
            // It will be submitted again, to us.
            Submitted::Busy(mut request) => match request.remap(above) {
                Ok(()) => Submitted::Busy(request),
                Err(error) => request.run(|_| Err(error.into())),
            },
            Submitted::Kept => Submitted::Kept,
        }
    }

    pub(super) fn poll(&self, layout: &impl Layout, queue: QueueId, done: &mut dyn FnMut(Done)) {
        self.try_again(queue, done);
        // A member may hold a lock while it hands over, so what goes on to another one goes later.
        let mut further = Vec::new();
        for (member, device) in self.devices.iter().enumerate() {
            device.poll(queue, &mut |finished| {
                if matches!(finished.op(), Op::Flush | Op::ZoneResetAll) {
                    further.push(finished);
                } else {
                    done(from_member(layout, member, finished));
                }
            });
        }
        for finished in further {
            let member = self.round.lock().at.remove(&address_of(&finished.0));
            match member {
                Some(member) => self.next_member(member, finished, done),
                None => done(finished),
            }
        }
    }

    pub(super) fn abort(&self, queue: QueueId, tag: Tag) -> Abort {
        let mut round = self.round.lock();
        let named = |one: &Waiting| one.request.queue() == queue && one.request.tag() == tag;
        if let Some(found) = round.waiting.iter().position(named) {
            return Abort::Aborted(round.waiting.swap_remove(found).request);
        }
        drop(round);
        for device in &self.devices {
            if let Abort::Aborted(request) = device.abort(queue, tag) {
                self.round.lock().at.remove(&address_of(&request));
                return Abort::Aborted(request);
            }
        }
        Abort::Running
    }

    pub(super) fn expect(&self, layout: &impl Layout, op: Op, at: BytePos) {
        if let Some(place) = layout.place(at) {
            self.devices[place.member].expect(op, place.position);
        }
    }

    /// Takes a request to `first` and those after it. The first failure ends it: nothing is
    /// promised then. What comes back as busy was not taken by `first`.
    #[cold]
    fn visit(&self, first: usize, mut request: Request) -> Submitted {
        let last = self.devices.len() - 1;
        for member in first..=last {
            let address = address_of(&request);
            // Before it is submitted: another thread may be handed it before this one returns.
            self.round.lock().at.insert(address, member);
            match self.devices[member].submit(request) {
                Submitted::Done(done) => {
                    self.round.lock().at.remove(&address);
                    if done.result().is_err() || member == last {
                        return Submitted::Done(done);
                    }
                    request = done.reopen();
                }
                Submitted::Kept => return Submitted::Kept,
                Submitted::Busy(request) => {
                    let mut round = self.round.lock();
                    round.at.remove(&address);
                    if member == first {
                        return Submitted::Busy(request);
                    }
                    round.waiting.push(Waiting { member, request });
                    return Submitted::Kept;
                }
            }
        }
        // There is at least one member, which has answered.
        Submitted::Busy(request)
    }

    fn next_member(&self, member: usize, finished: Done, done: &mut dyn FnMut(Done)) {
        if finished.result().is_err() || member + 1 == self.devices.len() {
            return done(finished);
        }
        self.visit_later(member + 1, finished.reopen(), done);
    }

    /// The same from within a poll, where nobody can be told that there is no room.
    fn visit_later(&self, member: usize, request: Request, done: &mut dyn FnMut(Done)) {
        match self.visit(member, request) {
            Submitted::Done(finished) => done(finished),
            Submitted::Kept => {}
            Submitted::Busy(request) => {
                self.round.lock().waiting.push(Waiting { member, request });
            }
        }
    }

    fn try_again(&self, queue: QueueId, done: &mut dyn FnMut(Done)) {
        let mut waiting = Vec::new();
        {
            let mut round = self.round.lock();
            if round.waiting.is_empty() {
                return;
            }
            waiting.extend(
                round
                    .waiting
                    .extract_if(.., |one| one.request.queue() == queue),
            );
        }
        for Waiting { member, request } in waiting {
            self.visit_later(member, request, done);
        }
    }

    /// Carries a request out that lies on several members: piece by piece, and waits for each.
    #[cold]
    fn in_pieces(&self, layout: &impl Layout, request: &Request) -> Result<(), Failure> {
        if request.flags().contains(BioFlags::NOWAIT) {
            return Err(BlkError::Again.into());
        }
        let whole = request.len().get();
        let mut at = 0;
        while at < whole {
            let failed = |error| Failure {
                error,
                done: ByteLen::new(at),
            };
            let above = request.position().checked_add(ByteLen::new(at));
            let place = above
                .and_then(|above| layout.place(above))
                .ok_or_else(|| failed(BlkError::Io))?;
            let len = place.left.min(whole - at);
            let mut piece = nested_part(request, at, len);
            self.trail
                .remap(&mut piece, place.position)
                .map_err(failed)?;
            carry_out(&self.devices[place.member], piece).map_err(|failure| Failure {
                error: failure.error,
                done: ByteLen::new(at + failure.done.get()),
            })?;
            at += len;
        }
        Ok(())
    }
}

/// A request of its own about `len` bytes of `request`, from its byte `from` on, at the same place.
pub(super) fn nested_part(request: &Request, from: u64, len: u64) -> Request {
    let position = request.position().get().wrapping_add(from);
    let mut part = Request::nested(
        request.op(),
        request.flags(),
        BytePos::new(position),
        ByteLen::new(len),
        part_of(request.segments(), from, len),
    );
    part.0.priority = request.priority();
    part.0.context = request.0.context;
    part
}

/// `len` bytes of memory, from byte `from` on.
pub(super) fn part_of(
    segments: impl Iterator<Item = PhysSegment>,
    from: u64,
    len: u64,
) -> SegmentList {
    let mut list = SegmentList::new();
    let (mut skip, mut left) = (from, len);
    for segment in segments {
        let here = segment.len().get();
        if skip >= here {
            skip -= here;
            continue;
        }
        let take = (here - skip).min(left);
        let Some(part) = segment.slice(ByteLen::new(skip), ByteLen::new(take)) else {
            break;
        };
        list.push(part);
        left -= take;
        skip = 0;
    }
    list
}

/// What a member has finished, as the whole reports it.
#[inline]
fn from_member(layout: &impl Layout, member: usize, mut done: Done) -> Done {
    if let Some(written) = done.0.0.written {
        done.0.0.written = origin_of(layout, member, written);
    }
    done
}

#[cold]
fn origin_of(layout: &impl Layout, member: usize, written: Sector) -> Option<Sector> {
    let at = layout.origin(member, written.position()?);
    Some(Sector::new(at.get() / SECTOR_SIZE))
}

/// What tells a request from all others for as long as it exists.
fn address_of(request: &Request) -> usize {
    core::ptr::from_ref(&*request.0).addr()
}

impl<D: fmt::Debug> fmt::Debug for Members<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.devices).finish()
    }
}
