//! What is written into slabs: links, and the patterns by which a checked cache sees who writes where he should not.

use alloc::vec;
use alloc::vec::Vec;

use pageless_fault::{FrameMemory, VirtAddr, Vspace, Window};

use super::cache::Shared;
use super::layout::{LINK, RED_ZONE};

/// A free object (`POISON_FREE`), and its last byte (`POISON_END`); include/linux/poison.h.
const POISON: u8 = 0x6b;
const POISON_END: u8 = 0xa5;
/// Behind an object (`SLUB_RED_ACTIVE`).
const RED: u8 = 0xcc;

impl<M, S, W> Shared<M, S, W>
where
    M: FrameMemory + 'static,
    S: Vspace + 'static,
    W: Window + 'static,
{
    fn behind(&self, object: VirtAddr, bytes: u64) -> VirtAddr {
        match object.checked_add(bytes) {
            Some(address) => address,
            None => unreachable!("a slab that ends behind the last address"),
        }
    }

    pub(super) fn put(&self, at: VirtAddr, bytes: &[u8]) {
        if let Err(error) = self.pages.write(at, bytes) {
            unreachable!("a slab that is out: {error}");
        }
    }

    fn look(&self, at: VirtAddr, into: &mut [u8]) {
        if let Err(error) = self.pages.read(at, into) {
            unreachable!("a slab that is out: {error}");
        }
    }

    pub(super) fn link(&self, object: VirtAddr) -> u32 {
        let mut link = [0; LINK as usize];
        self.look(self.behind(object, self.layout.link_at), &mut link);
        u32::from_le_bytes(link)
    }

    pub(super) fn set_link(&self, object: VirtAddr, link: u32) {
        self.put(
            self.behind(object, self.layout.link_at),
            &link.to_le_bytes(),
        );
    }

    /// The pattern of a free object.
    fn poison(&self) -> Vec<u8> {
        let mut bytes = vec![POISON; self.layout.object as usize];
        if let Some(last) = bytes.last_mut() {
            *last = POISON_END;
        }
        bytes
    }

    /// A new object.
    pub(super) fn construct(&self, object: VirtAddr) {
        if let Some(constructor) = &self.config.constructor {
            let mut bytes = vec![0; self.layout.object as usize];
            constructor(&mut bytes);
            self.put(object, &bytes);
        } else if self.layout.is_checked {
            self.put(object, &self.poison());
        }
        if self.layout.is_checked {
            self.set_red_zone(object);
        }
    }

    fn set_red_zone(&self, object: VirtAddr) {
        self.put(
            self.behind(object, self.layout.object),
            &[RED; RED_ZONE as usize],
        );
    }

    /// Whether nobody wrote a free object. One that keeps what was constructed in it cannot be told.
    pub(super) fn is_untouched(&self, object: VirtAddr) -> bool {
        if !self.layout.is_checked {
            return true;
        }
        if !self.is_within_red_zone(object) {
            return false;
        }
        if self.config.constructor.is_some() {
            return true;
        }
        let mut found = vec![0; self.layout.object as usize];
        self.look(object, &mut found);
        found == self.poison()
    }

    /// Whether nobody wrote behind an object.
    fn is_within_red_zone(&self, object: VirtAddr) -> bool {
        let mut zone = [0; RED_ZONE as usize];
        self.look(self.behind(object, self.layout.object), &mut zone);
        zone == [RED; RED_ZONE as usize]
    }

    /// An object comes back. False if somebody wrote behind it: that is as it should be again.
    pub(super) fn settle(&self, object: VirtAddr) -> bool {
        if !self.layout.is_checked {
            return true;
        }
        if self.config.constructor.is_none() {
            self.put(object, &self.poison());
        }
        let is_sound = self.is_within_red_zone(object);
        if !is_sound {
            self.set_red_zone(object);
        }
        is_sound
    }
}
