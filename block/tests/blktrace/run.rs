//! A made-up run of two contexts on a rotating disk: every step there is, in the order and with the
//! numbers a queue would give them.

use alloc::sync::Arc;
use std::sync::Mutex;

use pageless_block::{
    Action, Bio, BioFlags, BlkError, Event, Limits, Nanos, NullDevice, Op, Priority, Probe,
    QueueConfig, QueueId, RequestQueue, Sector, Tag,
};
use pageless_pfn::{ByteLen, FrameOffset, Pfn, PfnFlags, PfnT, PhysSegment};

/// Remembers the last tag it hears of.
struct LastTag(Mutex<Option<Tag>>);

impl Probe for LastTag {
    fn event(&self, event: &Event) {
        let mut last = self.0.lock().unwrap();
        *last = event.tag.or(*last);
    }
}

/// Some tag: only a queue gives them out.
pub(crate) fn tag() -> Tag {
    let last = Arc::new(LastTag(Mutex::new(None)));
    let config = QueueConfig {
        probe: Some(Arc::clone(&last) as Arc<dyn Probe>),
        ..QueueConfig::default()
    };
    let device = NullDevice::new(Limits::new(ByteLen::new(1 << 20)));
    let queue = RequestQueue::try_new(device, config).unwrap();
    let mut context = queue.context(QueueId::new(0)).unwrap();
    let frame = PfnT::new(Pfn::try_new(0x1_0000).unwrap(), PfnFlags::DEV);
    let segment = PhysSegment::try_new(frame, FrameOffset::ZERO, ByteLen::new(4096)).unwrap();
    context.submit(Bio::read(Sector::new(0), segment)).unwrap();
    context.drain(drop);
    let tag = *last.0.lock().unwrap();
    tag.unwrap()
}

/// One step of a bio, as it would be submitted.
pub(crate) fn event(action: Action, micros: u64, sector: u64, len: u64) -> Event {
    Event {
        action,
        time: Nanos::new(micros * 1000),
        queue: QueueId::new(0),
        context: 0,
        tag: None,
        op: Op::Read,
        flags: BioFlags::empty(),
        priority: Priority::NONE,
        sector: Sector::new(sector),
        len: ByteLen::new(len),
        error: None,
        detail: 0,
    }
}

/// One context's way through the run.
struct Context<'a> {
    probe: &'a dyn Probe,
    number: u16,
    tag: Tag,
    now: u64,
}

impl Context<'_> {
    fn step(&mut self, base: Event, action: Action, after: u64, change: impl FnOnce(&mut Event)) {
        self.now += after;
        let of_request = matches!(
            action,
            Action::Issue | Action::Insert | Action::Requeue | Action::Complete | Action::Abort
        );
        let mut event = Event {
            action,
            time: Nanos::new(self.now * 1000),
            context: self.number,
            queue: QueueId::new(self.number),
            tag: of_request.then_some(self.tag),
            ..base
        };
        change(&mut event);
        self.probe.event(&event);
    }

    /// Submitted, made a request, given to the scheduler.
    fn enter(&mut self, bio: Event) {
        self.step(bio, Action::Queue, 3, |_| {});
        self.step(bio, Action::GetRequest, 1, |_| {});
        self.step(bio, Action::Insert, 2, |_| {});
    }

    /// Given to the device, completed.
    fn carry_out(&mut self, request: Event, micros: u64, error: Option<BlkError>) {
        self.step(request, Action::Issue, 2, |_| {});
        self.step(request, Action::Complete, micros, |event| {
            event.error = error;
        });
    }

    fn all(&mut self, bio: Event, micros: u64) {
        self.enter(bio);
        self.carry_out(bio, micros, None);
    }

    fn round(&mut self, round: u64) {
        let place = 2048 * (round + 1) + 4_000_000 * u64::from(self.number);
        let read = event(Action::Queue, 0, place, 4096);
        let write = Event {
            op: Op::Write,
            flags: BioFlags::SYNC,
            ..event(Action::Queue, 0, place + 1024, 65536)
        };
        self.all(read, 4000);
        self.all(
            Event {
                flags: BioFlags::RAHEAD | BioFlags::META,
                ..read
            },
            3000,
        );
        // Two neighbours join a write that is held back, behind and in front.
        self.step(write, Action::Plug, 1, |_| {});
        self.enter(write);
        let behind = Event {
            sector: Sector::new(place + 1024 + 128),
            ..write
        };
        self.step(behind, Action::Queue, 2, |_| {});
        self.step(behind, Action::BackMerge, 1, |_| {});
        let before = Event {
            sector: Sector::new(place + 1024 - 128),
            ..write
        };
        self.step(before, Action::Queue, 2, |_| {});
        self.step(before, Action::FrontMerge, 1, |_| {});
        self.step(write, Action::Unplug, 1, |event| event.detail = 1);
        let merged = Event {
            len: ByteLen::new(3 * 65536),
            ..before
        };
        self.carry_out(merged, 9000, None);
        match round % 8 {
            // Too long for the device: cut, and each half goes its way.
            1 => {
                let long = Event {
                    len: ByteLen::new(2 << 20),
                    ..write
                };
                self.step(long, Action::Queue, 2, |_| {});
                self.step(long, Action::Split, 1, |event| {
                    event.detail = place + 1024 + 2048;
                });
                for half in [place + 1024, place + 1024 + 2048] {
                    let half = Event {
                        sector: Sector::new(half),
                        len: ByteLen::new(1 << 20),
                        ..write
                    };
                    self.step(half, Action::GetRequest, 1, |_| {});
                    self.step(half, Action::Insert, 1, |_| {});
                    self.carry_out(half, 12000, None);
                }
            }
            // Of a partition: the same bytes at another place of the disk below.
            2 => {
                self.step(read, Action::Queue, 2, |_| {});
                self.step(read, Action::Remap, 1, |event| {
                    event.detail = event.sector.get() - 2048;
                });
                self.step(read, Action::GetRequest, 1, |_| {});
                self.step(read, Action::Insert, 1, |_| {});
                self.carry_out(read, 5000, None);
            }
            // Durable, with all that came before.
            3 => {
                let durable = Event {
                    flags: BioFlags::SYNC | BioFlags::META | BioFlags::FLUSHES,
                    ..write
                };
                let flush = Event {
                    op: Op::Flush,
                    flags: BioFlags::PREFLUSH,
                    sector: Sector::new(0),
                    len: ByteLen::ZERO,
                    ..write
                };
                self.enter(durable);
                // One flush at a time is in flight, and the other context's is the same one.
                if self.number == 0 {
                    self.carry_out(flush, 7000, None);
                } else {
                    self.now += 7000;
                }
                self.carry_out(
                    Event {
                        flags: durable.flags - BioFlags::PREFLUSH,
                        ..durable
                    },
                    6000,
                    None,
                );
            }
            4 => {
                self.enter(read);
                self.carry_out(read, 30000, Some(BlkError::Medium));
            }
            // The device has no room, then it has.
            5 => {
                self.enter(write);
                self.step(write, Action::Issue, 2, |_| {});
                self.step(write, Action::Requeue, 2, |_| {});
                self.carry_out(write, 8000, None);
            }
            6 => {
                let discard = Event {
                    op: Op::Discard,
                    len: ByteLen::new(1 << 20),
                    ..write
                };
                self.all(discard, 2000);
            }
            // No request is free; then the device does not answer.
            7 => {
                self.step(read, Action::Queue, 2, |_| {});
                self.step(read, Action::SleepRequest, 1, |_| {});
                self.step(read, Action::GetRequest, 500, |_| {});
                self.step(read, Action::Insert, 1, |_| {});
                self.step(read, Action::Issue, 1, |_| {});
                self.step(read, Action::Abort, 30000, |_| {});
                self.step(read, Action::Complete, 10, |event| {
                    event.error = Some(BlkError::Timeout);
                });
            }
            _ => self.step(read, Action::Bounce, 1, |_| {}),
        }
    }
}

/// Both contexts, in turn, `rounds` times: about 20 ms of the run's own time each.
pub(crate) fn play(probe: &dyn Probe, rounds: u64) {
    let tag = tag();
    let mut contexts = [0, 1].map(|number| Context {
        probe,
        number,
        tag,
        now: 40 * u64::from(number),
    });
    for round in 0..rounds {
        for context in &mut contexts {
            context.round(round);
        }
    }
}
