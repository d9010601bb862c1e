//! One's own scheduler: whatever lies nearest goes first, and a probe looks on.
//!
//! `cargo run --release --example own_elevator`

extern crate alloc;

use alloc::sync::Arc;
use std::sync::Mutex;

use pageless_block::{
    Action, Bio, Elevator, Event, Limits, Nanos, NullDevice, Probe, QueueConfig, QueueId, Request,
    RequestQueue, Sector,
};
use pageless_pfn::{ByteLen, FrameOffset, Pfn, PhysSegment};

/// Shortest seek first. Unfair: what lies far away waits for as long as something comes that does not.
#[derive(Default)]
struct Nearest {
    waiting: Vec<Request>,
    head: u64,
}

impl Elevator for Nearest {
    fn name(&self) -> &'static str {
        "nearest"
    }

    fn insert(&mut self, request: Request, _now: Nanos) -> Result<(), Request> {
        self.waiting.push(request);
        Ok(())
    }

    fn dispatch(&mut self, _now: Nanos) -> Option<Request> {
        let seek = |request: &Request| request.position().get().abs_diff(self.head);
        let all = self.waiting.iter().enumerate();
        let (nearest, _) = all.min_by_key(|(_, request)| seek(request))?;
        let request = self.waiting.swap_remove(nearest);
        self.head = request.end().get();
        Some(request)
    }

    fn len(&self) -> usize {
        self.waiting.len()
    }
}

/// Where the device was sent.
#[derive(Default)]
struct Seeks(Mutex<Vec<Sector>>);

impl Probe for Seeks {
    fn event(&self, event: &Event) {
        if let (Action::Issue, Ok(mut seeks)) = (event.action, self.0.lock()) {
            seeks.push(event.sector);
        }
    }
}

fn main() -> Result<(), Box<dyn core::error::Error>> {
    let frame = Pfn::try_new(0x100)?.into();
    let buffer = PhysSegment::try_new(frame, FrameOffset::ZERO, ByteLen::new(4096))?;
    for elevator in [None, Some(Box::<Nearest>::default() as Box<dyn Elevator>)] {
        let name = elevator.as_ref().map_or("none", |elevator| elevator.name());
        let seeks = Arc::new(Seeks::default());
        let config = QueueConfig {
            elevator,
            probe: Some(seeks.clone()),
            ..QueueConfig::default()
        };
        let device = NullDevice::new(Limits::new(ByteLen::new(1 << 30)));
        let queue = RequestQueue::try_new(device, config)?;
        let mut context = queue.context(QueueId::new(0))?;
        // A plug lets them come to the scheduler together.
        let mut plugged = context.plug();
        for sector in [700, 100, 600, 300, 500, 400] {
            plugged.submit(Bio::read(Sector::new(sector), buffer))?;
        }
        drop(plugged);
        context.drain(drop);
        let seeks = seeks.0.lock().map_err(|_| "a probe panicked")?;
        let places: Vec<String> = seeks.iter().map(|s| s.get().to_string()).collect();
        let way = seeks.windows(2).map(|s| s[0].get().abs_diff(s[1].get()));
        println!(
            "{name:>7}: {}, a way of {}",
            places.join(" "),
            way.sum::<u64>()
        );
    }
    Ok(())
}
