//! What a shootdown has proved, as values. Each can only come from a shootdown that got so far, and only the
//! last one opens the door to reuse.
//!
//! ```text
//!   request posted -> Entered -> Invalidated -> WalkQuiescent -> frame, range, table may be used again
//!                    (handler    (executed on   (and no walk begun before
//!                     running)    every target)  can still insert)
//! ```
//!
//! Only a [`WalkQuiescent`] frees a frame:
//!
//! ```compile_fail,E0308
//! use pageless_fault::shootdown::Entered;
//! use pageless_fault::sim::{OwnedFrame, SimMachine};
//! fn free(machine: &SimMachine, frame: OwnedFrame, proof: &Entered) {
//!     machine.memory().free([frame], proof);
//! }
//! ```

use core::marker::PhantomData;

use crate::debt::Completion;

mod sealed {
    pub trait Sealed {}
}

/// A proof, and the grade it stands for.
pub trait Proof: Sized + sealed::Sealed {
    /// The grade.
    const GRADE: Completion;

    /// The proof, if a shootdown has come as far as it says. Only the engine asks.
    #[doc(hidden)]
    fn of(reached: Reached) -> Option<Self>;
}

/// How far a shootdown was seen to have come. Made by the engine alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Reached(pub(crate) Completion);

impl Reached {
    /// The grade.
    #[must_use]
    pub const fn grade(self) -> Completion {
        self.0
    }
}

macro_rules! proof {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, PartialEq, Eq)]
        pub struct $name {
            // Neither made nor copied outside of the engine.
            _made_here: PhantomData<()>,
        }

        impl sealed::Sealed for $name {}

        impl Proof for $name {
            const GRADE: Completion = Completion::$name;

            fn of(reached: Reached) -> Option<Self> {
                (reached.0 >= Self::GRADE).then_some($name { _made_here: PhantomData })
            }
        }
    };
}

proof! {
    /// Every target has entered its handler. Nothing may be used again.
    Entered
}
proof! {
    /// Every target has executed its invalidation. A walk begun before may still insert.
    Invalidated
}
proof! {
    /// No CPU holds the translation and none can still get it: what was behind it may be used again.
    WalkQuiescent
}
