//! Ctrl-C at a terminal, where the parent and its workers are one foreground process group.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::process::Stdio;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use multiproc::Pool;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use super::killed::Family;
use super::{command, role};

/// What comes out of the terminal, to the mark `until`.
fn read_until(output: &Receiver<Vec<u8>>, until: &str) -> String {
    let mut text = String::new();
    while !text.contains(until) {
        match output.recv_timeout(Duration::from_secs(30)) {
            Ok(bytes) => text.push_str(&String::from_utf8_lossy(&bytes)),
            Err(error) => panic!("no {until:?} after {text:?}: {error}"),
        }
    }
    text
}

/// Makes the terminal on standard input that of a new session, of which this process is the leader.
fn lead_a_session() -> std::io::Result<()> {
    nix::unistd::setsid()?;
    // SAFETY: the call takes a number.
    match unsafe { nix::libc::ioctl(0, nix::libc::TIOCSCTTY, 0) } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    }
}

#[test]
fn ctrl_c_ends_the_parent_and_its_workers_without_a_word() {
    if role().is_some() {
        let pool = Pool::with_workers(3).unwrap();
        // one busy in Rust, one busy in a system call, one idle
        let busy = pool
            .apply_async(|()| while std::hint::black_box(true) {}, ())
            .unwrap();
        let _asleep = pool
            .apply_async(|()| std::thread::sleep(Duration::from_secs(600)), ())
            .unwrap();
        println!("@");
        busy.get().unwrap();
        return;
    }
    let test = "terminal::ctrl_c_ends_the_parent_and_its_workers_without_a_word";
    let terminal = nix::pty::openpty(None, None).unwrap();
    let slave = || Stdio::from(terminal.slave.try_clone().unwrap());
    let this = std::env::current_exe().unwrap();
    // the shell leads the session and lives on, or the end of the session would end the workers by SIGHUP
    let script = "trap : INT; \"$0\" \"$@\"; echo \"status $? over\"; read -r line";
    let mut shell = command(
        "sh",
        &["-c", script, this.to_str().unwrap()],
        test,
        "parent",
    );
    shell.stdin(slave()).stdout(slave()).stderr(slave());
    // SAFETY: the function makes two system calls.
    unsafe { shell.pre_exec(lead_a_session) };
    let mut family = Family::start(&mut shell, "terminal");
    drop((shell, terminal.slave));
    let mut master = std::fs::File::from(terminal.master);
    let mut reader = master.try_clone().unwrap();
    let (sender, output) = channel();
    std::thread::spawn(move || {
        let mut bytes = [0; 4096];
        // an error is the end of the last process that had the terminal
        while let Ok(n @ 1..) = reader.read(&mut bytes) {
            if sender.send(bytes[..n].to_vec()).is_err() {
                return;
            }
        }
    });
    let before = read_until(&output, "@");
    assert!(
        family.others().len() >= 4,
        "{:?} after {before:?}",
        family.others()
    );
    master.write_all(b"\x03").unwrap();
    let after = read_until(&output, "over");
    println!("all had gone {:?} after their parent", family.dies_out());
    master.write_all(b"\n").unwrap();
    assert!(family.head.wait().unwrap().success());
    let rest: Vec<u8> = output.iter().flatten().collect();
    let after = (after + &String::from_utf8_lossy(&rest)).replace("\r\n", "");
    // the terminal's own echo, and 128 and the number of SIGINT, as a shell names an end by it
    let echo = after.replace("^C", "");
    assert_eq!(echo.trim(), "status 130 over", "{after:?}");
}

/// Works for half a second of its own time, in which nobody stops it.
fn begin_slowly(_: ()) {
    println!("@begun");
    for _ in 0..50 {
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The time for which all had been stopped counted as the initialiser's.
#[test]
fn ctrl_z_takes_no_time_from_an_initialiser() {
    if role().is_some() {
        let limit = Duration::from_secs(2);
        let built = Pool::builder().workers(1).init_timeout(limit);
        let built = built.init(begin_slowly, ()).build();
        println!("@{:?}", built.map(|pool| pool.worker_pids().len()));
        return;
    }
    let test = "terminal::ctrl_z_takes_no_time_from_an_initialiser";
    let mut parent = command(std::env::current_exe().unwrap(), &[], test, "job")
        .stdout(Stdio::piped())
        .process_group(0)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(parent.stdout.take().unwrap()).lines();
    let mut next = || lines.find_map(|line| Some(line.unwrap().split_once('@')?.1.to_owned()));
    assert_eq!(next().as_deref(), Some("begun"));
    let job = Pid::from_raw(parent.id().cast_signed());
    killpg(job, Signal::SIGSTOP).unwrap();
    std::thread::sleep(Duration::from_secs(3));
    killpg(job, Signal::SIGCONT).unwrap();
    assert_eq!(next().as_deref(), Some("Ok(1)"));
    parent.wait().unwrap();
}
