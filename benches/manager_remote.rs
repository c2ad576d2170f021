//! The manager and the pool over a server, beside the bare client that says the same to the same server. It starts a redis-server of its own,
//! on a unix socket; where there is none it says so, and measures nothing.

#![allow(clippy::print_stderr, reason = "who measures nothing says so")]

mod rivals;
#[path = "../tests/support/redis.rs"]
mod server;

use std::hint::black_box;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use multiproc::manager::Dict;
use multiproc::{Manager, Pool};
use redis::streams::StreamReadReply;
use redis::{Connection, cmd};
use rivals::{short, workers};
use server::RedisServer;

/// What one call has to wait for over a connection of the client's own.
struct Bare(Connection);

impl Bare {
    fn new(server: &RedisServer) -> Self {
        let client = redis::Client::open(server.url()).expect("an address");
        Self(client.get_connection().expect("a server"))
    }

    fn ask<T: redis::FromRedisValue>(&mut self, command: &redis::Cmd) -> T {
        command.query(&mut self.0).expect("an answer")
    }
}

/// What `Dict::insert` has to say to tell the old value too.
const PUT: &str = "#!lua flags=
local old = redis.call('HGET', KEYS[1], ARGV[1])
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
return old";

/// Gives a lock back only if it is still ours.
const RELEASE: &str = "#!lua flags=
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])";

fn server() -> Option<RedisServer> {
    let found = Command::new("redis-server").arg("--version").output();
    if found.is_err() {
        eprintln!("nothing is measured: there is no redis-server in PATH");
        return None;
    }
    Some(RedisServer::start())
}

fn objects(c: &mut Criterion) {
    let Some(server) = server() else { return };
    let manager = Manager::connect(&server.url()).expect("a server");
    let mut bare = Bare::new(&server);
    let dict: Dict<String, u64> = manager.dict("dict").expect("room");
    dict.insert("key".into(), 7).expect("room");
    let seven = 7_u64.to_le_bytes();
    bare.ask::<()>(cmd("HSET").arg("bare").arg("key").arg(&seven));

    let mut group = c.benchmark_group("remote_get");
    group.bench_function("multiproc", |b| {
        b.iter(|| dict.get(black_box("key")).expect("it"));
    });
    group.bench_function("client_hget", |b| {
        b.iter(|| bare.ask::<Vec<u8>>(cmd("HGET").arg("bare").arg(black_box("key"))));
    });
    group.finish();

    let mut group = c.benchmark_group("remote_insert");
    group.bench_function("multiproc", |b| {
        b.iter(|| dict.insert(black_box("key").to_owned(), 7).expect("room"));
    });
    let put = redis::Script::new(PUT);
    group.bench_function("client_same_script", |b| {
        b.iter(|| {
            let mut call = put.key("bare");
            let old = call.arg(black_box("key")).arg(&seven).invoke(&mut bare.0);
            old.map(|old: Vec<u8>| old.len()).expect("an answer")
        });
    });
    group.finish();

    let mut group = c.benchmark_group("remote_extend_by_one");
    group.bench_function("multiproc", |b| {
        b.iter(|| {
            dict.extend([(black_box("key").to_owned(), 7)])
                .expect("room");
        });
    });
    group.bench_function("client_hset", |b| {
        b.iter(|| bare.ask::<i64>(cmd("HSET").arg("bare").arg(black_box("key")).arg(&seven)));
    });
    group.finish();

    let mut group = c.benchmark_group("remote_add");
    let counter = manager.counter("counter").expect("room");
    group.bench_function("multiproc", |b| {
        b.iter(|| counter.add(black_box(1)).expect("room"));
    });
    group.bench_function("client_hincrby", |b| {
        b.iter(|| bare.ask::<i64>(cmd("HINCRBY").arg("counts").arg("").arg(black_box(1))));
    });
    group.finish();

    let mut group = c.benchmark_group("remote_push_and_pop");
    let list = manager.list("list").expect("room");
    group.bench_function("multiproc", |b| {
        b.iter(|| {
            list.push(black_box(7_u64)).expect("room");
            list.pop().expect("it")
        });
    });
    group.bench_function("client_rpush_rpop", |b| {
        b.iter(|| {
            bare.ask::<i64>(cmd("RPUSH").arg("items").arg(black_box(&seven)));
            bare.ask::<Vec<u8>>(cmd("RPOP").arg("items"))
        });
    });
    group.finish();

    let mut group = c.benchmark_group("remote_lock_and_unlock");
    let lock = manager.lock("lock").expect("room");
    group.bench_function("multiproc", |b| {
        b.iter(|| drop(lock.lock().expect("not abandoned")));
    });
    let release = redis::Script::new(RELEASE);
    group.bench_function("client_set_nx_and_delete", |b| {
        b.iter(|| {
            let mut set = cmd("SET");
            set.arg("held").arg("me").arg("NX").arg("PX").arg(10_000);
            bare.ask::<()>(&set);
            let released = release.key("held").arg("me").invoke(&mut bare.0);
            released.map(|count: i64| count).expect("an answer")
        });
    });
    group.finish();
}

/// An agent, which is this program, ended with this.
struct Agent(Child);

impl Agent {
    fn start(url: &str) -> Self {
        let mut program = Command::new(std::env::current_exe().expect("this program"));
        let program = program.env("MULTIPROC_WORKER", url).stdin(Stdio::null());
        let program = program.env("MULTIPROC_WORKERS", workers().to_string());
        Self(program.spawn().expect("a process"))
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn same(x: u64) -> u64 {
    x
}

/// A worker of a stream that does nothing but answer, by a thread of its own, as few requests as it takes.
fn answer_by_hand(server: &RedisServer) {
    let mut bare = Bare::new(server);
    bare.ask::<()>(
        cmd("XGROUP")
            .arg("CREATE")
            .arg("tasks")
            .arg("all")
            .arg("0")
            .arg("MKSTREAM"),
    );
    std::thread::spawn(move || {
        loop {
            let mut take = cmd("XREADGROUP");
            take.arg("GROUP")
                .arg("all")
                .arg("me")
                .arg("COUNT")
                .arg(1)
                .arg("BLOCK")
                .arg(0);
            take.arg("STREAMS").arg("tasks").arg(">");
            // with the server this thread ends, too
            let Ok(found) = take.query::<StreamReadReply>(&mut bare.0) else {
                return;
            };
            let id = &found.keys[0].ids[0].id;
            let mut done = redis::pipe();
            done.atomic()
                .cmd("XACK")
                .arg("tasks")
                .arg("all")
                .arg(id)
                .ignore();
            done.cmd("XDEL").arg("tasks").arg(id).ignore();
            done.cmd("XADD")
                .arg("results")
                .arg("*")
                .arg("p")
                .arg("7")
                .ignore();
            if done.query::<()>(&mut bare.0).is_err() {
                return;
            }
        }
    });
}

fn calls(c: &mut Criterion) {
    let Some(server) = server() else { return };
    let pool = Pool::builder().connect(server.url()).build();
    let pool = pool.expect("a server");
    let _agent = Agent::start(&server.url());
    let all = pool.wait_for_workers(workers(), Duration::from_secs(30));
    all.expect("an agent");

    let mut group = c.benchmark_group("remote_apply");
    group.bench_function("multiproc", |b| {
        b.iter(|| pool.apply(same, black_box(7)).expect("it"));
    });
    answer_by_hand(&server);
    let (mut bare, mut last) = (Bare::new(&server), "0".to_owned());
    group.bench_function("client_streams_by_hand", |b| {
        b.iter(|| {
            bare.ask::<()>(
                cmd("XADD")
                    .arg("tasks")
                    .arg("*")
                    .arg("p")
                    .arg(black_box("7")),
            );
            let mut read = cmd("XREAD");
            read.arg("BLOCK")
                .arg(0)
                .arg("STREAMS")
                .arg("results")
                .arg(&last);
            let found: StreamReadReply = bare.ask(&read);
            last.clone_from(&found.keys[0].ids[0].id);
        });
    });
    group.finish();
    let mut group = c.benchmark_group("remote_map");
    let items = 20_000;
    group.throughput(Throughput::Elements(items));
    for chunk in [1, 100] {
        group.bench_function(format!("by_chunks_of_{chunk}"), |b| {
            b.iter(|| {
                let found = pool.chunk_size(chunk).map(same, 0..items).expect("all");
                assert_eq!(found.len() as u64, items);
            });
        });
    }
    group.finish();
}

criterion_group!(name = benches; config = short(); targets = objects, calls);
criterion_main!(benches);
