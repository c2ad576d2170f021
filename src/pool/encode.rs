//! Arguments as bytes: once through a buffer of the calling thread, then to wherever the workers read them.

use std::cell::RefCell;
use std::ops::Range;

use serde::Serialize;

use crate::codec;
use crate::error::{Error, ErrorKind, Result};
use crate::handle::travel::Travels;
use crate::handle::{self, Pin};
use crate::pool::input::reusable;
use crate::pool::parent::Core;
use crate::pool::task::{Input, InputBytes};
use crate::pool::wire::ARGUMENTS_INLINE;

thread_local! {
    /// Where values are encoded on their way to the workers.
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Where encoded arguments go.
pub(super) trait Sink: Copy {
    type Input;
    /// Takes `bytes`; they are bare numbers if they are `plain`, and `pins` are what the handles in them stand for.
    fn take(self, bytes: &[u8], plain: bool, pins: Vec<Pin>) -> Result<Self::Input>;
}

/// Encodes with `write` into a buffer that is used again and again, and hands the bytes on.
fn encode_by<S: Sink>(sink: S, write: impl FnOnce(&mut Vec<u8>) -> Result<()>) -> Result<S::Input> {
    let mut scratch = SCRATCH.take(); // an encoder of the user's may come here again
    scratch.clear();
    let (written, pins) = handle::encoding(|| write(&mut scratch));
    let input = written.and_then(|()| sink.take(&scratch, false, pins));
    SCRATCH.set(reusable(scratch));
    input
}

/// Encodes the argument of a single task.
pub(super) fn one<A: Travels, S: Sink>(sink: S, argument: &A) -> Result<S::Input> {
    match codec::raw(argument) {
        Some(bytes) => sink.take(bytes, false, Vec::new()),
        None => encode_by(sink, |bytes| {
            codec::encode(argument, bytes).map_err(|why| unencodable(0, &why))
        }),
    }
}

/// Encodes those of `items` in `range`: bare numbers in one copy, others each with its length before it.
pub(super) fn range<A: Travels, S: Sink>(
    sink: S,
    items: &Vec<A>,
    range: Range<usize>,
) -> Result<S::Input> {
    if let (Some(bytes), Some(size)) = (codec::raw(items), codec::number_size::<A>()) {
        return sink.take(
            &bytes[range.start * size..range.end * size],
            true,
            Vec::new(),
        );
    }
    let first = range.start;
    let items = &items[range];
    if let [only] = items {
        return one(sink, only);
    }
    encode_by(sink, |bytes| {
        for (at, item) in items.iter().enumerate() {
            let start = bytes.len();
            bytes.extend_from_slice(&[0; 8]);
            codec::encode(item, bytes).map_err(|why| unencodable(first + at, &why))?;
            let len = (bytes.len() - start - 8) as u64;
            bytes[start..start + 8].copy_from_slice(&len.to_le_bytes());
        }
        Ok(())
    })
}

/// Encodes what all calls of a kind get.
pub(super) fn shared<T: Serialize + 'static>(what: &str, value: &T) -> Result<(Vec<u8>, Vec<Pin>)> {
    let mut bytes = Vec::new();
    let (encoded, pins) = handle::encoding(|| codec::encode(value, &mut bytes));
    let failed = |why| Error::new(ErrorKind::Encode, format!("cannot encode {what}: {why}"));
    encoded.map_err(failed)?;
    Ok((bytes, pins))
}

/// Into the slot itself, or into shared memory.
impl Sink for &Core {
    type Input = Input;

    fn take(self, bytes: &[u8], plain: bool, pins: Vec<Pin>) -> Result<Input> {
        let placed = if bytes.len() <= ARGUMENTS_INLINE {
            let mut words = [0; ARGUMENTS_INLINE / 8];
            for (word, part) in words.iter_mut().zip(bytes.chunks(8)) {
                let mut whole = [0; 8];
                whole[..part.len()].copy_from_slice(part);
                *word = u64::from_le_bytes(whole);
            }
            InputBytes::Inline(words)
        } else {
            InputBytes::Placed(self.memory.place(bytes)?)
        };
        Ok(Input {
            len: bytes.len(),
            plain,
            bytes: placed,
            pins,
        })
    }
}

fn unencodable(index: usize, why: &str) -> Error {
    Error::new(
        ErrorKind::Encode,
        format!("cannot encode the argument of item {index}: {why}"),
    )
}
