//! Counts what operations cost in units that do not depend on the hour: instructions, system calls, allocations.
//!
//! ```text
//! cargo bench --bench costs               # prints the table
//! cargo bench --bench costs -- --write    # puts it into src/docs/performance.md
//! ```
//!
//! Allocations are counted by an allocator of this program, in the caller and in the worker. For the rest the program runs itself. For
//! instructions it leads the caller through them one by one, by `ptrace`; the worker goes on as fast as ever and falls asleep between, so a
//! wake is among them. For system calls, of the caller and its worker, it runs under `perf`, or `strace`, with one amount of work and with
//! three times as much, and takes the difference. What is not to be had is named.

#![allow(unsafe_code, reason = "an allocator that counts")]
#![allow(
    clippy::print_stdout,
    clippy::cast_precision_loss,
    reason = "a table for the eye"
)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::hint::black_box;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::{env, fs};

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::ptrace;
use nix::sys::signal::{Signal, raise};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;

use multiproc::{Array, Event, Pool, Queue, Ring, RwLock, Semaphore, Shared, Value, spsc};

struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);
static BYTES: AtomicU64 = AtomicU64::new(0);

// SAFETY: all is passed on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        BYTES.fetch_add(layout.size() as u64, Ordering::Relaxed);
        // SAFETY: the caller's contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: the caller's contract.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// How often this process has allocated.
fn allocations((): ()) -> u64 {
    ALLOCATIONS.load(Ordering::Relaxed)
}

/// An operation, set up.
struct Ready {
    /// Does it so many times.
    run: Box<dyn FnMut(u64)>,
    /// Where it has a worker.
    pool: Option<Rc<Pool>>,
    /// So many are led through one instruction at a time, at some 20 us each.
    led: u64,
}

impl Ready {
    fn led(mut self, count: u64) -> Self {
        self.led = count;
        self
    }
}

struct Operation {
    name: &'static str,
    make: fn() -> Ready,
}

const OPERATIONS: [Operation; 18] = [
    operation("`Value`: lock, add, unlock", || {
        let value = Value::new(0_u64).expect("shared memory");
        each(move || *value.lock().expect("not poisoned") += black_box(1))
    }),
    operation("`Shared`: atomic add", || {
        let word = Shared::new(AtomicU64::new(0)).expect("shared memory");
        each(move || {
            word.fetch_add(black_box(1), Ordering::Relaxed);
        })
    }),
    operation("`RwLock`: read", || {
        let lock = RwLock::new(0_u64).expect("shared memory");
        each(move || {
            black_box(*lock.read().expect("not poisoned"));
        })
    }),
    operation("`Semaphore`: acquire, release", || {
        let semaphore = Semaphore::new(1).expect("shared memory");
        each(move || drop(semaphore.access().expect("one is left")))
    }),
    operation("`Event`: set, clear", || {
        let event = Event::new().expect("shared memory");
        each(move || {
            event.set().expect("ours");
            event.clear().expect("ours");
        })
    }),
    operation("`spsc`: push, pop", || {
        let (sender, receiver) = spsc::channel::<u64>(1024).expect("a channel");
        each(move || {
            sender.push(black_box(41)).expect("room");
            assert_eq!(receiver.pop().expect("it"), 41);
        })
    }),
    operation("`spsc`: an item of a chunk of 32", || {
        let (mut sender, mut receiver) = spsc::channel::<u64>(1024).expect("a channel");
        by_many(move || {
            let mut chunk = sender.write_chunk(MANY).expect("room");
            chunk.fill(black_box(41));
            chunk.commit_all().expect("ours");
            let chunk = receiver.read_chunk(MANY).expect("they");
            assert_eq!(chunk.len(), MANY);
            assert_eq!(black_box(&chunk)[MANY - 1], 41);
            chunk.commit_all().expect("ours");
        })
    }),
    operation("`Ring`: push, pop", || {
        let ring = Ring::<u64>::new(1024).expect("a ring");
        each(move || {
            ring.push(black_box(41)).expect("room");
            assert_eq!(ring.pop().expect("it"), 41);
        })
    }),
    operation("`Ring`: an item of a slice of 32", || {
        let ring = Ring::<u64>::new(1024).expect("a ring");
        let mut items = [0; MANY];
        by_many(move || {
            assert_eq!(ring.push_slice(&[black_box(41); MANY]).expect("room"), MANY);
            assert_eq!(ring.pop_slice(&mut items).expect("they"), MANY);
            assert_eq!(items[MANY - 1], 41);
        })
    }),
    operation("`Queue<u64>`: put, get", || {
        let queue = Queue::<u64>::new(1024).expect("a queue");
        each(move || {
            queue.put(&black_box(41)).expect("room");
            assert_eq!(queue.get().expect("it"), 41);
        })
    }),
    operation("`Queue`: loan 1 MiB, send, recv", || {
        let queue = Queue::<Vec<u8>>::new(16).expect("a queue");
        each(move || {
            let mut loan = queue.loan(1 << 20).expect("room");
            loan[0] = black_box(41);
            loan.send().expect("room");
            assert_eq!(queue.recv().expect("it")[0], 41);
        })
    }),
    operation("`Pool::apply`", || {
        with_worker(|pool, count| {
            for _ in 0..count {
                assert_eq!(pool.apply(same, black_box(41)).expect("runs"), 41);
            }
        })
    }),
    operation("`Pool::apply_async`, and `get` after many", || {
        with_worker(|pool, count| {
            for from in (0..count).step_by(1000) {
                let submit = |x| pool.apply_async(same, x).expect("runs");
                let tasks: Vec<_> = (from..count.min(from + 1000)).map(submit).collect();
                for (task, x) in tasks.into_iter().zip(from..) {
                    assert_eq!(task.get().expect("runs"), x);
                }
            }
        })
        .led(128)
    }),
    operation("`Pool::map`: an item", || {
        with_worker(|pool, count| {
            let found = pool.map(same, 0..count).expect("runs");
            assert!(found.into_iter().eq(0..count));
        })
        .led(960)
    }),
    operation("`Pool::imap`: an item", || {
        with_worker(|pool, count| {
            for (found, x) in pool.imap(same, 0..count).zip(0..) {
                assert_eq!(found.expect("runs"), x);
            }
        })
    }),
    operation("`Pool::imap_unordered`: an item", || {
        with_worker(|pool, count| {
            let found = pool.imap_unordered(same, 0..count);
            let sum: u64 = found.map(|found| found.expect("runs")).sum();
            assert_eq!(sum, count * (count - 1) / 2);
        })
    }),
    operation("`Pool::imap`, `chunk_size(100)`: an item", || {
        with_worker(|pool, count| {
            for (found, x) in pool.chunk_size(100).imap(same, 0..count).zip(0..) {
                assert_eq!(found.expect("runs"), x);
            }
        })
        .led(960)
    }),
    operation("`Pool::for_each_chunk` of one chunk", || {
        let array = Array::<u64>::new(64).expect("an array");
        with_worker(move |pool, count| {
            let add = |chunk: &mut [u64]| chunk[0] += 1;
            let before = array.get(0).expect("not poisoned");
            for _ in 0..count {
                pool.for_each_chunk(&array, 64, add).expect("runs");
            }
            assert_eq!(array.get(0).expect("not poisoned"), before + count);
        })
    }),
];

const MANY: usize = 32;

const fn operation(name: &'static str, make: fn() -> Ready) -> Operation {
    Operation { name, make }
}

fn same(x: u64) -> u64 {
    x
}

fn each(mut run: impl FnMut() + 'static) -> Ready {
    Ready {
        run: Box::new(move |count| (0..count).for_each(|_| run())),
        pool: None,
        led: 32,
    }
}

/// An operation that does `MANY` at once.
fn by_many(mut run: impl FnMut() + 'static) -> Ready {
    Ready {
        run: Box::new(move |count| (0..count / MANY as u64).for_each(|_| run())),
        pool: None,
        led: 320,
    }
}

fn with_worker(mut run: impl FnMut(&Pool, u64) + 'static) -> Ready {
    let pool = Rc::new(Pool::with_workers(1).expect("a pool"));
    let own = Rc::clone(&pool);
    Ready {
        run: Box::new(move |count| run(&own, count)),
        pool: Some(pool),
        led: 32,
    }
}

/// Enough for buffers to be as large as they become.
const WARM_UP: u64 = 4 * SOME;
/// A whole number of chunks and slices.
const SOME: u64 = 3200;

/// What is counted of an operation; nothing where it could not be.
struct Counted {
    instructions: Option<f64>,
    calls: Option<f64>,
    allocations: f64,
    bytes: f64,
    /// Where there is a worker.
    by_worker: Option<f64>,
}

fn counted(index: usize, tools: &Tools) -> Counted {
    let mut ready = (OPERATIONS[index].make)();
    (ready.run)(WARM_UP);
    let in_worker = |pool: &Option<Rc<Pool>>| {
        let ask = |pool: &Rc<Pool>| pool.apply(allocations, ()).expect("runs");
        pool.as_ref().map(ask)
    };
    let worker_before = in_worker(&ready.pool);
    let (before, bytes_before) = (allocations(()), BYTES.load(Ordering::Relaxed));
    (ready.run)(SOME);
    let (after, bytes_after) = (allocations(()), BYTES.load(Ordering::Relaxed));
    let worker_after = in_worker(&ready.pool);
    let led = ready.led;
    drop(ready);
    let each = |before: u64, after: u64| (after - before) as f64 / SOME as f64;
    Counted {
        instructions: by_steps(index, led)
            .map(|count| count.saturating_sub(tools.marks) as f64 / led as f64),
        calls: tools.calls.and_then(|count| by_difference(count, index)),
        allocations: each(before, after),
        bytes: each(bytes_before, bytes_after),
        by_worker: worker_before
            .zip(worker_after)
            .map(|(before, after)| each(before, after)),
    }
}

/// Counts something about this program doing operation `index` so many times.
type Count = fn(usize, u64) -> Option<u64>;

/// What is counted with three times the work, less what is counted with the work, for each.
fn by_difference(count: Count, index: usize) -> Option<f64> {
    let (once, thrice) = (count(index, SOME)?, count(index, 3 * SOME)?);
    Some(thrice.saturating_sub(once) as f64 / (2 * SOME) as f64)
}

/// What counts, where it is installed and works.
struct Tools {
    calls: Option<Count>,
    described: &'static str,
    /// Instructions of the marks themselves.
    marks: u64,
}

impl Tools {
    fn found() -> Self {
        let works = |count: Count| count(1, 1).is_some().then_some(count);
        let (perf, strace) = (works(by_perf), works(by_strace));
        let described = match (perf, strace) {
            (Some(_), _) => "system calls by perf",
            (None, Some(_)) => "system calls by strace, which slows them",
            (None, None) => "perf and strace, which count system calls, are missing",
        };
        Self {
            calls: perf.or(strace),
            described,
            marks: by_steps(0, 0).unwrap_or(0),
        }
    }
}

/// The standard error of a tool that runs this program.
fn told_by(tool: &str, arguments: &[&str], index: usize, count: u64) -> Option<String> {
    let mut command = Command::new(tool);
    command.args(arguments).arg(env::current_exe().ok()?);
    command.args(["--case", &index.to_string(), &count.to_string()]);
    let output = command.output().ok()?;
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    output.status.success().then_some(told)
}

/// Instructions of the calling thread between its two marks.
///
/// It shares a processor with who leads it meanwhile: to another, each step would be two wakes.
fn by_steps(index: usize, count: u64) -> Option<u64> {
    let this = Pid::from_raw(0);
    let anywhere = sched_getaffinity(this).ok()?;
    let mut here = CpuSet::new();
    here.set((0..CpuSet::count()).find(|core| anywhere.is_set(*core) == Ok(true))?)
        .ok()?;
    sched_setaffinity(this, &here).ok()?;
    let steps = steps_between_marks(index, count, &anywhere, &here);
    sched_setaffinity(this, &anywhere).ok()?;
    steps
}

fn steps_between_marks(index: usize, count: u64, anywhere: &CpuSet, here: &CpuSet) -> Option<u64> {
    let mut command = Command::new(env::current_exe().ok()?);
    command.args(["--case", &index.to_string(), &count.to_string(), "marked"]);
    let anywhere = *anywhere;
    let begin = move || {
        sched_setaffinity(Pid::from_raw(0), &anywhere)?;
        Ok(ptrace::traceme()?)
    };
    // SAFETY: two system calls and nothing else.
    unsafe { command.pre_exec(begin) };
    let child = command.spawn().ok()?;
    let pid = Pid::from_raw(i32::try_from(child.id()).ok()?);
    let (mut steps, mut is_between) = (0, false);
    loop {
        let passed_on = match waitpid(pid, None).ok()? {
            WaitStatus::Stopped(_, MARK) => {
                is_between = !is_between;
                sched_setaffinity(pid, here).ok()?; // of this thread alone
                None
            }
            WaitStatus::Stopped(_, Signal::SIGTRAP) => {
                steps += u64::from(is_between);
                None
            }
            WaitStatus::Stopped(_, other) => Some(other),
            WaitStatus::Exited(_, 0) => return (steps > 0).then_some(steps),
            _ => return None,
        };
        if is_between {
            ptrace::step(pid, passed_on).ok()?;
        } else {
            ptrace::cont(pid, passed_on).ok()?;
        }
    }
}

/// Where counting begins and ends: the process sends it to itself, and who leads it through swallows it.
const MARK: Signal = Signal::SIGUSR1;

/// Of this process and its worker.
fn by_perf(index: usize, count: u64) -> Option<u64> {
    let arguments = ["stat", "-x,", "-e", "raw_syscalls:sys_enter", "--"];
    let told = told_by("perf", &arguments, index, count)?;
    let line = told
        .lines()
        .find(|line| line.contains("raw_syscalls:sys_enter"));
    line?.split(',').next()?.parse().ok()
}

/// Of this process and its worker.
fn by_strace(index: usize, count: u64) -> Option<u64> {
    let told = told_by("strace", &["-f", "-c"], index, count)?;
    let line = told.lines().rfind(|line| line.ends_with(" total"))?;
    let words: Vec<&str> = line.split_whitespace().collect();
    words.get(3)?.parse().ok()
}

/// The table; each row is told as soon as it is counted.
fn table(tools: &Tools) -> String {
    let mut lines = Vec::new();
    let mut say = |line: String| {
        println!("{line}");
        lines.push(line);
    };
    say(
        "| operation | instructions | system calls | allocations (bytes) | in the worker |"
            .to_owned(),
    );
    say("|---|---|---|---|---|".to_owned());
    for (index, operation) in OPERATIONS.iter().enumerate() {
        let counted = counted(index, tools);
        let shown = |figure: Option<f64>, digits: usize| match figure {
            Some(figure) => format!("{figure:.digits$}"),
            None => "-".to_owned(),
        };
        let bytes = if counted.allocations < 0.005 {
            String::new()
        } else {
            format!(" ({:.0})", counted.bytes)
        };
        let by_worker = counted.by_worker.map(|count| format!("{count:.2}"));
        say(format!(
            "| {} | {} | {} | {:.2}{bytes} | {} |",
            operation.name,
            shown(counted.instructions, 0),
            shown(counted.calls, 2),
            counted.allocations,
            by_worker.unwrap_or_default(),
        ));
    }
    say(String::new());
    say(format!(
        "Counted on {} by `cargo bench --bench costs`: instructions one by one, {}; instructions and allocations are the caller's.",
        env::consts::ARCH,
        tools.described
    ));
    lines.join("\n")
}

/// Puts the table between the marks of the page.
fn write(table: &str) {
    const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/docs/performance.md");
    const MARKS: [&str; 2] = ["<!-- counted: begin -->", "<!-- counted: end -->"];
    let page = fs::read_to_string(PAGE).expect("the page is there");
    let (before, rest) = page.split_once(MARKS[0]).expect("the first mark");
    let (_, after) = rest.split_once(MARKS[1]).expect("the second mark");
    let page = format!("{before}{}\n\n{table}\n\n{}{after}", MARKS[0], MARKS[1]);
    fs::write(PAGE, page).expect("the page can be written");
    println!("written to {PAGE}");
}

fn main() {
    let arguments: Vec<String> = env::args().skip(1).collect();
    if let [flag, index, count, marked @ ..] = arguments.as_slice()
        && flag == "--case"
    {
        let mut ready = (OPERATIONS[index.parse::<usize>().expect("a number")].make)();
        let count = count.parse().expect("a number");
        let mark = || {
            if !marked.is_empty() {
                raise(MARK).expect("a signal to oneself");
            }
        };
        (ready.run)(SOME);
        mark();
        (ready.run)(count);
        mark();
        return;
    }
    let has = |flag: &str| arguments.iter().any(|argument| argument == flag);
    if has("--test") {
        // once each, and nothing but that
        for operation in &OPERATIONS {
            ((operation.make)().run)(MANY as u64);
            println!("{}: ok", operation.name);
        }
        return;
    }
    let table = table(&Tools::found());
    if has("--write") {
        write(&table);
    }
}
