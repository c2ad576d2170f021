//! Waiting until a descriptor can be read.

use std::io;
use std::os::fd::BorrowedFd;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::clock::Wait;

/// Waits until one of `fds` can be read, has an error or was hung up; returns the first that is so, or `None` when `wait` is over first.
/// Signals do not end it.
pub(crate) fn wait_any<'a>(
    fds: impl Iterator<Item = BorrowedFd<'a>>,
    wait: Wait,
) -> io::Result<Option<usize>> {
    let mut fds: Vec<PollFd<'_>> = fds.map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
    loop {
        let timeout = match wait.left() {
            None => PollTimeout::NONE,
            // rounded up: nobody is told too early that the time is over
            Some(left) => {
                let millis = left.as_nanos().div_ceil(1_000_000);
                PollTimeout::try_from(millis).unwrap_or(PollTimeout::MAX)
            }
        };
        match poll(&mut fds, timeout) {
            Ok(0) if wait.is_over() => return Ok(None),
            Ok(0) | Err(Errno::EINTR) => {}
            Ok(_) => {
                let is_ready =
                    |fd: &PollFd<'_>| fd.revents().is_none_or(|events| !events.is_empty());
                return Ok(fds.iter().position(is_ready));
            }
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::fd::AsFd;
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn the_first_that_can_be_read_is_named_and_time_is_kept() {
        let (a, _a) = std::io::pipe().unwrap();
        let (b, mut to_b) = std::io::pipe().unwrap();
        let both = || [a.as_fd(), b.as_fd()].into_iter();
        assert_eq!(wait_any(both(), Wait::No).unwrap(), None);
        let (start, limit) = (Instant::now(), Duration::from_micros(2_500));
        assert_eq!(wait_any(both(), Wait::lasting(limit)).unwrap(), None);
        assert!(start.elapsed() >= limit);
        to_b.write_all(b"x").unwrap();
        assert_eq!(wait_any(both(), Wait::Forever).unwrap(), Some(1));
    }
}
