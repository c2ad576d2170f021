//! Floor 3: waiting between processes.

pub(crate) mod park;
pub(crate) mod words;
