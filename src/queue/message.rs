//! Values as the bytes of messages, with the names of the handles in them.
//!
//! A value is encoded before anything of the queue is touched, and decoded from a private copy. Where it holds handles, their names come
//! behind it, and the length of that part in the last four bytes: a message may be read by any process, at any time, so a handle in it can
//! be found by name or not at all.

use std::cell::Cell;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::core::Core;
use super::traffic::{Held, OnDeath};
use crate::codec;
use crate::error::{Error, ErrorKind, Result};
use crate::handle::{self, Hold, Pin, SegmentId, Source};
use crate::segment::registry;
use crate::sys::clock::Wait;

/// What a thread keeps of its buffer between two messages.
const KEPT: usize = 64 << 10;

thread_local! {
    static BUFFER: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Runs `with` on an empty buffer of this thread.
fn with_buffer<R>(with: impl FnOnce(&mut Vec<u8>) -> R) -> R {
    // a value that itself puts or gets while it is encoded finds another
    let mut buffer = BUFFER.take();
    let result = with(&mut buffer);
    if buffer.capacity() <= KEPT {
        buffer.clear();
        BUFFER.set(buffer);
    }
    result
}

fn refused<T>(core: &Core, why: &str) -> Error {
    let what = std::any::type_name::<T>();
    Error::new(
        ErrorKind::Encode,
        format!("cannot put this {what} into {core}: {why}"),
    )
}

/// Encodes `value` and puts it.
pub(super) fn put<T: Serialize + 'static>(core: &Core, value: &T, wait: Wait) -> Result<()> {
    if let Some(bytes) = codec::raw(value) {
        return core.put(bytes, false, wait);
    }
    with_buffer(|buffer| {
        let (encoded, pins) = handle::encoding(|| codec::encode(value, buffer));
        encoded.map_err(|reason| refused::<T>(core, &reason))?;
        let mut names = Vec::with_capacity(pins.len());
        for segment in pins.iter().filter_map(Pin::segment) {
            let name = segment.name().ok_or_else(|| {
                let why = "it holds a handle without a name, which whoever gets the message could not find; create it with a name, or give it to tasks as an argument";
                refused::<T>(core, why)
            })?;
            names.push((segment.id().to_bytes(), name.to_owned()));
        }
        if !names.is_empty() {
            let start = buffer.len();
            codec::encode(&names, buffer).map_err(|reason| refused::<T>(core, &reason))?;
            let len = (buffer.len() - start) as u32;
            buffer.extend_from_slice(&len.to_le_bytes());
        }
        core.put(buffer, !names.is_empty(), wait)
    })
}

fn undecodable<T>(core: &Core, why: &str) -> Error {
    let what = std::any::type_name::<T>();
    Error::new(
        ErrorKind::Decode,
        format!("cannot make a {what} of a message from {core}: {why}; the message is dropped"),
    )
}

/// The value of a message. What is to become of it if this process dies is said before code of the program sees any of it.
pub(super) fn value<T: DeserializeOwned + 'static>(
    held: &Held<'_>,
    on_death: OnDeath,
) -> Result<T> {
    let core = held.core();
    let Some(taken) = held.message() else {
        return Err(undecodable::<T>(core, "it was given back"));
    };
    let form = taken.form();
    let unread = |error| core.unread(error);
    if !form.handles {
        // numbers are made where they are to be, by one copy
        let mut copied = Ok(());
        let raw = codec::from_raw(taken.len(), |bytes| copied = taken.copy_to(bytes));
        if let Some(value) = raw {
            copied.map_err(unread)?;
            held.hand_out(on_death);
            return value.map_err(|reason| undecodable::<T>(core, &reason));
        }
        if form.items.is_some() {
            return Err(undecodable::<T>(
                core,
                "it was filled in place by loan(); receive it by recv()",
            ));
        }
    }
    with_buffer(|buffer| {
        taken.read(buffer).map_err(unread)?;
        held.hand_out(on_death);
        if form.handles {
            return with_handles(core, buffer);
        }
        // a manager's handle is found by what is written, without any memory
        let found = handle::following(|| codec::decode(buffer));
        found.map_err(|reason| handle::failure().unwrap_or_else(|| undecodable::<T>(core, &reason)))
    })
}

/// The value and, behind it, the names of its handles.
fn with_handles<T: DeserializeOwned + 'static>(core: &Core, bytes: &[u8]) -> Result<T> {
    let undecodable = |reason: &str| undecodable::<T>(core, reason);
    let (value, names) =
        split(bytes).ok_or_else(|| undecodable("the names in it make no sense"))?;
    let mut found = Vec::with_capacity(names.len());
    for (id, name) in &names {
        let id = SegmentId::from_bytes(*id);
        if registry::find(id, true).is_some() {
            continue;
        }
        let hold = Hold::open(name).map_err(|error| gone(name, Some(error)))?;
        if hold.segment().id() != id {
            return Err(gone(name, None));
        }
        // attached by its id while this is held
        found.push(hold);
    }
    let source: Arc<dyn Source> = Arc::new(ByName);
    let decoded = handle::decoding(&source, || codec::decode(value));
    decoded.map_err(|reason| handle::failure().unwrap_or_else(|| undecodable(&reason)))
}

type Names = Vec<([u8; 16], String)>;

fn split(bytes: &[u8]) -> Option<(&[u8], Names)> {
    let (rest, len) = bytes.split_last_chunk::<4>()?;
    let at = rest.len().checked_sub(u32::from_le_bytes(*len) as usize)?;
    let (value, names) = rest.split_at(at);
    Some((value, codec::decode(names).ok()?))
}

fn gone(name: &str, error: Option<Error>) -> Error {
    let text = format!(
        "cannot attach \"{name}\", which a message holds a handle of: it has gone since the message was put"
    );
    match error {
        Some(error) => Error::with_source(ErrorKind::Gone, text, error),
        None => Error::new(ErrorKind::Gone, text),
    }
}

/// All that can be found is open when it is asked for.
struct ByName;

impl Source for ByName {
    fn descriptor(&self, _: SegmentId) -> Result<OwnedFd> {
        Err(Error::new(
            ErrorKind::Gone,
            "cannot attach a handle in a message: its name is not in it",
        ))
    }

    fn keeps_mapped(&self) -> bool {
        false
    }
}
