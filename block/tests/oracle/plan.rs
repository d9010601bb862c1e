//! What there is to do, at random: devices, queues, and bios for them.

use alloc::boxed::Box;

use pageless_block::{
    BioFlags, Elevator, Features, Limits, MqDeadline, Nanos, Op, Priority, PriorityClass,
    QueueConfig, Request,
};
use pageless_pfn::ByteLen;
use proptest::prelude::*;

use crate::strict::Manner;

/// Of the device, and so of the oracle.
pub(crate) const CAPACITY: u64 = 256 << 10;

/// Where a bio goes.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Place {
    /// Behind the bio before it.
    After,
    /// Right before it.
    Before,
    /// Anywhere: this unit, counted around the end.
    At(u16),
}

/// Who gets the completion.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Via {
    Reap,
    Callback,
    Ticket,
}

#[derive(Clone, Debug)]
pub(crate) struct Io {
    pub(crate) context: usize,
    pub(crate) op: Op,
    pub(crate) place: Place,
    /// How long, in units of what the device takes; a flush if 0.
    pub(crate) units: u16,
    pub(crate) flags: BioFlags,
    pub(crate) priority: Priority,
    /// Of each piece of memory: how many units, and how many sectors are left out before it.
    pub(crate) memory: Vec<(u16, u16)>,
    pub(crate) via: Via,
}

#[derive(Clone, Debug)]
pub(crate) enum Step {
    Submit(Io),
    /// All of them on the context of the first, held back together.
    Plugged(Vec<Io>),
    /// While nothing may go to the device.
    Quiesced(Vec<Io>),
    Reap(usize),
    /// Until nothing is in flight.
    Drain,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Scheduler {
    None,
    Stack,
    Deadline,
}

/// A queue and its contexts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub(crate) hw_queues: u16,
    pub(crate) contexts: u16,
    pub(crate) depth: u16,
    pub(crate) scheduler: Scheduler,
}

impl Shape {
    pub(crate) fn config(&self) -> QueueConfig {
        let elevator: Option<Box<dyn Elevator>> = match self.scheduler {
            Scheduler::None => None,
            Scheduler::Stack => Some(Box::new(Stack::default())),
            Scheduler::Deadline => Some(Box::new(MqDeadline::default())),
        };
        QueueConfig {
            hw_queues: self.hw_queues,
            depth: self.depth,
            elevator,
            ..QueueConfig::default()
        }
    }
}

/// The last one first.
#[derive(Debug, Default)]
struct Stack(Vec<Request>);

impl Elevator for Stack {
    fn name(&self) -> &'static str {
        "stack"
    }

    fn insert(&mut self, request: Request, _now: Nanos) -> Result<(), Request> {
        // Little room: some must go around it.
        match self.0.len() < 5 {
            true => self.0.push(request),
            false => return Err(request),
        }
        Ok(())
    }

    fn dispatch(&mut self, _now: Nanos) -> Option<Request> {
        self.0.pop()
    }

    fn len(&self) -> usize {
        self.0.len()
    }

    fn merge(
        &mut self,
        incoming: pageless_block::Incoming,
        limits: &Limits,
    ) -> Result<pageless_block::Merge, pageless_block::Incoming> {
        let mut incoming = incoming;
        for request in self.0.iter_mut().rev() {
            match request.try_merge(incoming, limits) {
                Ok(end) => return Ok(end),
                Err(apart) => incoming = apart,
            }
        }
        Err(incoming)
    }
}

fn power(range: core::ops::Range<u32>) -> impl Strategy<Value = ByteLen> {
    range.prop_map(|power| ByteLen::new(1 << power))
}

fn often<T: Clone + core::fmt::Debug + 'static>(
    strategy: impl Strategy<Value = T> + 'static,
) -> impl Strategy<Value = Option<T>> {
    prop_oneof![1 => Just(None), 1 => strategy.prop_map(Some)]
}

pub(crate) fn limits() -> impl Strategy<Value = Limits> {
    let features = prop_oneof![
        2 => Just(Features::empty()),
        2 => Just(Features::WRITE_CACHE),
        1 => Just(Features::WRITE_CACHE | Features::FUA),
    ];
    (
        power(9..12),
        prop_oneof![2 => Just(ByteLen::new(1)), 1 => power(9..11)],
        (1..24_u64, 0..700_u64, any::<bool>()),
        often(1..6_u32),
        (often(0..4_u64), often(power(11..14)), often(power(9..13))),
        often(1..12_u64),
        (1..40_u64, power(0..4)),
        features,
    )
        .prop_map(
            |(block, dma, request, max_segments, segments, chunk, range, features)| {
                let mut limits = Limits::new(ByteLen::new(CAPACITY));
                limits.set_logical_block(block);
                limits.dma_alignment = dma;
                let unit = block.max(dma).get();
                let (units, more, limited) = request;
                if limited {
                    limits.max_request = ByteLen::new(unit * units + more);
                }
                limits.max_segments = max_segments.unwrap_or(u32::MAX);
                if let Some(more) = segments.0 {
                    limits.max_segment = ByteLen::new(unit * (1 + more));
                }
                limits.segment_boundary = segments.1;
                limits.virt_boundary = segments.2;
                limits.chunk = chunk.map(|units| ByteLen::new(unit * units));
                limits.max_discard = ByteLen::new(block.get() * range.0);
                limits.max_write_zeroes = ByteLen::new(block.get() * range.0);
                limits.max_secure_erase = Limits::UNLIMITED;
                limits.discard_granularity = ByteLen::new(block.get() * range.1.get());
                limits.features |= features;
                limits
            },
        )
}

pub(crate) fn manner() -> impl Strategy<Value = Manner> {
    let rarely = || prop_oneof![2 => Just(0_u8), 1 => Just(30), 1 => Just(120)];
    (any::<bool>(), rarely(), rarely(), any::<u64>()).prop_map(|(at_once, busy, fail, seed)| {
        Manner {
            at_once,
            busy,
            fail: fail / 4,
            seed,
        }
    })
}

pub(crate) fn shape() -> impl Strategy<Value = Shape> {
    let scheduler = prop_oneof![
        2 => Just(Scheduler::None),
        1 => Just(Scheduler::Stack),
        1 => Just(Scheduler::Deadline),
    ];
    (1..3_u16, 1..4_u16, 1..9_u16, scheduler).prop_map(|(hw_queues, contexts, depth, scheduler)| {
        Shape {
            hw_queues,
            contexts,
            depth,
            scheduler,
        }
    })
}

fn io() -> impl Strategy<Value = Io> {
    let op = prop_oneof![
        6 => Just(Op::Read),
        8 => Just(Op::Write),
        1 => Just(Op::WriteZeroes),
        2 => Just(Op::Discard),
        1 => Just(Op::SecureErase),
    ];
    let place = prop_oneof![
        4 => Just(Place::After),
        1 => Just(Place::Before),
        3 => any::<u16>().prop_map(Place::At),
    ];
    let units = prop_oneof![1 => Just(0_u16), 8 => 1..5_u16, 3 => 5..30_u16];
    let flag = |flag, odds| prop_oneof![odds => Just(BioFlags::empty()), 1 => Just(flag)];
    let flags = (
        flag(BioFlags::SYNC, 3),
        flag(BioFlags::META, 6),
        flag(BioFlags::PRIO | BioFlags::IDLE, 8),
        flag(BioFlags::FUA, 5),
        flag(BioFlags::PREFLUSH, 7),
        flag(BioFlags::NOMERGE, 9),
        flag(BioFlags::BACKGROUND | BioFlags::FAILFAST_DEV, 12),
    )
        .prop_map(|(a, b, c, d, e, f, g)| a | b | c | d | e | f | g);
    let priority = prop_oneof![
        6 => Just(Priority::NONE),
        1 => Just(Priority::new(PriorityClass::RealTime, 2).unwrap()),
        1 => Just(Priority::new(PriorityClass::Idle, 7).unwrap()),
    ];
    let gap = prop_oneof![3 => Just(0_u16), 1 => 1..8_u16];
    let memory = proptest::collection::vec((1..8_u16, gap), 1..5);
    let via = prop_oneof![4 => Just(Via::Reap), 1 => Just(Via::Callback), 1 => Just(Via::Ticket)];
    (0..3_usize, op, place, units, flags, priority, memory, via).prop_map(
        |(context, op, place, units, flags, priority, memory, via)| Io {
            context,
            op,
            place,
            units,
            flags,
            priority,
            memory,
            via,
        },
    )
}

pub(crate) fn steps(most: usize) -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        8 => io().prop_map(Step::Submit),
        3 => proptest::collection::vec(io(), 1..8).prop_map(Step::Plugged),
        1 => proptest::collection::vec(io(), 1..8).prop_map(Step::Quiesced),
        4 => (0..3_usize).prop_map(Step::Reap),
        1 => Just(Step::Drain),
    ];
    proptest::collection::vec(step, 1..most)
}
