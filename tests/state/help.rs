//! Names that check themselves, and children that are this very test in another role.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

pub(crate) const ROLE: &str = "MULTIPROC_TEST_ROLE";
pub(crate) const NAME: &str = "MULTIPROC_TEST_NAME";

/// A segment name of this test alone. At drop nothing may be left under it.
pub(crate) struct Name(String);

impl Name {
    pub(crate) fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        Self(format!("mp-test-{}-{count}", std::process::id()))
    }

    pub(crate) fn path(&self) -> String {
        format!("/dev/shm/{}", self.0)
    }

    pub(crate) fn exists(&self) -> bool {
        std::path::Path::new(&self.path()).exists()
    }

    pub(crate) fn remove(&self) {
        std::fs::remove_file(self.path()).unwrap();
    }
}

impl std::ops::Deref for Name {
    type Target = str;
    fn deref(&self) -> &str {
        &self.0
    }
}

impl Drop for Name {
    fn drop(&mut self) {
        let left = std::fs::remove_file(self.path()).is_ok();
        assert!(
            !left || std::thread::panicking(),
            "{} was left in /dev/shm",
            self.0
        );
    }
}

/// The role this process plays, and the name it was given: `None` in the test itself.
pub(crate) fn role() -> Option<(String, String)> {
    Some((std::env::var(ROLE).ok()?, std::env::var(NAME).ok()?))
}

/// Whether it is that of a child, rather than none or that of a test in a process of its own.
fn role_of_child(role: Option<(String, String)>) -> bool {
    role.is_some_and(|(role, _)| role != "alone")
}

/// Tells the parent something.
pub(crate) fn say(what: &str) {
    // not println!, which the harness would capture
    let mut out = std::io::stdout();
    writeln!(out, "@{what}").unwrap();
    out.flush().unwrap();
}

/// Waits for a line of the parent; false when it has gone.
pub(crate) fn wait_for_go() -> bool {
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).unwrap() > 0
}

/// A child process, killed at drop.
pub(crate) struct Kid {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

impl Kid {
    /// Runs the test `test` (its whole path) of this binary in `role`.
    pub(crate) fn new(test: &str, role: &str, name: &str) -> Self {
        Self::under(&[], test, role, name)
    }

    /// The same, started by the command `words`.
    pub(crate) fn under(words: &[&str], test: &str, role: &str, name: &str) -> Self {
        let is_child = role_of_child(self::role());
        assert!(!is_child, "a child has no children");
        let own = std::env::current_exe().unwrap();
        let mut words: Vec<_> = words.iter().map(std::ffi::OsStr::new).collect();
        words.push(own.as_os_str());
        let mut child = Command::new(words[0])
            .args(&words[1..])
            .args([test, "--exact", "--nocapture", "--test-threads=1"])
            .env(ROLE, role)
            .env(NAME, name)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let to = child.stdin.take().unwrap();
        let from = BufReader::new(child.stdout.take().unwrap());
        Self { child, to, from }
    }

    /// The next thing it says.
    pub(crate) fn hear(&mut self) -> String {
        let mut line = String::new();
        loop {
            line.clear();
            assert!(self.from.read_line(&mut line).unwrap() > 0, "child ended");
            // the harness writes "test name ... " before it, on the same line
            if let Some((_, said)) = line.split_once('@') {
                return said.trim_end().to_owned();
            }
        }
    }

    pub(crate) fn go(&mut self) {
        self.to.write_all(b"go\n").unwrap();
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// SIGKILL, and gone when this returns.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Lets it run to its end.
    pub(crate) fn finish(mut self) -> bool {
        self.child.wait().unwrap().success()
    }
}

impl Drop for Kid {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Descriptors of this process that lead to memory files.
pub(crate) fn memory_files() -> usize {
    std::fs::read_dir("/proc/self/fd")
        .unwrap()
        .filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok())
        .filter(|link| {
            let link = link.to_string_lossy();
            link.contains("memfd:") || link.contains("/dev/shm/")
        })
        .count()
}
