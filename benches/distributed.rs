//! A pool on a server of this machine, beside the same steps done by hand over bare sockets.
//!
//! ```text
//! cargo bench --features redis --bench distributed
//! ```
//!
//! By hand means: a thread adds to a stream and reads another; a second thread takes from the first as a consumer of a group, and settles and
//! answers in one transaction. No task is run, nothing is encoded, nobody is watched: what a pool adds is the difference.

#![allow(clippy::unwrap_used, reason = "a bench fails by panicking")]
#![allow(clippy::print_stdout, reason = "a table for the eye")]

#[path = "../tests/support/redis.rs"]
mod redis;

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command};
use std::thread;
use std::time::{Duration, Instant};

use multiproc::Pool;

const CALLS: usize = 3000;
const ITEMS: u64 = 50_000;

/// One connection, as plain as can be.
struct Bare(BufReader<UnixStream>);

impl Bare {
    fn connect(socket: &Path) -> Self {
        Self(BufReader::new(UnixStream::connect(socket).unwrap()))
    }

    fn send(&mut self, commands: &[&[&str]]) {
        let mut wire = String::new();
        for command in commands {
            wire += &format!("*{}\r\n", command.len());
            for part in *command {
                wire += &format!("${}\r\n{part}\r\n", part.len());
            }
        }
        self.0.get_mut().write_all(wire.as_bytes()).unwrap();
    }

    /// Reads one reply; returns all its texts.
    fn reply(&mut self) -> Vec<String> {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        let (mark, rest) = line.trim_end().split_at(1);
        match mark {
            "*" => (0..rest.parse::<i64>().unwrap().max(0))
                .flat_map(|_| self.reply())
                .collect(),
            "$" if rest != "-1" => {
                let mut bytes = vec![0; rest.parse::<usize>().unwrap() + 2];
                self.0.read_exact(&mut bytes).unwrap();
                bytes.truncate(bytes.len() - 2);
                vec![String::from_utf8(bytes).unwrap()]
            }
            "-" => panic!("{line}"),
            _ => vec![rest.to_owned()],
        }
    }

    fn ask(&mut self, command: &[&str]) -> Vec<String> {
        self.send(&[command]);
        self.reply()
    }
}

struct Agent(Child);

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn agent(url: &str, workers: usize) -> Agent {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .env("MULTIPROC_WORKER", url)
        .env("MULTIPROC_WORKERS", workers.to_string());
    Agent(command.spawn().unwrap())
}

/// Median and 99th percentile of `calls` calls.
fn time(what: &str, calls: usize, mut call: impl FnMut()) {
    let mut times: Vec<Duration> = (0..calls)
        .map(|_| {
            let start = Instant::now();
            call();
            start.elapsed()
        })
        .collect();
    times.sort_unstable();
    println!(
        "{what:<44} p50 {:>9.1?}   p99 {:>9.1?}",
        times[calls / 2],
        times[calls * 99 / 100]
    );
}

fn rate(what: &str, items: u64, run: impl FnOnce()) {
    let start = Instant::now();
    run();
    let each = start.elapsed() / items as u32;
    println!(
        "{what:<44} {:>9.1?} an item, {:>9.0} items/s",
        each,
        1.0 / each.as_secs_f64()
    );
}

fn by_hand(socket: &Path) {
    let mut parent = Bare::connect(socket);
    parent.ask(&["XGROUP", "CREATE", "t", "w", "0", "MKSTREAM"]);
    let mut worker = Bare::connect(socket);
    let answering = thread::spawn(move || {
        for _ in 0..CALLS {
            let task = worker.ask(&[
                "XREADGROUP",
                "GROUP",
                "w",
                "me",
                "COUNT",
                "1",
                "BLOCK",
                "5000",
                "STREAMS",
                "t",
                ">",
            ]);
            worker.send(&[
                &["MULTI"],
                &["XACK", "t", "w", &task[1]],
                &["XDEL", "t", &task[1]],
                &["XADD", "r", "*", "p", &task[3]],
                &["EXEC"],
            ]);
            for _ in 0..5 {
                worker.reply();
            }
        }
    });
    let mut last = "0".to_owned();
    time("stream there and back, by hand", CALLS, || {
        parent.ask(&["XADD", "t", "*", "p", "12345678"]);
        last.clone_from(&parent.ask(&["XREAD", "BLOCK", "5000", "STREAMS", "r", &last])[1]);
    });
    answering.join().unwrap();
}

fn main() {
    let server = redis::RedisServer::start();
    let mut bare = Bare::connect(&server.socket());
    time("PING", CALLS, || drop(bare.ask(&["PING"])));
    by_hand(&server.socket());
    for workers in [1, 2] {
        let _agent = agent(&server.url(), workers);
        let pool = Pool::builder().connect(server.url()).build().unwrap();
        pool.wait_for_workers(workers, Duration::from_secs(10))
            .unwrap();
        println!("a pool of one agent with {workers} workers");
        time("  apply", CALLS, || {
            assert_eq!(pool.apply(|x: u64| x + 1, 1).unwrap(), 2)
        });
        for chunk in [1, 10, 100, 1000] {
            let what = format!("  map, chunks of {chunk}");
            rate(&what, ITEMS, || {
                drop(
                    pool.chunk_size(chunk)
                        .map(|x: u64| x + 1, 0..ITEMS)
                        .unwrap(),
                )
            });
        }
        let bytes = vec![7_u8; 1 << 20];
        time("  apply, 1 MiB there and back", 100, || {
            drop(pool.apply(|bytes: Vec<u8>| bytes, bytes.clone()).unwrap())
        });
    }
}
