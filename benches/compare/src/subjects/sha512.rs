//! SHA-512 of every file of a tree, the start of the pool included.

use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use multiproc::Pool;
use rayon::prelude::*;
use ring::digest;
use walkdir::WalkDir;

use super::tools::{WORKERS, checked, milliseconds, rayon_pool};
use crate::harness::{Field, Outcome, Scale, Subject, Unit, at_most};
use crate::rivals::program::Python;

pub const SUBJECTS: &[Subject] = &[Subject {
    id: "sha512-tree",
    what: "SHA-512 of 20,000 files of 1 to 16 KiB and 50 of 4 MiB, pool start included; 2 workers; hashes by ring in Rust",
    unit: Unit::Milliseconds,
    goals: &[
        at_most("multiproc", 1.05, "rayon"),
        at_most("multiproc", 1.0, "Python Pool"),
        at_most("multiproc", 1.0, "xargs -P2 sha512sum"),
    ],
    field: tree,
}];

type Digest = [u8; 64];

fn tree(scale: Scale, field: &mut Field) {
    let small = scale.of(20_000);
    let made = make(small, scale.of(50));
    let made = made.map_err(|error| error.to_string());
    let tree = || made.clone();
    field.ours("multiproc", || {
        let (root, expected) = tree()?;
        Ok(Box::new(move || {
            let start = Instant::now();
            let pool = Pool::with_workers(WORKERS)?;
            let mut folded = [0; 64];
            let names = files(&root).map(|path| path.into_os_string().into_vec());
            for hash in pool.chunk_size(8).imap_unordered(hash_named, names) {
                fold(&mut folded, &hash??);
            }
            let taken = milliseconds(start);
            checked(folded, expected)?;
            Ok(taken)
        }))
    });
    field.inside("rayon", || {
        let (root, expected) = tree()?;
        Ok(Box::new(move || {
            let start = Instant::now();
            let pool = rayon_pool()?;
            let paths: Vec<PathBuf> = files(&root).collect();
            let hashes = pool.install(|| {
                paths
                    .par_iter()
                    .map(|path| hash(path))
                    .collect::<Result<Vec<_>, _>>()
            })?;
            let mut folded = [0; 64];
            hashes.iter().for_each(|hash| fold(&mut folded, hash));
            let taken = milliseconds(start);
            checked(folded, expected)?;
            Ok(taken)
        }))
    });
    field.inside("one thread", || {
        let (root, expected) = tree()?;
        Ok(Box::new(move || {
            let start = Instant::now();
            let mut folded = [0; 64];
            for path in files(&root) {
                fold(&mut folded, &hash(&path)?);
            }
            let taken = milliseconds(start);
            checked(folded, expected)?;
            Ok(taken)
        }))
    });
    field.rival("xargs -P2 sha512sum", || {
        let (root, expected) = tree()?;
        Ok(Box::new(move || {
            let start = Instant::now();
            let script = "find \"$0\" -type f -print0 | xargs -0 -P2 -n64 sha512sum";
            let output = Command::new("sh")
                .args(["-c", script])
                .arg(&root)
                .output()?;
            let taken = milliseconds(start);
            let mut folded = [0; 64];
            for line in output.stdout.split(|byte| *byte == b'\n') {
                if let Some(digits) = line.get(..128) {
                    fold(&mut folded, &bytes_of(digits)?);
                }
            }
            checked(folded, expected)?;
            Ok(taken)
        }))
    });
    field.rival("Python Pool", || {
        let (root, expected) = tree()?;
        let digits = expected.iter().map(|byte| format!("{byte:02x}"));
        let arguments = [root.display().to_string(), digits.collect()];
        Python::with_texts("sha512_tree", &arguments)
    });
}

fn bytes_of(digits: &[u8]) -> Outcome<Vec<u8>> {
    let pairs = digits.as_chunks::<2>().0.iter();
    let bytes = pairs.map(|pair| Ok(u8::from_str_radix(std::str::from_utf8(pair)?, 16)?));
    bytes.collect()
}

fn files(root: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = WalkDir::new(root).into_iter().filter_map(Result::ok);
    entries
        .filter(|entry| entry.file_type().is_file())
        .map(walkdir::DirEntry::into_path)
}

/// Names travel as bytes, since not every name is text; a hash as a vector, since arrays of 64 have no form in serde.
fn hash_named(name: Vec<u8>) -> Result<Vec<u8>, String> {
    let path = Path::new(std::ffi::OsStr::from_bytes(&name));
    hash(path)
        .map(|hash| hash.to_vec())
        .map_err(|error| error.to_string())
}

fn hash(path: &Path) -> std::io::Result<Digest> {
    let hash = digest::digest(&digest::SHA512, &fs::read(path)?);
    Ok(hash.as_ref().try_into().expect("64 bytes"))
}

/// All hashes in one, whatever their order.
fn fold(folded: &mut Digest, hash: &[u8]) {
    folded
        .iter_mut()
        .zip(hash)
        .for_each(|(folded, byte)| *folded ^= byte);
}

/// Makes the tree, unless it is there from an earlier run; where it is, and the fold of its hashes.
fn make(small: u64, large: u64) -> Outcome<(PathBuf, Digest)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("target/tree-{small}"));
    let done = root.with_extension("done");
    if !done.exists() {
        let _ = fs::remove_dir_all(&root);
        let mut random = Random(0x9e37_79b9_7f4a_7c15);
        for index in 0..small {
            let folder = root.join(format!("s{:03}", index / 200));
            fs::create_dir_all(&folder)?;
            let length = 1024 + random.next() % (15 * 1024);
            fs::write(folder.join(format!("{index:05}")), random.bytes(length))?;
        }
        fs::create_dir_all(root.join("large"))?;
        for index in 0..large {
            fs::write(
                root.join(format!("large/{index:02}")),
                random.bytes(4 << 20),
            )?;
        }
        fs::write(&done, "")?;
    }
    let mut folded = [0; 64];
    for path in files(&root) {
        fold(&mut folded, &hash(&path)?);
    }
    Ok((root, folded))
}

/// Marsaglia's xorshift64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn bytes(&mut self, length: u64) -> Vec<u8> {
        let words = (0..length.div_ceil(8)).flat_map(|_| self.next().to_ne_bytes());
        words.take(length as usize).collect()
    }
}
