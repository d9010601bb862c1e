//! Resident memory after a sparse touch, each peer in a fresh process of its own.

use super::{
    peer::{PER_CHUNK, Peer, Stream},
    sides,
};
use std::fs;

/// One chunk of this many is touched.
const EVERY: u64 = 100;

/// What a sparse touch came to, in bytes.
#[derive(Clone, Copy)]
pub(crate) struct Resident {
    /// Resident set, from `smaps_rollup`.
    pub(crate) pages: f64,
    /// Leaf and upper page tables, from `VmPTE`.
    pub(crate) tables: f64,
}

/// The pfns of the touch: one descriptor in a random one of every hundred chunks.
fn touched(pfns: u64) -> impl Iterator<Item = u64> {
    let mut stream = Stream::new(7);
    (0..pfns / PER_CHUNK / EVERY).map(move |group| {
        let chunk = group * EVERY + stream.next() % EVERY;
        chunk * PER_CHUNK + stream.next() % PER_CHUNK
    })
}

/// Bytes that `file` of this process states for `key`, which it gives in kB.
fn stated(file: &str, key: &str) -> f64 {
    let text = fs::read_to_string(file).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(key));
    let kib = line.and_then(|rest| rest.trim().strip_suffix("kB"));
    kib.unwrap().trim().parse::<f64>().unwrap() * 1024.0
}

fn now() -> Resident {
    Resident {
        pages: stated("/proc/self/smaps_rollup", "Rss:"),
        tables: stated("/proc/self/status", "VmPTE:"),
    }
}

/// In the child: builds a `P`, touches it, answers what that took, and ends with it.
pub(crate) fn serve<P: Peer>() {
    sides::serve(|pfns| {
        let pfns = pfns.parse().unwrap();
        // Once unmeasured, so that what reading the figures itself touches is in both.
        now();
        let before = now();
        let peer = P::sparse(pfns);
        peer.touch(touched(pfns));
        let after = now();
        drop(peer);
        vec![after.pages - before.pages, after.tables - before.tables]
    });
}

/// In the parent: what `P` takes in a fresh child.
pub(crate) fn of<P: Peer>(pfns: u64) -> Resident {
    let figures = sides::Side::spawn(P::NAME).ask(&pfns.to_string());
    Resident {
        pages: figures[0],
        tables: figures[1],
    }
}
