//! Deadlines on the monotonic clock.

use std::time::{Duration, Instant};

/// How long a call may wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wait {
    /// Not at all.
    No,
    /// Until this moment of the monotonic clock.
    Until(Instant),
    /// Without end.
    Forever,
}

impl Wait {
    /// `duration` from now on; one too long for the clock is without end.
    pub(crate) fn lasting(duration: Duration) -> Self {
        Instant::now()
            .checked_add(duration)
            .map_or(Wait::Forever, Wait::Until)
    }

    /// What is left; `None` is without end.
    pub(crate) fn left(self) -> Option<Duration> {
        match self {
            Wait::No => Some(Duration::ZERO),
            Wait::Until(end) => Some(end.saturating_duration_since(Instant::now())),
            Wait::Forever => None,
        }
    }

    pub(crate) fn is_over(self) -> bool {
        self.left() == Some(Duration::ZERO)
    }
}

/// Milliseconds of the monotonic clock, which all processes of a machine read alike unless one lives in a time namespace.
pub(crate) fn millis() -> u64 {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC);
    let now = now.map_or(Duration::ZERO, Duration::from);
    now.as_millis() as u64
}

/// Milliseconds of the clock that goes on while the machine is suspended: for what others end meanwhile.
#[cfg(feature = "redis")]
pub(crate) fn millis_of_sleep_too() -> u64 {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_BOOTTIME);
    now.map_or_else(|_| millis(), |now| Duration::from(now).as_millis() as u64)
}

/// A span of time as the kernel takes it.
pub(super) fn timespec(duration: Duration) -> libc::timespec {
    libc::timespec {
        tv_sec: libc::time_t::try_from(duration.as_secs()).unwrap_or(libc::time_t::MAX),
        tv_nsec: libc::c_long::from(duration.subsec_nanos().cast_signed()),
    }
}
