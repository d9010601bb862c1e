//! What Linux 6.12 does with a bio, as a list of decisions, and the points at which we decide otherwise.
//!
//! The order is that of the kernel: `submit_bio_noacct`, then `blk_mq_submit_bio` with its splits, then the
//! flush sequence.

use pageless_block::{BioFlags, Features, Op};
use smallvec::SmallVec;

use crate::case::{BLOCK, CAPACITY, Case, MAX, Shape, ZONE};
use crate::deviation::Deviation;

/// What the submitter hears.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// A completion, with `BLK_STS_*` and errno.
    Status(u8, i32),
    /// The bio itself: it was not taken in.
    Rejected,
}

pub(crate) const OK: Answer = Answer::Status(0, 0);
const NOTSUPP: Answer = Answer::Status(1, 95);
const IOERR: Answer = Answer::Status(10, 5);
const AGAIN: Answer = Answer::Status(12, 11);
const INVAL: Answer = Answer::Status(19, 22);

/// A request, as the driver sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) op: Op,
    pub(crate) flags: BioFlags,
    pub(crate) start: u64,
    pub(crate) len: u64,
}

/// What becomes of a bio.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) answer: Answer,
    /// What the driver gets, in order.
    pub(crate) seen: SmallVec<[Seen; 6]>,
}

impl From<Answer> for Outcome {
    fn from(answer: Answer) -> Self {
        let seen = SmallVec::new();
        Self { answer, seen }
    }
}

/// Whose rules.
pub(crate) enum Whose<'a> {
    Linux,
    /// Ours; remembers which deviations decided.
    Ours(&'a mut dyn FnMut(Deviation)),
}

impl Whose<'_> {
    /// Whether we decide otherwise here.
    fn deviates(&mut self, deviation: Deviation) -> bool {
        match self {
            Self::Linux => false,
            Self::Ours(note) => {
                note(deviation);
                true
            }
        }
    }
}

pub(crate) fn outcome(case: &Case, mut whose: Whose<'_>) -> Outcome {
    let (op, shape) = (case.op, case.shape);
    let (start, len) = (shape.start(), shape.len());
    let has = |feature| case.device.features.contains(feature);
    let mut flags = case.flags;
    let flushes = BioFlags::PREFLUSH | BioFlags::FUA;

    // --- on any device ---
    let moves_nothing = len == 0 && op.has_range() && !flags.contains(BioFlags::PREFLUSH);
    if moves_nothing && whose.deviates(Deviation::NothingToDo) {
        return Answer::Rejected.into();
    }

    // --- submit_bio_noacct ---
    if flags.contains(BioFlags::NOWAIT) && !has(Features::NOWAIT) {
        return NOTSUPP.into();
    }
    if len != 0 && start + len > CAPACITY {
        return IOERR.into();
    }
    let at_zone = (op.manages_zones() && op != Op::ZoneResetAll) || op == Op::ZoneAppend;
    if at_zone && start >= CAPACITY && whose.deviates(Deviation::ZonePastEnd) {
        return IOERR.into();
    }
    let changes = op.is_write() && !(len == 0 && flags.contains(BioFlags::PREFLUSH));
    if has(Features::READ_ONLY) && changes && whose.deviates(Deviation::ReadOnly) {
        return IOERR.into();
    }
    if flags.intersects(flushes) {
        if !matches!(op, Op::Write | Op::ZoneAppend) {
            return IOERR.into();
        }
        if !has(Features::WRITE_CACHE) {
            flags -= flushes;
            if len == 0 {
                return OK.into();
            }
        }
    }
    if flags.contains(BioFlags::POLLED) && !has(Features::POLL) {
        match whose.deviates(Deviation::PolledElsewhere) {
            true => flags -= BioFlags::POLLED,
            false => return NOTSUPP.into(),
        }
    }
    let mut sent_as = op;
    let supported = match op {
        Op::Read | Op::Write => true,
        Op::Discard => case.device.discard,
        Op::SecureErase => case.device.secure_erase,
        Op::WriteZeroes => case.device.write_zeroes,
        Op::ZoneAppend if has(Features::ZONED) && !case.device.append => {
            // Linux makes a write at the write pointer of it.
            sent_as = Op::Write;
            !whose.deviates(Deviation::AppendEmulation)
        }
        Op::ZoneAppend => has(Features::ZONED),
        _ if op.manages_zones() => has(Features::ZONED),
        // REQ_OP_FLUSH is made by the flush sequence alone, and DRV_IN and DRV_OUT are no bios.
        _ => false,
    };
    if !supported {
        return NOTSUPP.into();
    }
    let described = shape != Shape::Pageless;
    if !described && !has(Features::PAGELESS) && whose.deviates(Deviation::NoDescriptors) {
        return NOTSUPP.into();
    }
    let misaligned = !start.is_multiple_of(BLOCK) || !len.is_multiple_of(BLOCK);
    let placeless = len == 0 && !at_zone;
    let ranged = op.has_range() && !placeless;
    if misaligned && ranged && whose.deviates(Deviation::Misaligned) {
        return INVAL.into();
    }
    if op == Op::ZoneAppend && !start.is_multiple_of(ZONE) {
        return IOERR.into();
    }
    if at_zone && !start.is_multiple_of(ZONE) && whose.deviates(Deviation::ZonePlace) {
        return IOERR.into();
    }
    if flags.contains(BioFlags::ATOMIC) {
        if op != Op::Write {
            if whose.deviates(Deviation::AtomicElsewhere) {
                return INVAL.into();
            }
        } else {
            let unit_max = if case.device.atomic { MAX } else { 0 };
            if len > unit_max || !len.is_multiple_of(BLOCK) {
                return INVAL.into();
            }
            let natural = len.is_power_of_two() && start.is_multiple_of(len);
            if !natural && whose.deviates(Deviation::AtomicShape) {
                return INVAL.into();
            }
        }
    }
    if op == Op::ZoneAppend {
        if len > MAX {
            return match whose.deviates(Deviation::AppendStatus) {
                true => INVAL.into(),
                false => IOERR.into(),
            };
        }
        if !whose.deviates(Deviation::AppendFlags) {
            flags |= BioFlags::NOMERGE;
        }
    }

    // --- blk_mq_submit_bio ---
    // The sector counts for a bio without bytes as well.
    if misaligned && !(placeless && whose.deviates(Deviation::Placeless)) {
        return IOERR.into();
    }
    // Past the end is a place as well, though only we say which bios have one.
    let splits = match op {
        // Erasing is split where discarding is.
        Op::SecureErase if !case.device.discard => {
            len > MAX && whose.deviates(Deviation::SecureEraseLength)
        }
        _ => len > MAX || (shape == Shape::Scattered && op.carries_data()),
    };
    if !splits {
        let mut out = Outcome::from(OK);
        sequence(case, &mut whose, &mut out, sent_as, flags, (start, len));
        return out;
    }
    if op == Op::ZoneAppend {
        let waits = flags.contains(BioFlags::NOWAIT) && !flags.contains(BioFlags::ATOMIC);
        return match waits && !whose.deviates(Deviation::AppendNowait) {
            true => AGAIN.into(),
            false => INVAL.into(),
        };
    }
    if op.carries_data() {
        if flags.contains(BioFlags::ATOMIC) {
            return INVAL.into();
        }
        if flags.contains(BioFlags::NOWAIT) {
            return AGAIN.into();
        }
        flags -= BioFlags::POLLED;
    } else {
        // Linux has these rules for reads and writes only.
        if flags.contains(BioFlags::NOWAIT) && whose.deviates(Deviation::NowaitRange) {
            return AGAIN.into();
        }
        if flags.contains(BioFlags::POLLED) && whose.deviates(Deviation::PolledRange) {
            flags -= BioFlags::POLLED;
        }
    }
    let mut out = Outcome::from(OK);
    let half = len / 2;
    let front = match whose.deviates(Deviation::PieceFlags) {
        true => flags,
        false => flags | BioFlags::NOMERGE,
    };
    sequence(case, &mut whose, &mut out, op, front, (start, half));
    let rest = (start + half, half);
    sequence(case, &mut whose, &mut out, op, flags, rest);
    out
}

/// The flush sequence: PREFLUSH, data, POSTFLUSH.
fn sequence(
    case: &Case,
    whose: &mut Whose<'_>,
    out: &mut Outcome,
    op: Op,
    flags: BioFlags,
    (start, len): (u64, u64),
) {
    let fua_feature = case.device.features.contains(Features::FUA);
    let (pre, fua) = (
        flags.contains(BioFlags::PREFLUSH),
        flags.contains(BioFlags::FUA),
    );
    // What Linux's own flush inherits from the request it is for.
    let inherited = BioFlags::FAILFAST | BioFlags::DRV;
    let mut own = flags & inherited | BioFlags::PREFLUSH;
    if (pre || fua) && whose.deviates(Deviation::FlushFlags) {
        own = BioFlags::empty();
    }
    let flush = Seen {
        op: Op::Flush,
        flags: own,
        start: 0,
        len: 0,
    };
    let mut seen = flags - BioFlags::PREFLUSH;
    if !fua_feature {
        seen -= BioFlags::FUA;
    }
    if (pre || fua) && !whose.deviates(Deviation::SyncFlag) {
        seen |= BioFlags::SYNC;
    }
    if pre {
        out.seen.push(flush);
    }
    if len != 0 || !(pre || fua) {
        out.seen.push(Seen {
            op,
            flags: seen,
            start,
            len,
        });
    }
    let twice = pre && len == 0;
    if fua && !fua_feature && !(twice && whose.deviates(Deviation::TwoFlushes)) {
        out.seen.push(flush);
    }
}
