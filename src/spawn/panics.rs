//! Panics of tasks: caught, kept with place and backtrace, sent home.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::error::TaskPanic;

/// What this thread knows of panics in the piece of work it is at.
#[derive(Default)]
struct Caught {
    /// Panics are to be kept rather than printed.
    mine: bool,
    first: Option<TaskPanic>,
    latest: Option<TaskPanic>,
}

thread_local! {
    static CAUGHT: RefCell<Caught> = RefCell::default();
}

/// Keeps panics of this thread for their reports, and `print`s them as well if asked; other threads of the worker go on printing theirs.
///
/// In a program built with `panic = "abort"` no panic comes back from where it was raised; then `last` is given its report before the
/// process ends.
pub(crate) fn catch_panics_of_this_thread(
    print: bool,
    last: impl Fn(&TaskPanic) + Send + Sync + 'static,
) {
    CAUGHT.with_borrow_mut(|caught| caught.mine = true);
    let otherwise = std::panic::take_hook();
    let with_backtrace = std::env::var_os("RUST_BACKTRACE").is_none_or(|value| value != "0");
    std::panic::set_hook(Box::new(move |info| {
        let mine = CAUGHT
            .try_with(|caught| caught.try_borrow().is_ok_and(|caught| caught.mine))
            .unwrap_or(false);
        if !mine || print {
            otherwise(info);
        }
        if !mine {
            return;
        }
        let message = info
            .payload_as_str()
            .unwrap_or("a value that is no text")
            .to_owned();
        let location = info.location().map(ToString::to_string).unwrap_or_default();
        let backtrace = if with_backtrace {
            std::backtrace::Backtrace::force_capture().to_string()
        } else {
            String::new()
        };
        let panic = TaskPanic {
            message,
            location,
            backtrace,
            ..TaskPanic::default()
        };
        CAUGHT.with_borrow_mut(|caught| {
            // A panic while another unwinds ends the process, and so does one that reaches a function which must not unwind: then the first
            // says what happened. If the task has caught the first itself, this is a report that nobody asks for.
            if cfg!(panic = "abort") || caught.first.is_some() {
                last(caught.first.as_ref().unwrap_or(&panic));
            }
            caught.first.get_or_insert_with(|| panic.clone());
            caught.latest = Some(panic);
        });
    }));
}

/// Runs `work`; a panic becomes its report.
pub(crate) fn guarded<T>(work: impl FnOnce() -> T) -> Result<T, TaskPanic> {
    CAUGHT.with_borrow_mut(|caught| (caught.first, caught.latest) = (None, None));
    // what `work` leaves half done is the user's state, which is made anew after a panic, and buffers that are cleared before use
    catch_unwind(AssertUnwindSafe(work)).map_err(|payload| {
        let kept = CAUGHT.with_borrow_mut(|caught| caught.latest.take());
        kept.unwrap_or_else(|| {
            // a task has put a hook of its own in the place of ours: only the message is left
            let text = payload.downcast_ref::<&str>().map(ToString::to_string);
            let text = text.or_else(|| payload.downcast_ref::<String>().cloned());
            let location = "a place that the panic hook of the task did not tell".to_owned();
            TaskPanic {
                message: text.unwrap_or_default(),
                location,
                ..TaskPanic::default()
            }
        })
    })
}

pub(crate) fn encode_panic(panic: &TaskPanic) -> Vec<u8> {
    let TaskPanic {
        message,
        location,
        backtrace,
        ..
    } = panic;
    postcard::to_allocvec(&(message, location, backtrace)).unwrap_or_default()
}

/// The same, cut so that it fits a message of the control socket.
pub(crate) fn encode_panic_for_message(mut panic: TaskPanic) -> Vec<u8> {
    const MOST: usize = 4 * 1024;
    for text in [
        &mut panic.message,
        &mut panic.location,
        &mut panic.backtrace,
    ] {
        text.truncate(text.floor_char_boundary(MOST));
    }
    encode_panic(&panic)
}

pub(crate) fn decode_panic(bytes: &[u8], index: usize, pid: u32) -> TaskPanic {
    let (message, location, backtrace) = postcard::from_bytes(bytes).unwrap_or_default();
    TaskPanic {
        message,
        location,
        backtrace,
        index,
        pid,
    }
}
