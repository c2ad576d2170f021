//! Where a pool is to be found on a server, and what its agents are told of it.

use std::fs;
use std::io::Read;
use std::time::Duration;

use crate::error::{Error, ErrorKind, Result};
use crate::pool::builder::Workplace;
use crate::server::group::{Group, Settings};
use crate::server::keys::Tag;
use crate::server::url::{self, Address};
use crate::spawn::function::Reference;
use crate::spawn::hook;
use crate::sys::image::{FNV_START, Image, fnv};

/// The name of a pool that nobody named.
const DEFAULT: &str = "pool";

/// An address, and the name of a pool if one stands behind it.
pub(super) struct Place {
    pub(super) address: Address,
    pub(super) name: Option<String>,
}

impl Place {
    /// `url`, `url#name`, or `@path` of a file that holds one of them.
    pub(super) fn parse(text: &str) -> Result<Self> {
        let (address, name) = url::with_name(text)?;
        Ok(Self { address, name })
    }

    pub(super) fn name(&self) -> String {
        self.name.clone().unwrap_or_else(|| DEFAULT.to_owned())
    }

    /// What all builds of the program under that name have in common: which of them are there, and who was refused.
    pub(super) fn register(&self, name: &str) -> Result<Group> {
        Group::join(&self.address, Tag::pool(name, "builds")?, settings())
    }

    /// The pool of this name and this build.
    pub(super) fn group(&self, name: &str) -> Result<Group> {
        let build = build()?;
        Group::join(&self.address, Tag::pool(name, &build[..8])?, settings())
    }
}

fn settings() -> Settings {
    // the keys live as long as parents and agents say so
    Settings::default()
}

/// What two processes have in common if they run the same program: an offset into its image means the same to both.
pub(super) fn build() -> Result<String> {
    let image = Image::own();
    let mut hash = fnv(image.fingerprint(), &(hook::offset() as u64).to_le_bytes());
    if image.build_id.is_empty() {
        // the linker has left no name: the whole file is one
        let failed = |error| Error::os("cannot read /proc/self/exe, which names this build", error);
        let mut file = fs::File::open("/proc/self/exe").map_err(failed)?;
        let (mut part, mut whole) = (vec![0; 1 << 16], FNV_START);
        loop {
            match file.read(&mut part).map_err(failed)? {
                0 => break,
                count => whole = fnv(whole, &part[..count]),
            }
        }
        hash = fnv(hash, &whole.to_le_bytes());
    }
    Ok(format!("{hash:016x}"))
}

/// What agents are told: how their workers work, and how often to give a sign of life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) lease: Duration,
    pub(super) workplace: Workplace,
}

type Fields = (
    Duration,
    Option<u64>,
    Option<Duration>,
    Duration,
    Option<([u64; 2], Vec<u8>)>,
);

impl Plan {
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let Workplace {
            max_tasks,
            item_limit,
            init_limit,
            init,
        } = &self.workplace;
        let init = init
            .as_ref()
            .map(|(function, bytes)| (function.to_words(), bytes));
        let fields = (
            self.lease,
            max_tasks.map(|items| items as u64),
            item_limit,
            init_limit,
            init,
        );
        postcard::to_allocvec(&fields).expect("plain values encode")
    }

    pub(super) fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let (lease, max_tasks, item_limit, init_limit, init): Fields = postcard::from_bytes(bytes)
            .map_err(|_| {
                Error::new(
                    ErrorKind::Protocol,
                    "the description of the pool makes no sense",
                )
            })?;
        Ok(Self {
            lease,
            workplace: Workplace {
                max_tasks: max_tasks.map(|items| items as usize),
                item_limit,
                init_limit,
                init: init.map(|(words, bytes)| (Reference::from_words(words), bytes)),
            },
        })
    }
}
