//! Producers and consumers that are killed.
