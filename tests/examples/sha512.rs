//! `sha512_tree` against `find` and `sha512sum`.

use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::stage::{Folder, Outcome, command, outcome, refuses, run, run_unprivileged};

fn reference(path: &Path) -> Outcome {
    let script = r#"find "$0" -type f -print0 | xargs -0 -r sha512sum"#;
    outcome(Command::new("sh").arg("-c").arg(script).arg(path)).expect(0)
}

fn summary_counts(found: &Outcome, files: usize) {
    let last = found.stderr.lines().last().unwrap();
    assert!(
        last.starts_with(&format!("{files} files, ")),
        "{}",
        found.stderr
    );
}

/// A tree with every kind of name and file that is known to cause trouble.
fn odd_tree() -> Folder {
    let folder = Folder::new();
    for number in 0..300 {
        folder.write(
            format!("many/{}/{number}", number % 7),
            format!("content {number}").repeat(number),
        );
    }
    folder.write("empty", "");
    folder.write("new\nline", "1");
    folder.write("back\\slash", "2");
    folder.write("carriage\rreturn", "3");
    folder.write("all\\of\r\nthem\\", "4");
    folder.write(" space  and\ttab ", "5");
    folder.write("-dash", "6");
    folder.write("*quotes'\"$(id)", "7");
    folder.write(OsStr::from_bytes(b"not \xff\xfe text"), "8");
    folder.write(OsStr::from_bytes(b"folder \xc3\x28/in\nside/file"), "9");
    folder.write("x".repeat(255), "10");
    fs::create_dir(folder.path().join("empty folder")).unwrap();
    symlink("nowhere", folder.path().join("dangling")).unwrap();
    symlink("empty", folder.path().join("link to a file")).unwrap();
    symlink(".", folder.path().join("link in a circle")).unwrap();
    let fifo = folder.path().join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let sparse = File::create(folder.path().join("sparse")).unwrap();
    sparse.set_len(5 * 1024 * 1024 + 3).unwrap();
    folder
}

#[test]
fn sha512_tree_prints_what_sha512sum_prints() {
    let folder = odd_tree();
    let expected = reference(folder.path()).sorted();
    assert_eq!(expected.len(), 312);
    for workers in ["1", "2", "5"] {
        let arguments = [
            folder.path().as_os_str(),
            "--workers".as_ref(),
            workers.as_ref(),
        ];
        let found = run("sha512_tree", arguments).expect(0);
        assert!(
            found.sorted() == expected,
            "{}",
            String::from_utf8_lossy(&found.stdout)
        );
        summary_counts(&found, 312);
    }
}

#[test]
fn sha512sum_itself_accepts_the_list() {
    let folder = odd_tree();
    let lists = Folder::new();
    let list = lists.write("list", run("sha512_tree", [folder.path()]).expect(0).stdout);
    let strict = ["--check", "--strict", "--quiet"];
    let checked = outcome(Command::new("sha512sum").args(strict).arg(list)).expect(0);
    assert_eq!(checked.text(), "");
}

#[test]
fn names_begin_as_the_path_was_given() {
    let folder = odd_tree();
    let name = folder.path().file_name().unwrap();
    let name = name.to_str().unwrap();
    let bodies = [
        ".".to_owned(),
        "..//".to_owned() + name,
        name.to_owned() + "/many/",
        name.to_owned() + "/empty",
    ];
    let places = [
        folder.path(),
        folder.path(),
        folder.path().parent().unwrap(),
        folder.path().parent().unwrap(),
    ];
    for (path, place) in bodies.iter().zip(places) {
        let script = r#"find "$0" -type f -print0 | xargs -0 -r sha512sum"#;
        let expected = outcome(
            Command::new("sh")
                .arg("-c")
                .arg(script)
                .arg(path)
                .current_dir(place),
        )
        .expect(0);
        let found = outcome(command("sha512_tree", [path]).current_dir(place)).expect(0);
        assert!(!expected.stdout.is_empty());
        assert!(
            found.sorted() == expected.sorted(),
            "{path}: {}",
            String::from_utf8_lossy(&found.stdout)
        );
    }
}

#[test]
fn a_link_given_as_the_path_is_not_followed() {
    let folder = Folder::new();
    folder.write("real/file", "1");
    let link = folder.path().join("link");
    symlink("real", &link).unwrap();
    assert_eq!(
        run("sha512_tree", [&link]).expect(0).text(),
        reference(&link).text()
    );
    assert_eq!(run("sha512_tree", [&link]).expect(0).text(), "");
}

#[test]
fn what_cannot_be_read_is_told_and_the_rest_is_hashed() {
    let folder = Folder::new();
    folder.write("tree/readable", "1");
    folder.write("tree/in/readable", "2");
    let file = folder.write("tree/locked", "3");
    let below = folder.write("tree/locked folder/file", "4");
    let inner = below.parent().unwrap();
    fs::set_permissions(&file, Permissions::from_mode(0o000)).unwrap();
    fs::set_permissions(inner, Permissions::from_mode(0o000)).unwrap();
    let tree = folder.path().join("tree");
    let found = run_unprivileged("sha512_tree", [&tree], &folder).expect(1);
    fs::set_permissions(inner, Permissions::from_mode(0o700)).unwrap();
    for path in [file.as_path(), inner] {
        let line = format!("sha512_tree: {}: Permission denied\n", path.display());
        assert!(found.stderr.contains(&line), "{}", found.stderr);
    }
    summary_counts(&found, 2);
    assert_eq!(found.text().lines().count(), 2);
    assert!(
        found.text().contains("/tree/readable\n") && found.text().contains("/tree/in/readable\n"),
        "{}",
        found.text()
    );
}

#[test]
fn a_path_that_is_not_there_is_an_error() {
    let found = run("sha512_tree", ["/nowhere/at all"]).expect(1);
    assert!(
        found
            .stderr
            .starts_with("sha512_tree: /nowhere/at all: No such file or directory\n"),
        "{}",
        found.stderr
    );
    assert!(found.stdout.is_empty());
}

#[test]
fn sha512_tree_refuses_wrong_arguments() {
    refuses("sha512_tree", &[], "PATH is missing");
    refuses("sha512_tree", &["a", "b"], "unexpected argument \"b\"");
    refuses("sha512_tree", &["a", "--workers"], "--workers");
    refuses("sha512_tree", &["a", "--workers", "0"], "at least 1");
    refuses("sha512_tree", &["a", "--workers", "-1"], "-1");
    refuses("sha512_tree", &["a", "--threads", "1"], "--threads");
}

#[test]
fn a_reader_that_has_seen_enough_ends_it_quietly() {
    let folder = odd_tree();
    for number in 0..3000 {
        folder.write(format!("more/{number}"), "");
    }
    let mut child = command("sha512_tree", [folder.path()])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let mut said = String::new();
    child
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut said)
        .unwrap();
    assert_eq!((child.wait().unwrap().code(), said.as_str()), (Some(0), ""));
}

#[test]
fn a_full_disk_is_told() {
    let folder = Folder::new();
    folder.write("file", "1");
    let full = File::options().write(true).open("/dev/full").unwrap();
    let found = outcome(command("sha512_tree", [folder.path()]).stdout(full)).expect(1);
    assert!(
        found
            .stderr
            .contains("write error: No space left on device"),
        "{}",
        found.stderr
    );
}

#[test]
fn a_gigabyte_is_hashed_without_being_held() {
    let folder = Folder::new();
    File::create(folder.path().join("large"))
        .unwrap()
        .set_len(1 << 30)
        .unwrap();
    let expected = reference(folder.path());
    // each process may have less address space than the file has bytes
    let script = r#"ulimit -v 1000000 && exec "$0" "$1" --workers 2"#;
    let mut limited = Command::new("sh");
    limited
        .arg("-c")
        .arg(script)
        .arg(crate::stage::example("sha512_tree"))
        .arg(folder.path());
    let found = outcome(&mut limited).expect(0);
    assert_eq!(found.text(), expected.text());
}
