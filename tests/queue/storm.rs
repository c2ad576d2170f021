//! Processes that put and get are killed and stopped at random moments; then every message is accounted for.

use std::num::NonZero;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use multiproc::Queue;
use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Pid, fork};

use crate::alone::{alone, done, is_alone};

/// Putters, one after the other, and messages of each.
const PUTTERS: usize = 600;
const EACH: usize = 3_000;

/// Zeros that a fork shares, for the life of this process.
fn shared<T>(count: usize) -> &'static [T] {
    let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
    let len = NonZero::new(count * size_of::<T>()).unwrap();
    // SAFETY: new memory, at an address that the kernel chooses.
    let memory = unsafe { mmap_anonymous(None, len, access, MapFlags::MAP_SHARED) };
    let first = memory.unwrap().cast::<T>();
    // SAFETY: mapped for so many, and never unmapped; a page is aligned for all that is asked for here, and zeros are atomics.
    unsafe { std::slice::from_raw_parts(first.as_ptr(), count) }
}

/// What all know who took part.
struct Ledger {
    put: &'static [AtomicU32],
    got: &'static [AtomicU8],
}

impl Ledger {
    fn new() -> Self {
        Self {
            put: shared(PUTTERS),
            got: shared(PUTTERS * EACH),
        }
    }

    /// How many messages a putter has put for certain.
    fn put(&self, putter: usize) -> &AtomicU32 {
        &self.put[putter]
    }

    /// How often a message was got.
    fn got(&self, putter: usize, number: usize) -> &AtomicU8 {
        assert!(number < EACH);
        &self.got[putter * EACH + number]
    }
}

/// A child that does `work` until it is killed.
fn child(work: impl FnOnce()) -> Pid {
    // SAFETY: the only other thread waits in the kernel and holds nothing that the child would miss.
    match unsafe { fork() }.unwrap() {
        ForkResult::Parent { child } => child,
        ForkResult::Child => {
            let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
            // SAFETY: ends this process, and nothing else.
            unsafe { nix::libc::_exit(1) }
        }
    }
}

struct Dice(u64);

impl Dice {
    fn throw(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 20) as usize % sides
    }
}

type Seen<'a> = dyn Fn(&[u32]) + 'a;

/// A way to put and get `[putter, number, ..]`.
#[derive(Clone, Copy)]
struct Way {
    put: fn(&Queue<Vec<u32>>, &[u32]),
    /// Calls back with a message that is in hand, and returns when it is done.
    get: fn(&Queue<Vec<u32>>, &Seen),
    /// A message may be seen again by somebody else if whoever saw it was killed.
    comes_back: bool,
}

fn message(putter: usize, number: usize) -> Vec<u32> {
    let mut message = vec![putter as u32, number as u32];
    let more = [0, 5, 26, 27, 100, 3_000][number % 6];
    message.extend((0..more).map(|at| number as u32 ^ at));
    message
}

fn put_all(queue: &Queue<Vec<u32>>, ledger: &Ledger, putter: usize, way: Way) {
    for number in 0..EACH {
        (way.put)(queue, &message(putter, number));
        ledger
            .put(putter)
            .store(number as u32 + 1, Ordering::SeqCst);
    }
    std::thread::park();
}

fn get_all(queue: &Queue<Vec<u32>>, ledger: &Ledger, way: Way) {
    loop {
        (way.get)(queue, &|found| {
            let [putter, number, ..] = found else {
                panic!("cut short");
            };
            let (putter, number) = (*putter as usize, *number as usize);
            assert_eq!(found, message(putter, number), "torn");
            ledger.got(putter, number).fetch_add(1, Ordering::SeqCst);
        });
    }
}

/// How many messages were put for certain, how many of these nobody has seen, and how many were seen once more.
fn account(ledger: &Ledger, putters: usize) -> (u64, u64, u64) {
    let (mut put, mut missing, mut twice) = (0, 0, 0);
    for putter in 0..putters {
        let certain = ledger.put(putter).load(Ordering::SeqCst) as usize;
        for number in 0..EACH {
            let got = ledger.got(putter, number).load(Ordering::SeqCst);
            // one may have been put without a word of it
            assert!(
                got == 0 || number <= certain,
                "message {number} of {certain} of {putter}"
            );
            put += u64::from(number < certain);
            missing += u64::from(number < certain && got == 0);
            twice += u64::from(got.saturating_sub(1));
        }
    }
    (put, missing, twice)
}

fn storm(what: &str, way: Way) {
    let name = crate::name(what);
    let queue = Queue::<Vec<u32>>::builder(16)
        .max_bytes(1 << 20)
        .create(&name)
        .unwrap();
    let ledger = Ledger::new();
    let open = || Queue::<Vec<u32>>::open(&name).unwrap();
    let (mut dice, mut next) = (
        Dice(0x9e37_79b9_7f4a_7c15 ^ u64::from(std::process::id())),
        0,
    );
    let mut putter = || {
        let number = next;
        next += 1;
        child(|| put_all(&open(), &ledger, number, way))
    };
    let getter = || child(|| get_all(&open(), &ledger, way));
    let mut putters = [putter(), putter()];
    let mut getters = [getter(), getter()];
    let (mut killed, mut killed_getters, mut stopped) = (0, 0_u64, 0);
    let until = Instant::now() + Duration::from_secs(4);
    while Instant::now() < until && killed < PUTTERS - 4 {
        std::thread::sleep(Duration::from_micros(dice.throw(9_000) as u64));
        let (at, is_getter) = (dice.throw(2), dice.throw(2) == 0);
        let victim = if is_getter {
            &mut getters[at]
        } else {
            &mut putters[at]
        };
        if dice.throw(8) == 0 {
            kill(*victim, Signal::SIGSTOP).unwrap();
            std::thread::sleep(Duration::from_millis(dice.throw(30) as u64));
            kill(*victim, Signal::SIGCONT).unwrap();
            stopped += 1;
        }
        kill(*victim, Signal::SIGKILL).unwrap();
        let status = waitpid(*victim, None).unwrap();
        let was_killed = matches!(
            status,
            nix::sys::wait::WaitStatus::Signaled(_, Signal::SIGKILL, _)
        );
        assert!(was_killed, "{status:?}");
        killed += 1;
        killed_getters += u64::from(is_getter);
        *victim = if is_getter { getter() } else { putter() };
    }
    for putter in putters {
        kill(putter, Signal::SIGKILL).unwrap();
        waitpid(putter, None).unwrap();
    }
    // what is left, and what comes back
    let begun = Instant::now();
    while !queue.is_empty() {
        assert!(
            begun.elapsed() < Duration::from_secs(30),
            "getters stand still"
        );
        std::thread::sleep(Duration::from_millis(1));
    }
    for getter in getters {
        kill(getter, Signal::SIGKILL).unwrap();
        waitpid(getter, None).unwrap();
        killed_getters += 1;
    }
    let (lost, abandoned) = (queue.lost().unwrap(), queue.abandoned().unwrap());
    while let Some(message) = queue.try_get().unwrap() {
        let count = ledger.got(message[0] as usize, message[1] as usize);
        count.fetch_add(1, Ordering::SeqCst);
        queue.task_done().unwrap();
    }
    queue.join_timeout(Duration::from_secs(5)).unwrap();
    let (put, missing, twice) = account(&ledger, next);
    println!(
        "{put} messages, {killed} killed, {killed_getters} of them getters, {stopped} stopped: {lost} lost and {abandoned} abandoned, {missing} nobody has seen, {twice} seen twice"
    );
    assert!(killed > 50 && put > 1_000);
    assert!(missing <= lost + abandoned, "unknown losses");
    assert!(missing <= killed_getters && twice <= killed_getters);
    assert!(way.comes_back || twice == 0);
    assert!(!way.comes_back || missing == 0);
    // the queue is as good as new: all places and bytes are there
    let all = vec![7; (1 << 20) / 4];
    for _ in 0..3 {
        queue.try_put(&all).unwrap();
        assert_eq!(queue.get().unwrap(), all);
    }
    for _ in 0..16 {
        queue.try_put(&vec![1]).unwrap();
    }
    assert!(queue.try_put(&vec![1]).is_err() && queue.len() == 16);
}

#[test]
fn of_putters_and_getters_killed_at_random_every_message_is_accounted_for() {
    if !is_alone() {
        return alone(
            "storm::of_putters_and_getters_killed_at_random_every_message_is_accounted_for",
        );
    }
    storm(
        "storm",
        Way {
            put: |queue, message| queue.put(&message.to_vec()).unwrap(),
            get: |queue, seen| {
                seen(&queue.get().unwrap());
                queue.task_done().unwrap();
            },
            comes_back: false,
        },
    );
    done();
}

#[test]
fn of_loans_and_what_is_received_in_place_every_message_is_accounted_for() {
    if !is_alone() {
        return alone(
            "storm::of_loans_and_what_is_received_in_place_every_message_is_accounted_for",
        );
    }
    storm(
        "loans",
        Way {
            put: |queue, message| {
                let mut loan = queue.loan(message.len()).unwrap();
                loan.copy_from_slice(message);
                loan.send().unwrap();
            },
            get: |queue, seen| {
                let message = queue.recv().unwrap();
                seen(&message);
                drop(message);
                queue.task_done().unwrap();
            },
            comes_back: false,
        },
    );
    done();
}

#[test]
fn of_leased_messages_none_is_lost_and_one_is_seen_twice_only_after_a_death() {
    if !is_alone() {
        return alone(
            "storm::of_leased_messages_none_is_lost_and_one_is_seen_twice_only_after_a_death",
        );
    }
    storm(
        "leases",
        Way {
            put: |queue, message| queue.put(&message.to_vec()).unwrap(),
            get: |queue, seen| {
                let lease = queue.lease().unwrap();
                seen(&lease);
                lease.ack().unwrap();
            },
            comes_back: true,
        },
    );
    done();
}
