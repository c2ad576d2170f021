//! How children end: as far as they came, with which status, and what that is called.

use std::fmt;
use std::process;
use std::time::{Duration, Instant};

use crate::error::{Error, ErrorKind, signal_name};
use crate::spawn::hello::exit;
use crate::spawn::hook;
use crate::sys::pidfd::Status;

/// How a child ended.
#[derive(Debug, Clone)]
pub(crate) enum End {
    /// It never said a right hello, or could not begin.
    NeverStarted {
        error: Error,
        status: Status,
        /// It said nothing before it was ended by a signal, which was not ours.
        killed: bool,
    },
    Ended(Status),
}

/// How far a child has come that said hello, or was ended.
#[derive(Clone)]
pub(super) enum Progress {
    /// To be settled by then.
    Due(Instant),
    /// It may take its time: it is settled, or there is no limit.
    Unbounded,
    /// It was ended for taking too long.
    Overdue,
    /// It closed its socket, or ended, before it said hello.
    Silent,
    /// It was not told what to do, and was ended, for this reason.
    Refused(Error),
}

impl End {
    /// The end of process `pid`, which came as far as `progress`, may have said why it could not begin, and had `limit` to become ready.
    pub(super) fn of(
        pid: u32,
        status: Status,
        progress: Progress,
        refusal: Option<&str>,
        limit: Duration,
    ) -> Self {
        let silent = matches!(progress, Progress::Silent);
        let failed = |error| End::NeverStarted {
            error,
            status,
            killed: silent && matches!(status, Status::Killed(_)),
        };
        let never = |kind, why: fmt::Arguments<'_>| {
            let message = format!("cannot start a worker: it (pid {pid}) {why}");
            failed(Error::new(kind, message))
        };
        match (refusal, progress) {
            (_, Progress::Refused(error)) => failed(error),
            (_, Progress::Silent) => {
                let how = match status {
                    Status::Exited(exit::REACHED_MAIN) => {
                        return failed(hook::did_not_run(
                            "in the worker, which came to the program's own code",
                        ));
                    }
                    Status::Exited(code) => format!("exited with code {code}"),
                    Status::Killed(signal) => format!("was ended by {}", signal_name(signal)),
                    Status::Unknown => "ended".to_owned(),
                };
                let kind = ErrorKind::HookDidNotRun;
                never(kind, format_args!("{how} before it said hello"))
            }
            (Some(why), _) => never(ErrorKind::Os, format_args!("{why}")),
            (None, Progress::Overdue) => never(
                ErrorKind::InitFailed,
                format_args!(
                    "was not ready after {limit:?} and was ended; an initialiser that needs longer needs a longer init_timeout"
                ),
            ),
            (None, Progress::Due(_) | Progress::Unbounded) => End::Ended(status),
        }
    }
}

/// Where there is no pidfd.
pub(super) fn reap_by_pid(process: &mut process::Child) -> Option<Status> {
    use std::os::unix::process::ExitStatusExt;
    match process.try_wait() {
        Ok(None) => None,
        Ok(Some(status)) => match (status.code(), status.signal()) {
            (Some(code), _) => Some(Status::Exited(code)),
            (None, Some(signal)) => Some(Status::Killed(signal)),
            _ => Some(Status::Unknown),
        },
        Err(_) => Some(Status::Unknown),
    }
}
