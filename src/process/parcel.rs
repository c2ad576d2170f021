//! The bytes of an argument or a result on their way: in the message itself, or in a memory file whose descriptor comes with it.
//!
//! The file is written and read by system calls and never mapped: each side makes one copy, of a vector of numbers from or to where it
//! lies, and neither can be killed by what the other does to the file meanwhile.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::codec;
use crate::error::{Error, ErrorKind, Result};
use crate::handle::{self, Pin, Source};
use crate::segment::ensure_available;
use crate::sys::memfd;
use crate::sys::socket::MESSAGE_MAX;

/// Longest parcel that goes in the message.
pub(super) const INLINE_MAX: usize = MESSAGE_MAX / 2;

#[derive(Debug)]
pub(super) enum Parcel {
    Inline(Vec<u8>),
    File(File, usize),
}

/// Why a value could not be packed.
#[derive(Debug)]
pub(super) enum Unpackable {
    /// It has no encoding.
    Encode(String),
    NoMemory(Error),
}

impl Parcel {
    /// Packs `value`; `extend` may append to the bytes of one that holds handles.
    pub(super) fn pack<T: Serialize + 'static>(
        value: &T,
        extend: impl FnOnce(&[Pin], &mut Vec<u8>),
    ) -> Result<(Self, Vec<Pin>), Unpackable> {
        // a vector of numbers goes from where it lies
        if let Some(bytes) = codec::raw(value) {
            return Ok((Self::of(bytes).map_err(Unpackable::NoMemory)?, Vec::new()));
        }
        let mut bytes = Vec::new();
        let (encoded, pins) = handle::encoding(|| codec::encode(value, &mut bytes));
        encoded.map_err(Unpackable::Encode)?;
        if !pins.is_empty() {
            extend(&pins, &mut bytes);
        }
        let parcel = if bytes.len() <= INLINE_MAX {
            Self::Inline(bytes)
        } else {
            Self::of(&bytes).map_err(Unpackable::NoMemory)?
        };
        Ok((parcel, pins))
    }

    /// A parcel of these bytes.
    pub(super) fn of(bytes: &[u8]) -> Result<Self> {
        if bytes.len() <= INLINE_MAX {
            return Ok(Self::Inline(bytes.to_vec()));
        }
        let tried = format!("cannot send {} bytes to another process", bytes.len());
        ensure_available(&tried, bytes.len())?;
        let file = memfd::create("multiproc-parcel", bytes.len() as u64)
            .map(File::from)
            .and_then(|file| file.write_all_at(bytes, 0).map(|()| file))
            .map_err(|error| Error::os(tried, error))?;
        Ok(Self::File(file, bytes.len()))
    }

    /// The parcel of `len` bytes that came as `bytes` in a message, or as `file` with it. `Err` says what cannot be.
    pub(super) fn arrived(
        len: u64,
        bytes: &[u8],
        file: Option<OwnedFd>,
    ) -> Result<Self, &'static str> {
        if len == bytes.len() as u64 {
            return Ok(Self::Inline(bytes.to_vec()));
        }
        let Some(file) = file else {
            return Err("this process had no descriptor left to take it (ulimit -n)");
        };
        // what is asked of this process's memory is there in the sender's
        let whole = memfd::len(file.as_fd()).is_ok_and(|found| found == len)
            && memfd::is_there(file.as_fd(), 0, len);
        match usize::try_from(len) {
            Ok(len) if whole => Ok(Self::File(File::from(file), len)),
            _ => Err("it is not as long as was said"),
        }
    }

    pub(super) fn len(&self) -> usize {
        match self {
            Self::Inline(bytes) => bytes.len(),
            Self::File(_, len) => *len,
        }
    }

    /// What goes in the message.
    pub(super) fn inline(&self) -> &[u8] {
        match self {
            Self::Inline(bytes) => bytes,
            Self::File(..) => &[],
        }
    }

    /// What goes with the message.
    pub(super) fn file(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::Inline(_) => None,
            Self::File(file, _) => Some(file.as_fd()),
        }
    }

    /// Copies the bytes from `at` on into `to`; false if there are not so many.
    pub(super) fn read(&self, at: usize, to: &mut [u8]) -> bool {
        match self {
            Self::Inline(bytes) => {
                let found = at.checked_add(to.len()).and_then(|end| bytes.get(at..end));
                found.map(|found| to.copy_from_slice(found)).is_some()
            }
            Self::File(file, _) => file.read_exact_at(to, at as u64).is_ok(),
        }
    }

    /// The first `len` bytes.
    pub(super) fn bytes(&self, len: usize) -> Option<Vec<u8>> {
        let mut bytes = vec![0; len];
        self.read(0, &mut bytes).then_some(bytes)
    }

    /// The value that the first `len` bytes stand for. Handles in it are attached from `source`.
    pub(super) fn unpack<T: DeserializeOwned + 'static>(
        &self,
        len: usize,
        source: &Arc<dyn Source>,
    ) -> Result<T, String> {
        let short = || "its bytes are not to be had any more".to_owned();
        let mut read = true;
        if let Some(value) = codec::from_raw(len, |to| read = self.read(0, to)) {
            return if read { value } else { Err(short()) };
        }
        let copy;
        let bytes = match self {
            Self::Inline(bytes) => bytes.get(..len).ok_or_else(short)?,
            Self::File(..) => {
                copy = self.bytes(len).ok_or_else(short)?;
                &copy
            }
        };
        let value = handle::decoding(source, || codec::decode(bytes));
        value.map_err(|why| handle::failure().map_or(why, |error| error.to_string()))
    }
}

impl Unpackable {
    /// As the error of who gave `what`.
    pub(super) fn into_error(self, what: &str) -> Error {
        match self {
            Self::Encode(why) => {
                Error::new(ErrorKind::Encode, format!("cannot encode {what}: {why}"))
            }
            Self::NoMemory(error) => error,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handle::travel;

    fn arrives(parcel: &Parcel) -> Parcel {
        let file = parcel.file().map(|file| file.try_clone_to_owned().unwrap());
        Parcel::arrived(parcel.len() as u64, parcel.inline(), file).unwrap()
    }

    #[test]
    fn values_of_any_size_arrive() {
        for len in [0, 1, INLINE_MAX / 8, INLINE_MAX / 8 + 1, 100_000] {
            let numbers: Vec<u64> = (0..len as u64).collect();
            let texts: Vec<String> = numbers.iter().map(u64::to_string).collect();
            let (parcel, _) = Parcel::pack(&numbers, |_, _| ()).unwrap();
            let back: Vec<u64> = arrives(&parcel)
                .unpack(parcel.len(), travel::held())
                .unwrap();
            assert_eq!(back, numbers);
            let (parcel, _) = Parcel::pack(&texts, |_, _| ()).unwrap();
            let back: Vec<String> = arrives(&parcel)
                .unpack(parcel.len(), travel::held())
                .unwrap();
            assert_eq!(back, texts);
        }
    }

    #[test]
    fn a_file_that_is_not_what_was_said_is_refused() {
        let parcel = Parcel::of(&vec![7; 100_000]).unwrap();
        let file = || parcel.file().map(|file| file.try_clone_to_owned().unwrap());
        assert!(Parcel::arrived(100_000, &[], file()).is_ok());
        assert!(Parcel::arrived(100_001, &[], file()).is_err());
        assert!(Parcel::arrived(u64::MAX, &[], file()).is_err());
        assert!(Parcel::arrived(100_000, &[], None).is_err());
        // nobody has written it: its reader would have to find the memory
        let empty = memfd::create("multiproc-test", 1 << 40).unwrap();
        assert!(Parcel::arrived(1 << 40, &[], Some(empty)).is_err());
        assert!(!parcel.read(99_999, &mut [0; 2]));
        assert!(!Parcel::Inline(vec![1]).read(usize::MAX, &mut [0; 2]));
    }
}
