//! SHA-512 of every regular file below a folder, in all processors, in the format of `sha512sum`.
//!
//! ```text
//! cargo run --release --example sha512_tree -- PATH [--workers N]
//! ```
//!
//! Sorted, it prints what `find PATH -type f -print0 | xargs -0 sha512sum` prints. The folder is walked while files are being hashed, and
//! no more names are held than the pool works on, so the tree may have any size. Exit code 0; 1 if a file or folder could not be read; 2
//! for wrong arguments.

use std::cell::{Cell, RefCell};
use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, ErrorKind, IsTerminal, Read, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use lexopt::ValueExt;
use multiproc::Pool;
use sha2::{Digest, Sha512};
use walkdir::WalkDir;

const USAGE: &str = "usage: sha512_tree PATH [--workers N]";

/// What a worker sends back: the name, and the digest in hexadecimal with the length, or why there is none.
type Hashed = (Vec<u8>, Result<(String, u64), String>);

/// Runs in a worker. Names travel as bytes, since not every name is text.
fn hash(name: Vec<u8>) -> Hashed {
    let outcome = digest(Path::new(OsStr::from_bytes(&name))).map_err(|error| reason(&error));
    (name, outcome)
}

fn digest(path: &Path) -> io::Result<(String, u64)> {
    thread_local!(static BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; 256 * 1024]));
    let mut file = File::open(path)?;
    let (mut hasher, mut length) = (Sha512::new(), 0);
    BUFFER.with_borrow_mut(|buffer| {
        loop {
            match file.read(buffer) {
                Ok(0) => return Ok(()),
                Ok(count) => {
                    hasher.update(&buffer[..count]);
                    length += count as u64;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    })?;
    let mut text = String::with_capacity(128);
    for byte in hasher.finalize() {
        let _ = write!(text, "{byte:02x}");
    }
    Ok((text, length))
}

/// One line as `sha512sum` writes it: a name with a line break or a backslash is escaped, and the line then begins with a backslash.
fn line(digest: &str, name: &[u8], lines: &mut Vec<u8>) {
    if name.iter().any(|byte| b"\n\r\\".contains(byte)) {
        lines.push(b'\\');
    }
    lines.extend_from_slice(digest.as_bytes());
    lines.extend_from_slice(b"  ");
    for &byte in name {
        match byte {
            b'\n' => lines.extend_from_slice(b"\\n"),
            b'\r' => lines.extend_from_slice(b"\\r"),
            b'\\' => lines.extend_from_slice(b"\\\\"),
            _ => lines.push(byte),
        }
    }
    lines.push(b'\n');
}

/// The system's words without Rust's ` (os error 13)`.
fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or(&text).to_owned()
}

fn arguments() -> Result<(PathBuf, Option<usize>), lexopt::Error> {
    let (mut path, mut workers, mut parser) = (None::<OsString>, None, lexopt::Parser::from_env());
    while let Some(argument) = parser.next()? {
        match argument {
            lexopt::Arg::Long("workers") => workers = Some(parser.value()?.parse()?),
            lexopt::Arg::Value(value) if path.is_none() => path = Some(value),
            other => return Err(other.unexpected()),
        }
    }
    if workers == Some(0) {
        return Err("--workers must be at least 1".into());
    }
    Ok((path.ok_or("PATH is missing")?.into(), workers))
}

fn main() -> ExitCode {
    let (path, workers) = match arguments() {
        Ok(arguments) => arguments,
        Err(error) => {
            eprintln!("sha512_tree: {error}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match run(path, workers) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("sha512_tree: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(root: PathBuf, workers: Option<usize>) -> multiproc::Result<ExitCode> {
    // hashing a file twice does no harm: a worker that is killed costs nothing but time
    let builder = Pool::builder().name("sha512").retries(2);
    let pool = match workers {
        Some(count) => builder.workers(count).build()?,
        None => builder.build()?,
    };
    let bar = if io::stderr().is_terminal() {
        let style = "{spinner} {msg} files, {bytes} at {bytes_per_sec}";
        ProgressBar::no_length()
            .with_style(ProgressStyle::with_template(style).expect("a template"))
    } else {
        ProgressBar::hidden()
    };
    let complaints = Cell::new(0_u64);
    let complain = |what: &str| {
        complaints.set(complaints.get() + 1);
        bar.suspend(|| eprintln!("sha512_tree: {what}"));
    };
    let walk = WalkDir::new(&root).follow_root_links(false).into_iter();
    let names = walk.filter_map(|entry| match entry {
        Ok(entry) => entry
            .file_type()
            .is_file()
            .then(|| entry.into_path().into_os_string().into_vec()),
        Err(error) => {
            let name = error.path().unwrap_or(&root).display();
            let why = error.io_error().map_or_else(|| error.to_string(), reason);
            complain(&format!("{name}: {why}"));
            None
        }
    });

    let start = Instant::now();
    let (mut files, mut bytes) = (0_u64, 0_u64);
    let (mut lines, mut written) = (Vec::new(), start);
    let mut stdout = io::stdout().lock();
    let mut results = pool.chunk_size(8).imap_unordered(hash, names);
    loop {
        let result = results.next();
        let last = result.is_none();
        match result {
            Some(Ok((name, Ok((digest, length))))) => {
                line(&digest, &name, &mut lines);
                files += 1;
                bytes += length;
            }
            Some(Ok((name, Err(why)))) => {
                complain(&format!("{}: {why}", OsString::from_vec(name).display()));
            }
            Some(Err(error)) => complain(&error.to_string()),
            None => {}
        }
        if last || lines.len() >= 1 << 16 || written.elapsed() > Duration::from_millis(100) {
            bar.set_message(files.to_string());
            bar.set_position(bytes);
            match bar.suspend(|| stdout.write_all(&lines).and_then(|()| stdout.flush())) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::BrokenPipe => {
                    bar.finish_and_clear();
                    return Ok(ExitCode::SUCCESS); // `| head` has seen enough
                }
                Err(error) => {
                    complain(&format!("write error: {}", reason(&error)));
                    break;
                }
            }
            lines.clear();
            written = Instant::now();
        }
        if last {
            break;
        }
    }
    bar.finish_and_clear();
    let seconds = start.elapsed().as_secs_f64();
    #[expect(clippy::cast_precision_loss, reason = "a rate for the eye")]
    let rate = bytes as f64 / 1e6 / seconds;
    eprintln!("{files} files, {bytes} bytes, {seconds:.2} s, {rate:.0} MB/s");
    Ok(if complaints.get() == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
