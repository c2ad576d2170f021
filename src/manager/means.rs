//! What a lock or queue is made of on this machine, opened when it is first used: a handle that travels needs it only then.

use std::sync::OnceLock;

use crate::error::Result;

pub(super) struct Means<L>(OnceLock<L>);

impl<L> Means<L> {
    pub(super) fn new() -> Self {
        Self(OnceLock::new())
    }

    /// The crate's own primitive, which `open` finds or makes.
    pub(super) fn local(&self, open: impl FnOnce() -> Result<L>) -> Result<&L> {
        if let Some(means) = self.0.get() {
            return Ok(means);
        }
        let means = open()?;
        Ok(self.0.get_or_init(|| means))
    }
}
