//! Python beside it: the lines that the docs show, run by the system's python3 with numpy; skipped where there is none.

#![allow(clippy::print_stdout, reason = "who skips a test says so")]

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};

use multiproc::{Array, ErrorKind, LockError, RawArray};

use crate::help::Name;

/// A python3 that has numpy.
fn python() -> Option<&'static str> {
    let has_numpy = |python: &&&str| {
        let found = Command::new(python)
            .args(["-c", "import numpy"])
            .stderr(Stdio::null())
            .status();
        found.is_ok_and(|status| status.success())
    };
    let found = ["python3", "/usr/bin/python3"]
        .iter()
        .find(has_numpy)
        .copied();
    if found.is_none() {
        println!("skipped: there is no python3 with numpy (apt-get install python3-numpy)");
    }
    found
}

/// The pieces of Python in the docs of a file, in order.
fn documented(source: &str) -> Vec<String> {
    source
        .split("/// ```python\n")
        .skip(1)
        .map(|rest| {
            let (piece, _) = rest.split_once("/// ```\n").unwrap();
            let lines = piece.lines().map(|line| line.trim_start_matches("/// "));
            lines.collect::<Vec<_>>().join("\n")
        })
        .collect()
}

fn of_array(name: &str) -> [String; 2] {
    let pieces = documented(include_str!("../../src/array.rs"));
    let pieces: [String; 2] = pieces.try_into().unwrap();
    pieces.map(|piece| piece.replace("/dev/shm/prices", &format!("/dev/shm/{name}")))
}

/// A running script, killed at drop.
struct Script(Child, BufReader<std::process::ChildStdout>);

impl Script {
    fn new(python: &str, lines: &str) -> Self {
        let mut child = Command::new(python)
            .args(["-u", "-c", lines])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        Self(child, out)
    }

    fn hear(&mut self) -> String {
        let mut line = String::new();
        assert!(self.1.read_line(&mut line).unwrap() > 0, "python has ended");
        line.trim_end().to_owned()
    }

    fn go(&mut self) {
        self.0.stdin.as_mut().unwrap().write_all(b"go\n").unwrap();
    }

    fn ends_well(mut self) {
        assert!(self.0.wait().unwrap().success());
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn numpy_reads_and_writes_a_named_array_in_place() {
    let Some(python) = python() else { return };
    let name = Name::new();
    let array = Array::<f64>::create(&name, 1000).unwrap();
    array.lock().unwrap()[3] = 2.25;
    let [attach, change] = of_array(&name);
    let script = format!(
        "{attach}\nprint(prices.dtype.str, len(prices), prices.sum())\ninput()\n{change}\nprint(prices[4])\n"
    );
    let mut script = Script::new(python, &script);
    assert_eq!(script.hear(), "<f8 1000 2.25");
    let mut guard = array.lock().unwrap();
    guard[4] = 0.5; // the same memory: seen there without another word
    script.go();
    assert_eq!(array.try_lock().unwrap_err().kind(), ErrorKind::Deadlock);
    guard[3] += 1.0;
    drop(guard);
    assert_eq!(script.hear(), "1.0");
    script.ends_well();
    assert_eq!((array.get(3).unwrap(), array.get(4).unwrap()), (6.5, 1.0));
}

/// Shares `value` as the last of three, and says what attaches to it.
fn shared<T: multiproc::Pod>(value: T) -> (Array<T>, Name, String) {
    let name = Name::new();
    let array = Array::<T>::create(&name, 3).unwrap();
    array.set(2, value).unwrap();
    let [attach, _] = of_array(&name);
    (
        array,
        name,
        format!("{attach}\nprint(prices.dtype.str, *prices)\n"),
    )
}

#[test]
fn every_kind_of_number_has_its_name_in_numpy() {
    let Some(python) = python() else { return };
    let one = shared(-5_i8);
    let two = shared(200_u8);
    let three = shared(-5_i16);
    let four = shared(u32::MAX);
    let five = shared(i64::MIN);
    let six = shared(0.5_f32);
    let scripts = [&one.2, &two.2, &three.2, &four.2, &five.2, &six.2].map(String::as_str);
    let mut script = Script::new(python, &scripts.concat());
    for shown in [
        "|i1 0 0 -5",
        "|u1 0 0 200",
        "<i2 0 0 -5",
        "<u4 0 0 4294967295",
        "<i8 0 0 -9223372036854775808",
        "<f4 0.0 0.0 0.5",
    ] {
        assert_eq!(script.hear(), shown);
    }
    script.ends_well();
}

#[test]
fn python_killed_with_the_lock_is_an_owner_that_died() {
    let Some(python) = python() else { return };
    let name = Name::new();
    let array = Array::<i32>::create(&name, 10).unwrap();
    let [attach, change] = of_array(&name);
    let stop = "prices[:] = 9\nprint('locked')\ninput()\nlibc.pthread_mutex_unlock";
    let change = change.replace("libc.pthread_mutex_unlock", stop);
    let mut script = Script::new(python, &format!("{attach}\n{change}"));
    assert_eq!(script.hear(), "locked");
    assert_eq!(array.try_lock().unwrap_err().kind(), ErrorKind::WouldBlock);
    drop(script);
    let Err(LockError::OwnerDied(guard)) = array.lock() else {
        panic!("nobody was told");
    };
    assert_eq!(*guard, [9; 10]);
}

#[test]
fn what_python_made_is_a_raw_array() {
    let Some(python) = python() else { return };
    let pieces = documented(include_str!("../../src/raw.rs"));
    let [make] = &pieces[..] else {
        panic!("{pieces:?}")
    };
    let script = format!(
        "{make}\nprices[:] = np.arange(1000)\nprint('written')\ninput()\nassert prices[7] == 0.25 and prices[8] == 8\nprint(prices.sum())\n\
        memory.unlink()\n"
    );
    let mut script = Script::new(python, &script);
    let name = script.hear();
    assert!(name.starts_with("psm_"), "{name}");
    let array = RawArray::<f64>::open(&name).unwrap();
    assert_eq!(array.len(), 1000);
    assert_eq!(script.hear(), "written");
    assert_eq!(array.read(5..8).unwrap(), [5.0, 6.0, 7.0]);
    array.set(7, 0.25).unwrap();
    script.go();
    assert_eq!(script.hear(), "499493.25");
    script.ends_well();
    assert_eq!(
        RawArray::<f64>::open(&name).unwrap_err().kind(),
        ErrorKind::NotFound
    );
    assert_eq!(array.get(999).unwrap(), 999.0);
}
