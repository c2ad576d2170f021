//! The examples around shared values and arrays.

use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::stage::{Folder, outcome, refuses, run, run_unprivileged};

#[test]
fn array_sum_agrees_with_the_plain_sum() {
    for (len, sum) in [
        ("0", "-0"), // what std calls the sum of nothing
        ("1", "0"),
        ("1000", "499500"),
        ("1000001", "499500000"),
    ] {
        let found = run("array_sum", [len]).expect(0);
        let sums: Vec<&str> = found
            .text()
            .lines()
            .filter_map(|line| line.split([':', ' ']).rev().nth(2))
            .collect();
        assert_eq!(sums, [sum, sum], "{}", found.text());
    }
    refuses("array_sum", &["many"], "\"many\" is no length");
}

/// A python3 that has numpy, if there is one.
fn python() -> Option<&'static str> {
    let has_numpy = |python: &&&str| {
        let mut command = Command::new(python);
        let found = command.args(["-c", "import numpy"]).output();
        found.is_ok_and(|found| found.status.success())
    };
    ["python3", "/usr/bin/python3"]
        .iter()
        .find(has_numpy)
        .copied()
}

#[test]
fn numpy_reads_what_the_workers_wrote() {
    refuses(
        "numpy_reads_array",
        &["none"],
        "\"none\" is no number of points",
    );
    let none = run("numpy_reads_array", ["10", "/nowhere/python3"]).expect(1);
    assert!(
        none.stderr.contains("did not do its part"),
        "{}",
        none.stderr
    );
    let Some(python) = python() else {
        println!("skipped: there is no python3 with numpy (apt-get install python3-numpy)");
        return;
    };
    for points in ["1", "10000", "123456"] {
        let found = run("numpy_reads_array", [points, python]).expect(0);
        let lines: Vec<&str> = found.text().lines().collect();
        let [rust, numpy, last] = lines[..] else {
            panic!("{lines:?}")
        };
        let numpy = numpy.replace("numpy: ", "rust:  ").replace("<f8", "f64");
        assert!(
            rust.starts_with(&format!("rust:  {points} points")),
            "{rust}"
        );
        assert_eq!(rust, numpy);
        assert_eq!(last, "rust:  the first point is 42 now");
    }
}

#[test]
fn shared_counter_loses_no_addition() {
    let found = run("shared_counter", [""; 0]).expect(0);
    let expected = format!("total:  40000 of 40000\nplaces: {:?}\n", [4000; 10]);
    assert_eq!(found.text(), expected);
}

/// Every name below a folder with its kind, mode, and what a link points to.
fn listing(folder: &Path) -> Vec<String> {
    let script =
        r#"cd "$0" && find . \( -type l -printf '%P %y %l\0' \) -o -printf '%P %y %m\0' | sort -z"#;
    let found = outcome(Command::new("sh").arg("-c").arg(script).arg(folder)).expect(0);
    found
        .stdout
        .split(|byte| *byte == 0)
        .map(|line| line.escape_ascii().to_string())
        .collect()
}

fn assert_equal_trees(left: &Path, right: &Path) {
    assert_eq!(listing(left), listing(right));
    let found = outcome(
        Command::new("diff")
            .args(["-r", "--no-dereference"])
            .args([left, right]),
    );
    assert_eq!(
        (found.code, found.text()),
        (Some(0), ""),
        "{}",
        found.stderr
    );
}

fn tree(folder: &Folder) -> PathBuf {
    for number in 0..200 {
        folder.write(
            format!("from/many/{}/{number}", number % 5),
            format!("content {number}").repeat(number),
        );
    }
    folder.write(OsStr::from_bytes(b"from/not \xff text\n/file"), "1");
    let program = folder.write("from/program", "#!/bin/sh\n");
    fs::set_permissions(program, Permissions::from_mode(0o751)).unwrap();
    let large = folder.write("from/large", "head");
    File::options()
        .write(true)
        .open(large)
        .unwrap()
        .set_len((17 << 20) + 5)
        .unwrap();
    let exact = folder.write("from/exact", "head");
    File::options()
        .write(true)
        .open(exact)
        .unwrap()
        .set_len(8 << 20)
        .unwrap();
    let locked = folder.write("from/read only/file", "2");
    fs::set_permissions(&locked, Permissions::from_mode(0o400)).unwrap();
    fs::set_permissions(locked.parent().unwrap(), Permissions::from_mode(0o555)).unwrap();
    let from = folder.path().join("from");
    fs::create_dir_all(from.join("empty/in empty")).unwrap();
    symlink("nowhere", from.join("dangling")).unwrap();
    symlink("many", from.join("link to a folder")).unwrap();
    from
}

#[test]
fn copy_tree_makes_an_equal_tree() {
    let folder = Folder::new();
    let (from, to) = (tree(&folder), folder.path().join("to"));
    let found = run("copy_tree", [&from, &to]).expect(0);
    assert_equal_trees(&from, &to);
    let bytes = listing(&from).len(); // every name was seen
    assert!(bytes > 200);
    let (copied, total) = found
        .stderr
        .trim_end()
        .strip_suffix(" bytes copied")
        .unwrap()
        .split_once(" of ")
        .unwrap();
    assert_eq!(copied, total, "the progress of the workers, added up");
}

#[test]
fn copy_tree_copies_into_its_own_source() {
    let folder = Folder::new();
    let (from, kept) = (tree(&folder), folder.path().join("kept"));
    run("copy_tree", [&from, &kept]).expect(0);
    run("copy_tree", [&from, &from.join("copy")]).expect(0);
    assert_equal_trees(&kept, &from.join("copy"));
}

#[test]
fn copy_tree_tells_what_it_could_not_copy_and_copies_the_rest() {
    let folder = Folder::new();
    folder.write("from/a", "1");
    folder.write("from/z", "2");
    let locked = folder.write("from/locked", "3");
    fs::set_permissions(&locked, Permissions::from_mode(0o000)).unwrap();
    nix::unistd::mkfifo(
        &folder.path().join("from/fifo"),
        nix::sys::stat::Mode::S_IRWXU,
    )
    .unwrap();
    let room = folder.path().join("room");
    fs::create_dir(&room).unwrap();
    fs::set_permissions(&room, Permissions::from_mode(0o777)).unwrap();
    let found = run_unprivileged(
        "copy_tree",
        [folder.path().join("from"), room.join("to")],
        &folder,
    )
    .expect(1);
    assert!(
        found.stderr.contains("/from/locked: Permission denied"),
        "{}",
        found.stderr
    );
    assert!(
        found.stderr.contains("/from/fifo: neither file"),
        "{}",
        found.stderr
    );
    assert_eq!(fs::read(room.join("to/a")).unwrap(), b"1");
    assert_eq!(fs::read(room.join("to/z")).unwrap(), b"2");
}

#[test]
fn copy_tree_refuses_wrong_arguments() {
    refuses("copy_tree", &[], "two folders");
    refuses("copy_tree", &["a"], "two folders");
    refuses("copy_tree", &["a", "b", "c"], "two folders");
    let folder = Folder::new();
    let exists = run("copy_tree", [folder.path(), folder.path()]).expect(1);
    assert!(exists.stderr.contains("File exists"), "{}", exists.stderr);
    let missing = run(
        "copy_tree",
        [Path::new("/nowhere"), &folder.path().join("to")],
    )
    .expect(1);
    assert!(
        missing.stderr.contains("/nowhere: not a folder"),
        "{}",
        missing.stderr
    );
    assert!(!folder.path().join("to").exists());
}
