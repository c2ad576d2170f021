//! The very end of a thread, after the destructors of its thread-local variables and those that C libraries have registered.
//!
//! libc calls the destructors of `pthread_key_create(3)` in rounds, as long as one of them has set its value again, four at least. Ours
//! sets its value again in the first round, so in the second one those of all others have been called.

use std::any::Any;
use std::io;
use std::sync::OnceLock;

/// What a thread leaves to its end.
struct Left {
    is_second_round: bool,
    #[expect(dead_code, reason = "held for its drop")]
    things: Vec<Box<dyn Any + Send>>,
}

/// Keeps `things` until this thread is at its very end, where they are dropped. To be called once, in the destructor of a thread-local
/// variable. In the main thread they are kept until the process ends.
///
/// # Errors
///
/// If the process has no key left; then they are never dropped.
pub(crate) fn keep(things: Vec<Box<dyn Any + Send>>) -> io::Result<()> {
    let left = Box::into_raw(Box::new(Left {
        is_second_round: false,
        things,
    }));
    // SAFETY: a key made by libc; the value is what `at_the_end` expects.
    match unsafe { libc::pthread_setspecific(key()?, left.cast()) } {
        0 => Ok(()),
        code => Err(io::Error::from_raw_os_error(code)),
    }
}

fn key() -> io::Result<libc::pthread_key_t> {
    static KEY: OnceLock<Result<libc::pthread_key_t, i32>> = OnceLock::new();
    let made = KEY.get_or_init(|| {
        let mut key = 0;
        // SAFETY: a key of our own to write to, and a function that lives as long as the program.
        match unsafe { libc::pthread_key_create(&raw mut key, Some(at_the_end)) } {
            0 => Ok(key),
            code => Err(code),
        }
    });
    made.map_err(io::Error::from_raw_os_error)
}

/// Makes sure that [`keep`] will not fail.
pub(crate) fn prepare() -> io::Result<()> {
    key().map(drop)
}

unsafe extern "C" fn at_the_end(left: *mut libc::c_void) {
    let left = left.cast::<Left>();
    // SAFETY: from the box in `keep`, and this thread's alone; freed in the second round only.
    let round = unsafe { &mut (*left).is_second_round };
    if *round {
        // SAFETY: from the box in `keep`. libc has set the value to null before, so this is the last call.
        drop(unsafe { Box::from_raw(left) });
        return;
    }
    *round = true;
    if let Ok(key) = key() {
        // SAFETY: as in `keep`. Should it fail, the things stay.
        unsafe { libc::pthread_setspecific(key, left.cast()) };
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Sender, channel};

    use super::*;

    struct Says(Sender<&'static str>, &'static str);

    impl Drop for Says {
        fn drop(&mut self) {
            let _ = self.0.send(self.1);
        }
    }

    unsafe extern "C" fn of_another(said: *mut libc::c_void) {
        // SAFETY: from the box below.
        drop(unsafe { Box::from_raw(said.cast::<Says>()) });
    }

    #[test]
    fn what_is_kept_to_the_end_goes_after_what_others_have_registered() {
        let (sender, said) = channel();
        prepare().unwrap();
        std::thread::spawn(move || {
            // made after ours, so that it comes later in each round
            let mut key = 0;
            // SAFETY: a key of our own to write to.
            unsafe { libc::pthread_key_create(&raw mut key, Some(of_another)) };
            let other = Box::into_raw(Box::new(Says(sender.clone(), "another's")));
            // SAFETY: what its destructor expects.
            unsafe { libc::pthread_setspecific(key, other.cast()) };
            keep(vec![Box::new(Says(sender, "ours"))]).unwrap();
        })
        .join()
        .unwrap();
        assert_eq!(said.iter().collect::<Vec<_>>(), ["another's", "ours"]);
    }
}
