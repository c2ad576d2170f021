//! A thread under our control, which executes one instruction at a time, and the loop that cuts an operation at each of them.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use nix::sys::ptrace;
use nix::sys::signal::{Signal, kill, raise};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork};

#[cfg(target_arch = "x86_64")]
const FUTEX: u64 = nix::libc::SYS_futex.cast_unsigned();

/// Every how many instructions it is asked whether an operation is over; nobody comes from its end to a long sleep in fewer.
const LOOK: usize = 32;

/// Instructions stepped in this process.
static STEPPED: AtomicU64 = AtomicU64::new(0);

pub(crate) fn stepped() -> u64 {
    STEPPED.load(Ordering::Relaxed)
}

/// The environment's `MULTIPROC_STRIDE`, else `debug` or, in an optimised build, `release`: every how many instructions an operation is cut.
/// Primes, so that successive runs of a loop are cut at other places.
pub(crate) fn stride(debug: usize, release: usize) -> usize {
    let asked = std::env::var("MULTIPROC_STRIDE").ok();
    let default = if cfg!(debug_assertions) {
        debug
    } else {
        release
    };
    asked
        .and_then(|stride| stride.parse().ok())
        .unwrap_or(default)
}

/// A thread that stands still unless told otherwise.
pub(crate) struct Stepped {
    process: Pid,
    thread: Pid,
    /// A forked child that has come to the end of its operation.
    whole: Cell<bool>,
    /// Told to go on, and not seen to stop since.
    asleep: Cell<bool>,
}

/// What became of an instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Done,
    /// It is a system call, and sleeps.
    Asleep,
    /// It was the last of a forked child's operation.
    Last,
    /// The thread or its process has ended.
    Ended,
}

impl Stepped {
    /// Stops `thread` of `process`, wherever it is.
    pub(crate) fn seize(process: Pid, thread: Pid) -> Self {
        // on one processor a step is a switch there and back, without waking another
        share_processor(thread);
        share_processor(Pid::from_raw(0));
        ptrace::seize(thread, ptrace::Options::empty()).unwrap();
        ptrace::interrupt(thread).unwrap();
        let seized = Self {
            process,
            thread,
            whole: Cell::new(false),
            asleep: Cell::new(false),
        };
        seized.wait(WaitPidFlag::__WALL);
        seized
    }

    /// A child that has done `before` and stands before `operation`. By a process with no other
    /// thread than the test runner's first, which waits.
    pub(crate) fn fork<B>(before: impl FnOnce() -> B, operation: impl FnOnce(&B)) -> Self {
        let threads = std::fs::read_dir("/proc/self/task").unwrap().count();
        assert!(threads <= 2, "a child has but the thread that forked");
        share_processor(Pid::from_raw(0));
        // SAFETY: the only other thread waits in the kernel and holds nothing that the child would miss.
        match unsafe { fork() }.unwrap() {
            ForkResult::Child => {
                let _ = catch_unwind(AssertUnwindSafe(|| {
                    let made = before();
                    ptrace::traceme().unwrap();
                    raise(Signal::SIGSTOP).unwrap();
                    operation(&made);
                    raise(Signal::SIGSTOP).unwrap();
                }));
                // SAFETY: ends this process, and nothing else.
                unsafe { nix::libc::_exit(1) }
            }
            ForkResult::Parent { child } => {
                let forked = Self {
                    process: child,
                    thread: child,
                    whole: Cell::new(false),
                    asleep: Cell::new(false),
                };
                forked.wait(WaitPidFlag::__WALL);
                forked.whole.set(false); // that was the stop before the first
                forked
            }
        }
    }

    /// Executes one instruction, however long it takes.
    pub(crate) fn step(&self) -> Step {
        if ptrace::step(self.thread, None).is_err() {
            return Step::Ended;
        }
        STEPPED.fetch_add(1, Ordering::Relaxed);
        self.wait(WaitPidFlag::__WALL)
    }

    /// Executes one instruction, unless it sleeps: then [`wake`](Self::wake) takes its end in.
    pub(crate) fn step_unless_asleep(&self) -> Step {
        if ptrace::step(self.thread, None).is_err() {
            return Step::Ended;
        }
        STEPPED.fetch_add(1, Ordering::Relaxed);
        self.until_asleep()
    }

    fn until_asleep(&self) -> Step {
        let mut asleep = 0;
        loop {
            match self.wait(WaitPidFlag::__WALL | WaitPidFlag::WNOHANG) {
                Step::Asleep => {}
                step => return step,
            }
            asleep = if state_of(self.process, self.thread) == Some('S') {
                asleep + 1
            } else {
                0
            };
            // it is seen so for a moment on its way into the stop, too
            if asleep == 20 {
                self.asleep.set(true);
                return Step::Asleep;
            }
            std::thread::yield_now();
        }
    }

    /// The instruction that slept comes to its end.
    pub(crate) fn wake(&self) -> Step {
        self.wait(WaitPidFlag::__WALL)
    }

    /// Stops one that sleeps, by a signal that does nothing else.
    pub(crate) fn rouse(&self) -> Step {
        kill(self.process, Signal::SIGWINCH).unwrap();
        self.wait(WaitPidFlag::__WALL)
    }

    fn wait(&self, flags: WaitPidFlag) -> Step {
        let status = waitpid(self.thread, Some(flags));
        if status == Ok(WaitStatus::StillAlive) {
            return Step::Asleep;
        }
        self.asleep.set(false);
        match status {
            Ok(WaitStatus::Exited(..) | WaitStatus::Signaled(..)) | Err(_) => Step::Ended,
            Ok(WaitStatus::Stopped(_, Signal::SIGSTOP)) => {
                self.whole.set(true);
                Step::Last
            }
            Ok(_) => Step::Done,
        }
    }

    /// Ends its whole process by SIGKILL; gone when this returns.
    pub(crate) fn kill(self) {
        kill(self.process, Signal::SIGKILL).unwrap();
        while !matches!(self.wait(WaitPidFlag::__WALL), Step::Ended) {}
    }

    /// Lets it run freely.
    pub(crate) fn let_go(self) {
        if ptrace::detach(self.thread, None).is_err() {
            // it has ended meanwhile, and its process is not seen to end before its tracer has collected it
            while !matches!(self.wait(WaitPidFlag::__WALL), Step::Ended) {}
        }
    }

    /// Lets a forked child do the rest of its operation, and kills it; false if it failed, or was killed.
    pub(crate) fn finish(self) -> bool {
        if !self.whole.get() {
            // who slept may have woken and come to its end: told to go on it would leave that
            if !self.asleep.get() {
                ptrace::cont(self.thread, None).unwrap();
            }
            if self.wait(WaitPidFlag::__WALL) != Step::Last {
                return false;
            }
        }
        self.kill();
        true
    }

    /// Lets it run until it sleeps in a system call for good, or ends.
    pub(crate) fn run_until_asleep(&self) -> Step {
        ptrace::cont(self.thread, None).unwrap();
        self.until_asleep()
    }

    /// Goes to where `count` instructions are done; true if a forked child's operation ends before. `calls` says after how many
    /// instructions there are system calls: those before the place are gone to in one leap each. Where their number differs from run to
    /// run, so does the place; no leap goes beyond where `is_over`.
    pub(crate) fn run(&self, count: usize, calls: &[usize], is_over: impl Fn() -> bool) -> bool {
        let leaps = calls.partition_point(|at| *at <= count);
        // a call that was interrupted begins again with it, and was not counted
        assert!(
            leaps == 0 || self.step() != Step::Ended,
            "the operation failed"
        );
        // to the begin of the call, and to its end
        let mut stops = 2 * leaps;
        while stops > 0 && !is_over() {
            ptrace::syscall(self.thread, None).unwrap();
            match self.wait(WaitPidFlag::__WALL) {
                Step::Done | Step::Asleep => stops -= usize::from(!self.waits_for_others()),
                Step::Last => return true,
                Step::Ended => panic!("the operation failed"),
            }
        }
        let done = if leaps == 0 { 0 } else { calls[leaps - 1] };
        let mut over = false;
        for at in done..count {
            over = over || (at % LOOK == 0 && is_over());
            // who has done all it had to do may sleep for long
            let step = if over {
                self.step_unless_asleep()
            } else {
                self.step()
            };
            match step {
                Step::Done => {}
                Step::Asleep => return false,
                Step::Last => return true,
                Step::Ended => panic!("the operation failed"),
            }
        }
        false
    }

    /// Goes on to the end of a forked child's operation, or until `is_over`. Returns after how many instructions there were system calls,
    /// and how many instructions there were in all.
    pub(crate) fn survey(&self, is_over: impl Fn() -> bool) -> (Vec<usize>, usize) {
        let (mut calls, mut count) = (Vec::new(), 0);
        while count % LOOK != 0 || !is_over() {
            let is_call = self.is_at_a_call();
            match self.step() {
                Step::Done | Step::Asleep => {}
                // the call that says so is not the operation's
                Step::Last => break,
                Step::Ended => panic!("the operation failed"),
            }
            count += 1;
            calls.extend(is_call.then_some(count));
        }
        (calls, count)
    }

    /// Whether the next instruction is a system call, and one that is made however fast others are.
    #[cfg(target_arch = "x86_64")]
    fn is_at_a_call(&self) -> bool {
        const SYSCALL: [u8; 2] = [0x0f, 0x05];
        let registers = ptrace::getregs(self.thread).unwrap();
        let word = ptrace::read(self.thread, registers.rip as ptrace::AddressType).unwrap();
        word.to_le_bytes().starts_with(&SYSCALL) && registers.rax != FUTEX
    }

    /// Whether the call at which it stands is one that is made only if others are slower.
    #[cfg(target_arch = "x86_64")]
    fn waits_for_others(&self) -> bool {
        ptrace::getregs(self.thread).unwrap().orig_rax == FUTEX
    }

    #[cfg(not(target_arch = "x86_64"))]
    fn waits_for_others(&self) -> bool {
        false
    }

    /// Not known: every place is gone to step by step.
    #[cfg(not(target_arch = "x86_64"))]
    fn is_at_a_call(&self) -> bool {
        false
    }
}

pub(crate) fn state_of(process: Pid, thread: Pid) -> Option<char> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/task/{thread}/stat")).ok()?;
    stat[stat.rfind(')')? + 2..].chars().next()
}

/// All that step in this process, and those they step, take turns on one processor: the one it was first on.
fn share_processor(thread: Pid) {
    static PROCESSOR: OnceLock<usize> = OnceLock::new();
    let processor = PROCESSOR.get_or_init(|| nix::sched::sched_getcpu().unwrap_or(0));
    let mut this = nix::sched::CpuSet::new();
    this.set(*processor).unwrap();
    // where that is refused it goes slower, no more
    let _ = nix::sched::sched_setaffinity(thread, &this);
}

/// Cuts `operation`, done by a forked child, after each `stride`th number of instructions, and after all of it. `prepare` makes what it works
/// on, from which the child makes by `before` what the operation needs; `cut` is given the first and the child standing at the cut. Returns
/// how often it was cut, and how many instructions the operation has.
pub(crate) fn cut_everywhere<T, B>(
    stride: usize,
    mut prepare: impl FnMut() -> T,
    before: impl Fn(&T) -> B,
    operation: impl Fn(&B),
    mut cut: impl FnMut(T, Stepped),
) -> (usize, usize) {
    let made = prepare();
    let child = Stepped::fork(|| before(&made), &operation);
    let (calls, length) = child.survey(|| false);
    cut(made, child);
    for count in 0.. {
        let made = prepare();
        let child = Stepped::fork(|| before(&made), &operation);
        let whole = child.run(count * stride, &calls, || false);
        cut(made, child);
        if whole {
            return (count + 2, length);
        }
    }
    unreachable!("every operation ends");
}
