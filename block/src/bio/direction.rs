//! Which way the bytes of a bio go, as types.

mod sealed {
    pub trait Sealed {}
}

/// Bytes go from the device to memory.
#[derive(Clone, Copy, Debug)]
pub enum FromDevice {}

/// Bytes go from memory to the device.
#[derive(Clone, Copy, Debug)]
pub enum ToDevice {}

/// No bytes move.
#[derive(Clone, Copy, Debug)]
pub enum NoData {}

/// Only the operation tells.
#[derive(Clone, Copy, Debug)]
pub enum AnyDirection {}

/// The directions in which bytes may move: a bio that goes one of these ways takes segments.
pub trait CarriesData: sealed::Sealed {}

impl sealed::Sealed for FromDevice {}
impl sealed::Sealed for ToDevice {}
impl sealed::Sealed for AnyDirection {}
impl CarriesData for FromDevice {}
impl CarriesData for ToDevice {}
impl CarriesData for AnyDirection {}
