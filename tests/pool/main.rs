//! The pool from outside: worker processes started from tests with no line of set-up, by many threads at once.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::exit, reason = "that a task may do it is tried")]

mod again;
mod broken;
mod calls;
mod deaths;
mod ending;
mod ends;
mod forked;
mod handles;
mod large;
mod results;
mod seeds;
mod steps;
mod storm;
mod wild;
