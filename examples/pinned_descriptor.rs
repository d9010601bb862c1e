//! A driver that insists on descriptors: pinned while its request is in flight, gone afterwards.
//!
//! `cargo run --release --example pinned_descriptor`

use pageless::fault::{MaySleep, SpinLock, host::HostMachine};
use pageless::memmap::{Budget, ChunkSize, Config, Memmap, Owner, eager_bytes};
use pageless::pfn::{FrameCount, Pfn, PfnFlags, PfnRange, PfnT};

fn main() -> Result<(), Box<dyn core::error::Error>> {
    // This thread may block. Whoever needs that asks for the value.
    let mut ctx = MaySleep::claim();

    // 1 PiB of persistent memory. Its descriptors would be 16 TiB; ours may take 64 KiB.
    let device = PfnRange::try_new(Pfn::try_new(1 << 30)?, FrameCount::new(1 << 38))?;
    let chunk = ChunkSize::MIN;
    let config = Config {
        chunk,
        budget: Budget::new(64 << 10, chunk)?,
        reserve_chunks: 1,
        fill_ahead: 1,
    };
    let memmap = Memmap::attach(&HostMachine::new()?, device, config)?;
    println!(
        "attached: an eager memmap would be {} GiB, this one holds {} bytes",
        eager_bytes(device.count().get()).unwrap_or(u64::MAX) >> 30,
        memmap.counters().used_bytes()
    );

    // A frame that says it has a page may be asked for its descriptor; others cannot even ask.
    let frame = |index: u64| -> Result<_, Box<dyn core::error::Error>> {
        let pfn = device.nth(index).ok_or("outside the device")?;
        Ok(PfnT::new(pfn, PfnFlags::DEV | PfnFlags::MAP).paged()?)
    };
    let bare = PfnT::new(device.start(), PfnFlags::DEV);
    println!("{bare}: {}", bare.paged().unwrap_err());

    // Pinned: the descriptor's memory appears and stays.
    let page = memmap.get(&ctx, frame(123_456_789_012)?)?;
    page.set_owner(Owner(7));
    println!("{page:?}, owner {}", page.owner().0);

    // Elsewhere thousands come and go within the budget; the pinned one is passed over.
    for index in 0..10_000 {
        drop(memmap.get(&ctx, frame(index * 20_000_000)?)?);
    }
    let counters = memmap.counters();
    println!(
        "{} chunks populated, {} reclaimed with {} shootdowns, never more than {} bytes",
        counters.chunks_populated,
        counters.chunks_reclaimed,
        counters.shootdowns,
        counters.used_bytes_peak
    );
    assert_eq!(page.owner(), Owner(7));

    // Under a spin lock there is only the lookup that never sleeps. (`memmap.get(&ctx, ..)` does not
    // compile while `held` lives.) It finds what is present, and draws on the reserve for the rest.
    let lock = SpinLock::new(0);
    let mut held = lock.lock(&mut ctx);
    *held += memmap.try_get(page_of(&page)?)?.references();
    *held += memmap.try_get(frame(77)?)?.references();
    println!("under the lock: {} references seen", *held);
    drop(held);

    // Detaching names who is in the way.
    let refused = memmap.detach(&ctx, || true).unwrap_err();
    println!("detach: {refused}");
    drop(page);
    memmap.detach(&ctx, || true)?;
    println!("detached: {} bytes held", memmap.counters().used_bytes());
    Ok(())
}

/// The frame that a descriptor describes.
fn page_of<W: pageless::fault::Window>(
    page: &pageless::memmap::PageRef<'_, W>,
) -> Result<pageless::pfn::PagedPfn, pageless::pfn::NoPage> {
    PfnT::new(page.pfn(), PfnFlags::MAP).paged()
}
