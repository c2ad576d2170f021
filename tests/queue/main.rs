//! Queues: in one process, between processes, between programs that know but a name, and with processes killed in the middle of it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(
    clippy::print_stdout,
    reason = "tests say what they found, and processes of their own report on stdout"
)]

#[allow(dead_code, reason = "these tests use some of it")]
#[path = "../limits/alone.rs"]
mod alone;
mod calls;
mod deaths;
mod echo;
mod loans;
mod sizes;
mod storm;

/// Has a thread of its own make `call`, and returns when it sleeps in it.
fn asleep<'scope, R: Send + 'scope>(
    scope: &'scope std::thread::Scope<'scope, '_>,
    call: impl FnOnce() -> R + Send + 'scope,
) -> std::thread::ScopedJoinHandle<'scope, R> {
    let (tell, told) = std::sync::mpsc::channel();
    let thread = scope.spawn(move || {
        tell.send(nix::unistd::gettid()).unwrap();
        call()
    });
    let stat = format!("/proc/self/task/{}/stat", told.recv().unwrap());
    let until = std::time::Instant::now() + calls::LONG;
    while !std::fs::read_to_string(&stat).unwrap().contains(") S ") {
        assert!(std::time::Instant::now() < until, "it does not sleep");
        std::thread::yield_now();
    }
    thread
}

/// A name of this run's own.
fn name(what: &str) -> String {
    format!("mp-queue-{}-{what}", std::process::id())
}
