//! Copies a folder in all processors, with a progress bar that the workers feed through one shared value.
//!
//! ```text
//! cargo run --release --example copy_tree -- SRC DST
//! ```
//!
//! DST must not exist yet. Permissions are kept and symbolic links re-created; sockets, pipes and devices are left out and told. Exit code
//! 0; 1 if anything could not be copied; 2 for wrong arguments.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use multiproc::{Pool, Value};
use walkdir::WalkDir;

/// A worker tells its progress after so many bytes.
const STEP: u64 = 8 << 20;

/// What every worker has: the two folders, and the bytes copied so far, in shared memory.
type Context = (Vec<u8>, Vec<u8>, Value<u64>);

/// Runs in a worker. Names travel as bytes, since not every name is text.
fn copy((from, to, progress): &Context, name: Vec<u8>) -> Result<(), String> {
    let below = |folder: &[u8]| PathBuf::from(OsString::from_vec([folder, b"/", &name].concat()));
    let source = below(from);
    let copied = (|| -> Result<(), Box<dyn std::error::Error>> {
        let mut reader = File::open(&source)?;
        let mut writer = File::create_new(below(to))?;
        loop {
            let count = io::copy(&mut reader.by_ref().take(STEP), &mut writer)?;
            progress.update(|bytes| *bytes += count)?;
            if count < STEP {
                break;
            }
        }
        Ok(writer.set_permissions(reader.metadata()?.permissions())?)
    })();
    copied.map_err(|error| format!("{}: {error}", source.display()))
}

fn main() -> ExitCode {
    let arguments: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let [from, to] = arguments.as_slice() else {
        eprintln!("copy_tree: two folders are needed\nusage: copy_tree SRC DST");
        return ExitCode::from(2);
    };
    match run(from, to) {
        Ok(complaints) => {
            for why in &complaints {
                eprintln!("copy_tree: {why}");
            }
            if complaints.is_empty() {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            }
        }
        Err(error) => {
            eprintln!("copy_tree: {error}");
            ExitCode::FAILURE
        }
    }
}

/// What could not be copied.
fn run(from: &Path, to: &Path) -> Result<Vec<String>, Box<dyn std::error::Error>> {
    let pool = Pool::new()?;
    if !from.is_dir() {
        return Err(format!("{}: not a folder that can be read", from.display()).into());
    }
    // the whole list first: DST may lie inside SRC, and the bar wants a total
    let entries: Vec<_> = WalkDir::new(from).into_iter().collect();
    fs::create_dir(to).map_err(|error| format!("{}: {error}", to.display()))?;

    // folders and links at once, files later; folders stay open until their files are in
    let (mut folders, mut files, mut total, mut complaints) =
        (Vec::new(), Vec::new(), 0, Vec::new());
    for entry in entries {
        let entry = match entry {
            Ok(entry) => entry,
            Err(error) => {
                complaints.push(error.to_string());
                continue;
            }
        };
        let (kind, name) = (entry.file_type(), entry.path().strip_prefix(from)?);
        let target = to.join(name);
        if kind.is_dir() {
            if entry.depth() > 0 {
                fs::create_dir(&target)?;
            }
            folders.push((target, entry.metadata()?.permissions()));
        } else if kind.is_symlink() {
            symlink(fs::read_link(entry.path())?, target)?;
        } else if kind.is_file() {
            total += entry.metadata()?.len();
            files.push(name.as_os_str().as_bytes().to_vec());
        } else {
            complaints.push(format!(
                "{}: neither file, folder nor link: left out",
                entry.path().display()
            ));
        }
    }

    let context: Context = (
        from.as_os_str().as_bytes().to_vec(),
        to.as_os_str().as_bytes().to_vec(),
        Value::new(0)?,
    );
    let style = ProgressStyle::with_template("{wide_bar} {bytes} of {total_bytes}, {eta}")?;
    let bar = ProgressBar::new(total).with_style(style); // on standard error, if that is a terminal
    let results = thread::scope(|scope| {
        let (done, finished) = mpsc::channel::<()>();
        let (progress, bar) = (&context.2, &bar);
        scope.spawn(move || {
            while finished.recv_timeout(Duration::from_millis(100))
                == Err(RecvTimeoutError::Timeout)
            {
                bar.set_position(progress.get().unwrap_or(0));
            }
        });
        let results = pool.chunk_size(4).map_with(&context, copy, files);
        drop(done);
        results
    })?;
    bar.finish_and_clear();
    complaints.extend(results.into_iter().filter_map(Result::err));
    for (folder, permissions) in folders.into_iter().rev() {
        fs::set_permissions(folder, permissions)?;
    }
    eprintln!("{} of {total} bytes copied", context.2.get()?);
    Ok(complaints)
}
