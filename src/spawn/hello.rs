//! The first words between parent and child, and the marker that tells a child what it is.

use std::ffi::CStr;

use crate::error::{Error, ErrorKind, Result};
use crate::spawn::function::Reference;
use crate::sys::image::Image;

/// Counts up with every change of these messages.
const PROTOCOL: u32 = 2;

pub(crate) const MARKER: &CStr = c"MULTIPROC_WORKER";
pub(crate) const MARKER_PREFIX: &[u8] = b"MULTIPROC_WORKER=";

/// First byte of a message with which a child says why it cannot begin; the rest is text. No other message begins so.
pub(crate) const REFUSAL: u8 = 0xff;

/// Exit codes of a child that did not come to work.
pub(crate) mod exit {
    /// The parent has gone.
    pub(crate) const PARENT_GONE: i32 = 120;
    /// The worker could not begin; it has said why.
    pub(crate) const REFUSED: i32 = 121;
    /// The marker is set, but this process was not started by the one it names.
    pub(crate) const STALE_MARKER: i32 = 122;
    /// The hook did not find itself in the list of constructors.
    pub(crate) const HOOK_NOT_LISTED: i32 = 123;
    /// The marker is set, and the program's own code asks for workers.
    pub(crate) const REACHED_MAIN: i32 = 124;
}

/// Value of the marker: who the parent is, and which copy of this crate in the program is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Marker {
    pub(crate) parent: i32,
    pub(crate) hook: usize,
}

impl Marker {
    pub(crate) fn to_text(self) -> String {
        format!("{}:{:x}", self.parent, self.hook)
    }

    /// Reads the value without allocating.
    pub(crate) fn parse(value: &CStr) -> Option<Self> {
        let (parent, hook) = value.to_str().ok()?.split_once(':')?;
        Some(Self {
            parent: parent.parse().ok()?,
            hook: usize::from_str_radix(hook, 16).ok()?,
        })
    }
}

/// What a worker says first. Its pidfd comes with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hello {
    protocol: u32,
    build: u64,
    build_id: Vec<u8>,
    hook: u64,
    pointer_width: u32,
}

impl Hello {
    pub(crate) fn own(hook: usize) -> Self {
        let image = Image::own();
        Self {
            protocol: PROTOCOL,
            build: image.fingerprint(),
            build_id: image.build_id.clone(),
            hook: hook as u64,
            pointer_width: usize::BITS,
        }
    }

    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let Self {
            protocol,
            build,
            build_id,
            hook,
            pointer_width,
        } = self;
        postcard::to_allocvec(&(protocol, build, build_id, hook, pointer_width))
            .expect("plain numbers encode")
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (protocol, build, build_id, hook, pointer_width) = postcard::from_bytes(bytes).ok()?;
        Some(Self {
            protocol,
            build,
            build_id,
            hook,
            pointer_width,
        })
    }

    /// Refuses a worker that runs another build: offsets into its image would lead anywhere.
    pub(crate) fn check(&self, worker: &Hello) -> Result<()> {
        if self == worker {
            return Ok(());
        }
        let build = |hello: &Hello| match hello.build_id.as_slice() {
            [] => format!("{:016x}", hello.build),
            id => id
                .iter()
                .fold(String::new(), |text, byte| text + &format!("{byte:02x}")),
        };
        let message = format!(
            "cannot use a worker: it runs another build of the program (protocol {}, build {} here; protocol {}, build {} there)",
            self.protocol,
            build(self),
            worker.protocol,
            build(worker)
        );
        Err(Error::new(ErrorKind::WorkerMismatch, message))
    }
}

/// What a worker is told to do. Descriptors may come with it.
#[derive(Clone, Debug)]
pub(crate) struct Start {
    pub(crate) entry: Reference,
    pub(crate) thread_name: String,
    pub(crate) stack_size: u64,
    pub(crate) bytes: Vec<u8>,
}

impl Start {
    /// The message, from a parent that would say `hello`.
    pub(crate) fn to_bytes(&self, hello: &Hello) -> Vec<u8> {
        let value = (
            hello.to_bytes(),
            self.entry.to_words(),
            &self.thread_name,
            self.stack_size,
            &self.bytes,
        );
        postcard::to_allocvec(&value).expect("plain values encode")
    }

    /// What a message says, and which hello its sender would say: it comes before the parent has heard ours.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<(Option<Hello>, Self)> {
        let (hello, entry, thread_name, stack_size, bytes): (Vec<u8>, _, _, _, _) =
            postcard::from_bytes(bytes).ok()?;
        let start = Self {
            entry: Reference::from_words(entry),
            thread_name,
            stack_size,
            bytes,
        };
        Some((Hello::from_bytes(&hello), start))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marker_survives_the_way_through_the_environment() {
        let marker = Marker {
            parent: 4711,
            hook: 0x12_3456,
        };
        let text = std::ffi::CString::new(marker.to_text()).unwrap();
        assert_eq!(Marker::parse(&text), Some(marker));
        assert_eq!(Marker::parse(c"yes"), None);
        assert_eq!(Marker::parse(c"12:zz"), None);
    }

    #[test]
    fn another_build_is_refused_and_both_are_named() {
        let own = Hello::own(0x1000);
        assert!(
            own.check(&Hello::from_bytes(&own.to_bytes()).unwrap())
                .is_ok()
        );
        let other = Hello {
            build_id: vec![0xab, 0xcd],
            ..own.clone()
        };
        let error = own.check(&other).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::WorkerMismatch);
        assert!(error.to_string().contains("abcd there"), "{error}");
    }
}
