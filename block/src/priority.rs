//! Who goes first.

use thiserror::Error;

/// The class of an I/O priority, numbered as in Linux (`IOPRIO_CLASS_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[repr(u8)]
pub enum PriorityClass {
    /// None was set; treated as best effort.
    #[default]
    None = 0,
    /// Before everything else.
    RealTime = 1,
    /// The usual.
    BestEffort = 2,
    /// When nobody else wants anything.
    Idle = 3,
}

/// An I/O priority: a class, and a level from 0 (first) to 7 within it.
///
/// ```
/// use pageless_block::{Priority, PriorityClass};
/// let first = Priority::new(PriorityClass::RealTime, 0)?;
/// assert_eq!(first.bits(), 1 << 13);
/// assert!(Priority::new(PriorityClass::Idle, 8).is_err());
/// # Ok::<(), pageless_block::PriorityError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct Priority {
    class: PriorityClass,
    level: u8,
}

impl Priority {
    /// None was set.
    pub const NONE: Self = Self {
        class: PriorityClass::None,
        level: 0,
    };

    /// A priority.
    ///
    /// # Errors
    /// [`PriorityError`] for a level beyond 7.
    pub const fn new(class: PriorityClass, level: u8) -> Result<Self, PriorityError> {
        if level > 7 {
            return Err(PriorityError { level });
        }
        Ok(Self { class, level })
    }

    /// Its class.
    pub const fn class(self) -> PriorityClass {
        self.class
    }

    /// Its level within the class; 0 goes first.
    pub const fn level(self) -> u8 {
        self.level
    }

    /// Linux's number (`IOPRIO_PRIO_VALUE`): the class from bit 13 on.
    pub const fn bits(self) -> u16 {
        (self.class as u16) << 13 | self.level as u16
    }
}

/// A level that no class has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("priority level {level}: must be from 0 to 7")]
pub struct PriorityError {
    /// The level asked for.
    pub level: u8,
}
