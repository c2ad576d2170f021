//! A real redis-server for tests, and a proxy that cuts connections at chosen points.
//!
//! Where there is no redis-server the tests fail, rather than pass without having tried.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "each test binary uses a part of it, and a test fails by panicking"
)]

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const PATIENCE: Duration = Duration::from_secs(30);

/// What a server that starts again finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Data {
    Keep,
    Empty,
}

/// A server of its own, on a unix socket in a directory of its own. It ends with this, and with this process, however that ends.
#[derive(Debug)]
pub struct RedisServer {
    dir: PathBuf,
    more: Vec<String>,
    running: Option<Running>,
}

#[derive(Debug)]
struct Running {
    keeper: Child,
    /// The keeper ends the server, and removes its directory, when this closes.
    lifeline: Option<ChildStdin>,
    pid: Pid,
}

/// Lets time go by, where that is what the test is about.
pub fn pass(time: Duration) {
    thread::sleep(time);
}

fn fresh_dir() -> PathBuf {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let name = format!("mp-redis-{}-{number}", std::process::id());
    let dir = std::env::temp_dir().join(name);
    fs::create_dir(&dir).unwrap();
    dir
}

impl RedisServer {
    /// Keeps nothing on disk.
    pub fn start() -> Self {
        Self::start_with(&["--appendonly", "no"])
    }

    /// Writes its log before each answer, so that it has everything again after a kill.
    pub fn with_log() -> Self {
        Self::start_with(&["--appendonly", "yes", "--appendfsync", "always"])
    }

    /// With more arguments, as `redis-server` takes them.
    pub fn start_with(more: &[&str]) -> Self {
        let mut server = Self {
            dir: fresh_dir(),
            more: more.iter().map(|arg| (*arg).to_owned()).collect(),
            running: None,
        };
        server.run();
        server
    }

    fn run(&mut self) {
        let missing = "tests of the feature `redis` need redis-server (7.0 or later) in PATH: apt-get install redis-server";
        let found = Command::new("redis-server").arg("--version").output();
        assert!(
            found.is_ok_and(|output| output.status.success()),
            "{missing}"
        );
        // WHY NOT PDEATHSIG: it comes when the thread ends that started the server, and each test is a thread
        let script = "dir=$1; shift; redis-server --dir \"$dir\" \"$@\" & pid=$!; echo pid $pid; \
            read -r word; kill -9 $pid; wait; [ \"$word\" = keep ] || rm -rf \"$dir\"";
        let mut keeper = Command::new("sh")
            .args(["-c", script, "sh"])
            .arg(&self.dir)
            .args(["--port", "0", "--save", "", "--unixsocketperm", "700"])
            .args(["--daemonize", "no", "--logfile", ""])
            .args(["--maxmemory-policy", "noeviction", "--unixsocket"])
            .arg(self.socket())
            .args(&self.more)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let said = lines(keeper.stdout.take().unwrap());
        let pid = said.recv_timeout(PATIENCE).unwrap();
        let pid = pid.strip_prefix("pid ").unwrap().parse().unwrap();
        self.running = Some(Running {
            lifeline: keeper.stdin.take(),
            keeper,
            pid: Pid::from_raw(pid),
        });
        let mut log = Vec::new();
        loop {
            match said.recv_timeout(PATIENCE) {
                Ok(line) if line.contains("eady to accept connections") => break,
                Ok(line) => log.push(line),
                Err(error) => panic!("redis-server did not start: {error}\n{}", log.join("\n")),
            }
        }
    }

    pub fn socket(&self) -> PathBuf {
        self.dir.join("r.sock")
    }

    pub fn url(&self) -> String {
        format!("unix://{}", self.socket().display())
    }

    pub fn pid(&self) -> i32 {
        self.running.as_ref().unwrap().pid.as_raw()
    }

    /// SIGKILL, and it is gone when this returns.
    pub fn kill(&mut self) {
        if let Some(mut running) = self.running.take() {
            if let Some(mut lifeline) = running.lifeline.take() {
                let _ = lifeline.write_all(b"keep\n");
            }
            running.keeper.wait().unwrap();
        }
    }

    /// Starts a server that was killed, or kills it first.
    pub fn restart(&mut self, data: Data) {
        self.kill();
        if data == Data::Empty {
            fs::remove_dir_all(&self.dir).unwrap();
            fs::create_dir(&self.dir).unwrap();
        }
        self.run();
    }

    pub fn stop(&self) {
        kill(self.running.as_ref().unwrap().pid, Signal::SIGSTOP).unwrap();
    }

    pub fn cont(&self) {
        kill(self.running.as_ref().unwrap().pid, Signal::SIGCONT).unwrap();
    }

    /// What `redis-cli` prints.
    pub fn cli<const N: usize>(&self, args: [&str; N]) -> String {
        let output = Command::new("redis-cli")
            .arg("-s")
            .arg(self.socket())
            .args(args)
            .output();
        let output = output.unwrap();
        assert!(output.status.success(), "redis-cli {args:?}: {output:?}");
        String::from_utf8_lossy(&output.stdout)
            .trim_end()
            .to_owned()
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.kill();
        let _ = fs::remove_dir_all(&self.dir);
    }
}

fn lines(from: impl Read + Send + 'static) -> Receiver<String> {
    let (send, receive) = channel();
    // reads on when nobody listens any more, as the server must be able to write
    thread::spawn(move || {
        for line in BufReader::new(from).lines() {
            let Ok(line) = line else { break };
            let _ = send.send(line);
        }
    });
    receive
}

/// Where the proxy cuts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// The request never reaches the server.
    Request,
    /// The server has done it; the client never hears of it.
    BeforeReply,
    /// The client has its reply, and finds the connection dead when it comes again.
    AfterReply,
    /// Nothing is cut: the reply takes half a second.
    Late,
}

#[derive(Default)]
struct Plan {
    cut: Option<(Cut, Vec<u8>)>,
    done: u64,
}

/// Stands between clients and a server, and cuts the connection of the next request that holds some text.
pub struct Proxy {
    socket: PathBuf,
    plan: Arc<Mutex<Plan>>,
}

impl Proxy {
    pub fn start(server: &RedisServer) -> Self {
        Self::to(&server.socket())
    }

    fn to(server: &Path) -> Self {
        let socket = server.with_file_name("p.sock");
        let _ = fs::remove_file(&socket);
        let listener = UnixListener::bind(&socket).unwrap();
        let plan = Arc::new(Mutex::new(Plan::default()));
        let (server, shared) = (server.to_owned(), Arc::clone(&plan));
        thread::spawn(move || {
            for client in listener.incoming() {
                let Ok(client) = client else { return };
                // without a server the client finds its connection closed
                if let Ok(server) = UnixStream::connect(&server) {
                    join(client, server, &shared);
                }
            }
        });
        Self { socket, plan }
    }

    pub fn url(&self) -> String {
        format!("unix://{}", self.socket.display())
    }

    /// Cuts at the next request that holds `text`: the name of a command, a key, a value.
    pub fn cut(&self, cut: Cut, text: &str) {
        self.plan.lock().unwrap().cut = Some((cut, text.as_bytes().to_vec()));
    }

    /// How often it has cut.
    pub fn cuts(&self) -> u64 {
        self.plan.lock().unwrap().done
    }
}

fn hang_up(client: &UnixStream, server: &UnixStream) {
    let _ = client.shutdown(Shutdown::Both);
    let _ = server.shutdown(Shutdown::Both);
}

fn join(client: UnixStream, server: UnixStream, plan: &Arc<Mutex<Plan>>) {
    let due = Arc::new(Mutex::new(None::<Cut>));
    let ends = || (client.try_clone().unwrap(), server.try_clone().unwrap());
    let ((mut from, mut to), plan_up, due_up) = (ends(), Arc::clone(plan), Arc::clone(&due));
    thread::spawn(move || {
        let mut bytes = vec![0; 1 << 16];
        while let Ok(count @ 1..) = from.read(&mut bytes) {
            let mut plan = plan_up.lock().unwrap_or_else(PoisonError::into_inner);
            let holds =
                |text: &Vec<u8>| bytes[..count].windows(text.len()).any(|part| part == text);
            if let Some((cut, _)) = plan.cut.take_if(|(_, text)| holds(text)) {
                if cut == Cut::Request {
                    plan.done += 1;
                    break;
                }
                *due_up.lock().unwrap() = Some(cut);
            }
            drop(plan);
            if to.write_all(&bytes[..count]).is_err() {
                break;
            }
        }
        hang_up(&from, &to);
    });
    let ((mut to, mut from), plan) = (ends(), Arc::clone(plan));
    thread::spawn(move || {
        let mut bytes = vec![0; 1 << 16];
        while let Ok(count @ 1..) = from.read(&mut bytes) {
            let mut cut = due.lock().unwrap().take();
            if cut.is_some() {
                plan.lock().unwrap().done += 1;
            }
            if cut == Some(Cut::Late) {
                pass(Duration::from_millis(500));
                cut = None;
            }
            let lost = cut == Some(Cut::BeforeReply);
            if lost || to.write_all(&bytes[..count]).is_err() || cut.is_some() {
                break;
            }
        }
        hang_up(&to, &from);
    });
}
