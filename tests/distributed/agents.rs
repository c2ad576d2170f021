//! Agents and their ends.
