//! The manager: one suite for every engine, then what each has of its own.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![cfg(feature = "manager")]

/// Makes a test of each function for each engine. A function gets a manager of its own.
macro_rules! on_each_engine {
    ($($(#[$doc:meta])* fn $name:ident($manager:ident) $body:block)*) => {
        $( $(#[$doc])* fn $name($manager: &multiproc::Manager) $body )*

        mod local {
            $( #[test] fn $name() { super::$name(&crate::local()); } )*
        }

        #[cfg(feature = "redis")]
        mod remote {
            $( #[test] fn $name() { super::$name(&crate::remote()); } )*
        }
    };
}

mod arrays;
mod batches;
#[cfg(feature = "redis")]
mod cluster;
mod dicts;
#[cfg(feature = "redis")]
mod faults;
#[cfg(feature = "redis")]
mod holders;
mod kills;
mod lists;
mod model;
mod names;
mod own;
mod queues;
#[cfg(feature = "redis")]
#[path = "../support/redis.rs"]
mod redis;
mod review;
mod sets;
mod syncs;
#[cfg(feature = "redis-tls")]
mod tls;
mod travel;
mod values;

/// One server for all tests that do it no harm, and a manager of its own for each.
#[cfg(feature = "redis")]
fn remote() -> multiproc::Manager {
    use std::sync::atomic::{AtomicU64, Ordering};
    static SERVER: std::sync::LazyLock<redis::RedisServer> =
        std::sync::LazyLock::new(redis::RedisServer::start);
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let name = format!("test-{}", NEXT.fetch_add(1, Ordering::Relaxed));
    multiproc::Manager::builder()
        .name(name)
        .connect(&SERVER.url())
        .unwrap()
}

fn local() -> multiproc::Manager {
    multiproc::Manager::new().unwrap()
}

fn kind<T>(result: multiproc::Result<T>) -> Option<multiproc::ErrorKind> {
    result.err().map(|error| error.kind())
}

/// What no test waits for in vain.
const LONG: std::time::Duration = std::time::Duration::from_secs(60);
/// What tests wait for in vain.
const SHORT: std::time::Duration = std::time::Duration::from_millis(30);
