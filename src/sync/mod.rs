//! Floor 3: waiting between processes.

pub(crate) mod park;
