//! The sources as the rules see them: text, and code without comments and strings.

use std::fs;
use std::path::Path;

use crate::rules::floor_of;

/// A file of the repository.
pub(crate) struct Source {
    /// From the top of the repository, with `/`.
    pub(crate) path: String,
    pub(crate) text: String,
    /// The text with blanks in place of comments, strings and characters; same length, same lines.
    pub(crate) code: String,
}

impl Source {
    pub(crate) fn new(path: &str, text: &str) -> Self {
        let (path, text) = (path.to_owned(), text.to_owned());
        let code = code_of(&text);
        Self { path, text, code }
    }

    /// The folder or file under `src` it belongs to; `None` for `lib.rs`, and outside `src`.
    pub(crate) fn room(&self) -> Option<&str> {
        let below = self.path.strip_prefix("src/")?;
        let room = below.split(['/', '.']).next()?;
        let room = room.strip_suffix("_tests").unwrap_or(room);
        (room != "lib").then_some(room)
    }

    pub(crate) fn floor(&self) -> Option<usize> {
        floor_of(self.room()?)
    }

    pub(crate) fn is_test_file(&self) -> bool {
        self.path.ends_with("_tests.rs") || self.path.ends_with("/tests.rs")
    }

    /// Whether it is the file in which a room's outermost module begins.
    pub(crate) fn is_room_door(&self) -> bool {
        self.path.ends_with("/mod.rs") || self.path.matches('/').count() == 1
    }

    pub(crate) fn line_at(&self, offset: usize) -> String {
        let number = self.code[..offset].matches('\n').count() + 1;
        format!("{}:{number}", self.path)
    }

    /// Every identifier of the code, with its offset.
    pub(crate) fn words(&self) -> impl Iterator<Item = (usize, &str)> {
        let mut rest = 0;
        std::iter::from_fn(move || {
            let start = rest + self.code[rest..].find(is_word)?;
            let end = self.code[start..]
                .find(|c| !is_word(c))
                .map_or(self.code.len(), |length| start + length);
            rest = end;
            Some((start, &self.code[start..end]))
        })
    }

    pub(crate) fn places_of(&self, word: &str) -> Vec<usize> {
        self.words()
            .filter(|(_, found)| *found == word)
            .map(|(offset, _)| offset)
            .collect()
    }
}

pub(crate) fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The text with blanks in place of comments, strings and characters.
fn code_of(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut code = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let (skip, end) = match bytes[at] {
            b'/' if bytes[at..].starts_with(b"//") => (0, line_end(bytes, at)),
            b'/' if bytes[at..].starts_with(b"/*") => (0, comment_end(bytes, at)),
            b'"' => (1, string_end(bytes, at + 1)),
            b'r' if !(at > 0 && is_word(bytes[at - 1].into()) && bytes[at - 1] != b'b') => {
                match raw_string_end(bytes, at) {
                    Some(end) => (1, end),
                    None => (0, 0),
                }
            }
            b'\'' => match character_end(bytes, at) {
                Some(end) => (1, end),
                None => (0, 0),
            },
            _ => (0, 0),
        };
        if end > at {
            for byte in &mut code[at + skip..end] {
                if *byte != b'\n' {
                    *byte = b' ';
                }
            }
        }
        at = end.max(at + 1);
    }
    String::from_utf8(code).expect("blanks replace whole characters")
}

fn line_end(bytes: &[u8], at: usize) -> usize {
    bytes[at..]
        .iter()
        .position(|byte| *byte == b'\n')
        .map_or(bytes.len(), |length| at + length)
}

fn comment_end(bytes: &[u8], mut at: usize) -> usize {
    let mut depth = 0;
    while at < bytes.len() {
        match bytes.get(at..at + 2) {
            Some(b"/*") => (depth, at) = (depth + 1, at + 2),
            Some(b"*/") => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            break;
        }
    }
    at
}

fn string_end(bytes: &[u8], mut at: usize) -> usize {
    while at < bytes.len() && bytes[at] != b'"' {
        at += if bytes[at] == b'\\' { 2 } else { 1 };
    }
    (at + 1).min(bytes.len())
}

fn raw_string_end(bytes: &[u8], at: usize) -> Option<usize> {
    let hashes = bytes[at + 1..]
        .iter()
        .take_while(|byte| **byte == b'#')
        .count();
    (bytes.get(at + 1 + hashes) == Some(&b'"')).then_some(())?;
    let close: Vec<u8> = [b"\"".as_slice(), &vec![b'#'; hashes]].concat();
    let start = at + 2 + hashes;
    let length = bytes[start..]
        .windows(close.len())
        .position(|window| window == close)?;
    Some(start + length + close.len())
}

/// The end of a character; `None` for a lifetime.
fn character_end(bytes: &[u8], at: usize) -> Option<usize> {
    let rest = &bytes[at + 1..];
    let length = if rest.first() == Some(&b'\\') {
        2 + rest[2..].iter().position(|byte| *byte == b'\'')?
    } else {
        let width = str::from_utf8(&rest[..rest.len().min(4)])
            .map_or_else(|error| error.valid_up_to(), str::len);
        let first = str::from_utf8(&rest[..width]).ok()?.chars().next()?;
        first.len_utf8()
    };
    (rest.get(length) == Some(&b'\'')).then_some(at + length + 2)
}

/// All Rust files below a folder.
fn collect(top: &Path, folder: &Path, into: &mut Vec<Source>) {
    let Ok(entries) = fs::read_dir(folder) else {
        return;
    };
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    for path in paths {
        if path.is_dir() && !path.ends_with("target") {
            collect(top, &path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let name = path.strip_prefix(top).unwrap().to_str().unwrap();
            into.push(Source::new(name, &fs::read_to_string(&path).unwrap()));
        }
    }
}

pub(crate) fn sources_in(folders: &[&str]) -> Vec<Source> {
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut sources = Vec::new();
    for folder in folders {
        collect(top, &top.join(folder), &mut sources);
    }
    assert!(!sources.is_empty());
    sources
}
