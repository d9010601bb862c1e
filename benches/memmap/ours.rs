//! The memmap itself, on this process's own MMU.

use super::peer::{Peer, Worker};
use pageless_fault::{MaySleep, host::HostMachine};
use pageless_memmap::{Budget, Config, HostMemmap};
use pageless_pfn::{FrameCount, PagedPfn, Pfn, PfnFlags, PfnRange, PfnT};

/// A memmap with 4 KiB chunks that has nothing to reclaim: what is measured is the lookup.
pub(crate) struct Ours(HostMemmap);

/// The ticket for `pfn`. The mask tells the compiler that the pfns made here carry no flags of their
/// own, so that what is timed begins with the ticket.
#[inline]
fn paged(pfn: u64) -> PagedPfn {
    let flags = PfnFlags::DEV | PfnFlags::MAP;
    let bits = pfn & u64::from(u32::MAX) | flags.bits();
    PfnT::from_bits(bits).paged().unwrap()
}

impl Peer for Ours {
    const NAME: &'static str = "ours";

    fn sparse(pfns: u64) -> Self {
        let pfns = PfnRange::try_new(Pfn::try_new(0).unwrap(), FrameCount::new(pfns)).unwrap();
        let config = Config {
            budget: Budget::unlimited(),
            ..Config::default()
        };
        Self(HostMemmap::attach(&HostMachine::new().unwrap(), pfns, config).unwrap())
    }

    fn touch(&self, pfns: impl Iterator<Item = u64>) {
        let worker = self.worker();
        pfns.for_each(|pfn| worker.get_put(pfn));
    }

    fn worker(&self) -> impl Worker {
        let (ctx, lookup) = (MaySleep::claim(), self.0.lookup());
        move |pfn| drop(lookup.get(&ctx, paged(pfn)).unwrap())
    }
}
