//! Reading and writing through the direct map: in place, by copy, or in two segments.
//!
//! The one file here with unsafe code: the calls of `view`, whose condition is that nobody writes meanwhile.
#![expect(
    unsafe_code,
    reason = "what is shown is memory that others could write"
)]

use pageless_fault::{FrameMemory, NoSuchFrame, Untranslated, Vspace, WindowOffset};

use super::error::AccessError;
use super::handle::Handle;
use super::pool::{Held, Zsmalloc};
use super::source::FrameSource;

impl<F: FrameSource> Zsmalloc<F> {
    /// Writes `bytes` to the start of the object; what is behind them stays as it was. Waits for its readers.
    ///
    /// # Errors
    ///
    /// See [`AccessError`]: more bytes than the object has, or another pool's handle. Nothing has been written then.
    pub fn write(&self, handle: &Handle, bytes: &[u8]) -> Result<(), AccessError> {
        let mut held = self.hold(handle, true)?;
        held.check(0, bytes.len())?;
        held.write(self.memory(), 0, bytes)?;
        Ok(())
    }

    /// Shows the whole object to `look` (Linux: `zs_obj_read_begin` and `_end`): in place if it lies within a frame, otherwise as a copy
    /// in `local`, which has to have room for it. Nobody writes or moves it meanwhile; `look` must not write it either, nor wait for
    /// whoever does.
    ///
    /// # Errors
    ///
    /// See [`AccessError`]; `look` has not been called.
    pub fn with_copy<R>(
        &self,
        handle: &Handle,
        local: &mut [u8],
        look: impl FnOnce(&[u8]) -> R,
    ) -> Result<R, AccessError> {
        let held = self.hold(handle, false)?;
        if held.span.second.is_none() {
            return Ok(held.view_first(self.memory(), look)?);
        }
        let object = held.span.len();
        let local = match local.get_mut(..object) {
            Some(local) => local,
            None => {
                let local = local.len();
                return Err(AccessError::LocalTooShort { object, local });
            }
        };
        held.span.read(self.memory(), 0, local)?;
        Ok(look(local))
    }

    /// Shows the object to `look` in one piece or two, without a copy (Linux: `zs_obj_read_sg_begin`). The second is empty if the
    /// object lies within a frame. What `look` must not do is said at [`with_copy`](Self::with_copy).
    ///
    /// # Errors
    ///
    /// See [`AccessError`]; `look` has not been called.
    pub fn segments<R>(
        &self,
        handle: &Handle,
        look: impl FnOnce(&[u8], &[u8]) -> R,
    ) -> Result<R, AccessError> {
        let held = self.hold(handle, false)?;
        let Some(second) = held.span.second else {
            return Ok(held.view_first(self.memory(), |first| look(first, &[]))?);
        };
        let memory = self.memory();
        let look = held.view_first(memory, |first| {
            // SAFETY: as in `view_first`: the second segment is the rest of the same object.
            unsafe { memory.view(second, held.span.second_len, |second| look(first, second)) }
        });
        Ok(look??)
    }

    /// Copies the object out, as far as `into` reaches, and says how many bytes that were.
    ///
    /// # Errors
    ///
    /// See [`AccessError`].
    pub fn read(&self, handle: &Handle, into: &mut [u8]) -> Result<usize, AccessError> {
        let held = self.hold(handle, false)?;
        let len = held.span.len().min(into.len());
        held.span.read(self.memory(), 0, &mut into[..len])?;
        Ok(len)
    }
}

impl Held<'_> {
    /// Whether the object has `len` bytes from `offset` on.
    pub(super) fn check(&self, offset: usize, len: usize) -> Result<(), AccessError> {
        let object = self.span.len();
        match offset.checked_add(len) {
            Some(end) if end <= object => Ok(()),
            _ => Err(AccessError::OutOfBounds {
                offset,
                len,
                object,
            }),
        }
    }

    /// Writes bytes that the object has been [checked](Self::check) to have.
    pub(super) fn write(
        &mut self,
        memory: &impl FrameMemory,
        offset: usize,
        bytes: &[u8],
    ) -> Result<(), NoSuchFrame> {
        debug_assert!(self.pin.is_alone());
        self.span.write(memory, offset, bytes)
    }

    /// Shows what lies in the first frame.
    pub(super) fn view_first<R>(
        &self,
        memory: &impl FrameMemory,
        look: impl FnOnce(&[u8]) -> R,
    ) -> Result<R, NoSuchFrame> {
        // SAFETY: the bytes are those of an object that `self` holds. Whoever writes them needs it held alone, which nobody gets
        // meanwhile; and where it is `self` that holds it alone, writing takes `&mut self`. Compaction moves no held object, and the
        // frames, which the source has handed out to nobody else, go back when the last object of their zspage has been freed, which
        // takes it held alone as well.
        unsafe { memory.view(self.span.first, self.span.first_len, look) }
    }

    /// Shows the whole object through `space`, where it is mapped from `at` on.
    pub(super) fn view_mapped<S: Vspace, R>(
        &self,
        space: &S,
        at: WindowOffset,
        look: impl FnOnce(&[u8]) -> R,
    ) -> Result<R, Untranslated> {
        // SAFETY: for the bytes see `view_first`. The pages at `at` are in a window of one CPU, and whoever calls has its mapping
        // borrowed, which only its drop takes away; nobody else is given that range.
        unsafe { space.view(at, self.span.len(), look) }
    }
}
