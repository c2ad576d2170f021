//! Scripts that run in the server, each as one step that nobody sees half done.

use std::sync::OnceLock;

use super::command::Command;

/// A script of this crate. It is sent whole once for each server that does not know it yet, and by its digest from then on.
#[derive(Debug)]
pub(crate) struct Script {
    name: &'static str,
    source: &'static str,
    digest: OnceLock<String>,
}

const EVALSHA: &str = "EVALSHA";
const DIGEST: usize = 40;

impl Script {
    /// `source` begins with `#!lua`. By that the server refuses a key that was not declared, which another node of a cluster may have; and
    /// with the flag `allow-oom` it runs where the server is full: what ends or gives back something must go on there.
    pub(crate) const fn new(name: &'static str, source: &'static str) -> Self {
        let bytes = source.as_bytes();
        let start = b"#!lua flags=";
        let mut at = 0;
        while at < start.len() {
            assert!(bytes[at] == start[at], "a script begins with its flags");
            at += 1;
        }
        Self {
            name,
            source,
            digest: OnceLock::new(),
        }
    }

    /// A call with these keys; its arguments are to follow.
    pub(crate) fn call<K: AsRef<[u8]>>(&self, keys: &[K]) -> Command {
        let digest = self
            .digest
            .get_or_init(|| redis::Script::new(self.source).get_hash().to_owned());
        let command = Command::labelled(self.name).arg(EVALSHA).arg(digest);
        keys.iter().fold(command.count(keys.len()), Command::key)
    }

    /// The same call with the script itself.
    pub(super) fn whole(&self, call: &Command) -> Command {
        call.with_first_two("EVAL", self.source, [EVALSHA.len(), DIGEST])
    }

    #[cfg(test)]
    pub(super) fn source(&self) -> &'static str {
        self.source
    }
}
