//! Where the examples run: their binaries, a folder for each test, and what came out.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// A user who owns nothing; to try what may not be read, which root may.
const NOBODY: u32 = 65534;

/// A folder of a test's own, removed with it.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!(
            "multiproc-examples-{}-{number}",
            std::process::id()
        ));
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Writes a file below the folder, with the folders above it.
    pub(crate) fn write(&self, name: impl AsRef<Path>, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// What a program left.
pub(crate) struct Outcome {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

impl Outcome {
    pub(crate) fn text(&self) -> &str {
        str::from_utf8(&self.stdout).unwrap()
    }

    /// Lines of standard output, sorted as bytes.
    pub(crate) fn sorted(&self) -> Vec<Vec<u8>> {
        let mut lines: Vec<Vec<u8>> = self
            .stdout
            .split_inclusive(|byte| *byte == b'\n')
            .map(Vec::from)
            .collect();
        lines.sort();
        lines
    }

    /// This, if the program ended with `code`.
    pub(crate) fn expect(self, code: i32) -> Self {
        assert_eq!(
            self.code,
            Some(code),
            "{}\n{}",
            String::from_utf8_lossy(&self.stdout),
            self.stderr
        );
        self
    }
}

/// The binary of an example: cargo puts it beside the folder of this test's own.
pub(crate) fn example(name: &str) -> PathBuf {
    let own = std::env::current_exe().unwrap();
    let path = own
        .parent()
        .unwrap()
        .parent()
        .unwrap()
        .join("examples")
        .join(name);
    assert!(
        path.exists(),
        "{} is missing: run `cargo build --examples` first",
        path.display()
    );
    path
}

pub(crate) fn command<A: AsRef<OsStr>>(
    name: &str,
    arguments: impl IntoIterator<Item = A>,
) -> Command {
    let mut command = Command::new(example(name));
    command.args(arguments).stdin(Stdio::null());
    command
}

pub(crate) fn outcome(command: &mut Command) -> Outcome {
    let output = command.output().unwrap();
    Outcome {
        code: output.status.code(),
        stdout: output.stdout,
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

pub(crate) fn run<A: AsRef<OsStr>>(name: &str, arguments: impl IntoIterator<Item = A>) -> Outcome {
    outcome(&mut command(name, arguments))
}

/// Runs as a user to whom modes apply: root becomes nobody, with a copy of the program where nobody finds it.
pub(crate) fn run_unprivileged<A: AsRef<OsStr>>(
    name: &str,
    arguments: impl IntoIterator<Item = A>,
    folder: &Folder,
) -> Outcome {
    if !nix::unistd::geteuid().is_root() {
        return run(name, arguments);
    }
    let copy = folder.path().join(name);
    fs::copy(example(name), &copy).unwrap();
    let mut command = Command::new(copy);
    command
        .args(arguments)
        .stdin(Stdio::null())
        .uid(NOBODY)
        .gid(NOBODY)
        .current_dir("/");
    outcome(&mut command)
}

/// Wrong arguments: exit code 2, nothing on standard output, and the way it should be called.
pub(crate) fn refuses(name: &str, arguments: &[&str], why: &str) {
    let found = run(name, arguments).expect(2);
    assert!(found.stdout.is_empty());
    assert!(found.stderr.contains(why), "{}", found.stderr);
    assert!(
        found.stderr.contains(&format!("usage: {name} ")),
        "{}",
        found.stderr
    );
}
