//! Panics of tasks: caught, with message and place, and not printed, since the failure that is
//! returned says all of it and shrinking makes hundreds.
#![forbid(unsafe_code)]

use core::any::Any;
use core::cell::{Cell, RefCell};
use core::panic::AssertUnwindSafe;
use std::panic;
use std::sync::Once;

std::thread_local! {
    /// Whether a panic of this thread is caught by [`catch`] and so need not be printed.
    static QUIET: Cell<bool> = const { Cell::new(false) };
    /// Where this thread panicked last while `QUIET`, and what it said.
    static LAST: RefCell<Option<(String, String)>> = const { RefCell::new(None) };
}

/// A panic that was caught.
#[derive(Debug)]
pub(super) struct Caught {
    pub(super) message: String,
    pub(super) place: Option<String>,
}

/// Puts the hook that keeps quiet in front of the one in force: once for the process.
pub(super) fn install() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        let outer = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if QUIET.get() {
                let said = info.payload_as_str().unwrap_or_default().to_owned();
                LAST.replace(info.location().map(|place| (place.to_string(), said)));
            } else {
                outer(info);
            }
        }));
    });
}

/// Says whether panics of this thread are caught; answers what it was.
pub(super) fn set_quiet(quiet: bool) -> bool {
    QUIET.replace(quiet)
}

/// A panic of this thread that is on its way to where it is caught.
pub(super) fn under_way() -> Option<String> {
    LAST.with_borrow(|last| {
        last.as_ref()
            .map(|(place, said)| format!("at {place}: {said}"))
    })
}

/// Runs `body`, and catches its panic.
pub(super) fn catch(body: impl FnOnce()) -> Result<(), Box<Caught>> {
    panic::catch_unwind(AssertUnwindSafe(body)).map_err(|payload| {
        Box::new(Caught {
            message: message(&*payload),
            place: LAST.take().map(|(place, _)| place),
        })
    })
}

fn message(payload: &(dyn Any + Send)) -> String {
    if let Some(text) = payload.downcast_ref::<&str>() {
        (*text).to_owned()
    } else if let Some(text) = payload.downcast_ref::<String>() {
        text.clone()
    } else {
        "(a panic without a message)".to_owned()
    }
}
