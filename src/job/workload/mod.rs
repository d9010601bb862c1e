//! Generators: which request a thread issues next.
//!
//! Everything here is arithmetic on numbers: no device, no clock, no allocation once built. Two
//! generators built from the same section and seed issue the same requests.

mod access;
mod blocksize;
mod distribution;
mod generator;
mod pace;
mod permutation;
mod randommap;
mod seed;

pub use access::{Access, Mix, Order};
pub use blocksize::{BlockSizes, Part};
pub use distribution::{Distribution, Share};
pub use generator::{Generator, Limits, Next, Request, Shape, TooManyBlocks};
pub use pace::{Pace, Rates};
pub use permutation::Permutation;
pub use randommap::RandomMap;
pub use seed::{Seed, random_below, unit_interval};
