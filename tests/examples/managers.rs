//! `scoreboard` and `word_count`: on one machine, and through a server.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

#[cfg(feature = "redis")]
#[path = "../support/redis.rs"]
mod redis;

use crate::stage::{Folder, refuses, run, run_unprivileged};

const BOARD: &str = "best: 93.25\nwins: [2, 0, 1]\nplayer 0: 71.5\nplayer 2: 93.25\nplayer 0: 88\n";

#[test]
fn scoreboard_shows_what_the_other_process_did() {
    assert_eq!(run("scoreboard", [""; 0]).expect(0).text(), BOARD);
}

/// Files with words that are counted here as they are written; what `word_count --top 1000` says of them.
fn library(folder: &Folder) -> String {
    let mut counts = HashMap::<String, usize>::new();
    for number in 0..50 {
        let mut text = String::new();
        for word in 0..number * 3 {
            let word = format!("w{}", word % (number + 1));
            text += &word;
            text += ["\n", ", ", " -- ", "\t(", "."][text.len() % 5];
            *counts.entry(word).or_default() += 1;
        }
        folder.write(format!("books/{}/{number}", number % 4), text);
    }
    let odd = folder.write(
        OsStr::from_bytes(b"books/not \xff text"),
        b"w1 caf\xc3\xa9 w\xff1",
    );
    assert!(odd.exists());
    for (word, count) in [("w1", 1), ("caf\u{e9}", 1), ("w", 1), ("1", 1)] {
        *counts.entry(word.into()).or_default() += count;
    }
    folder.write("books/empty", "");
    let mut sorted: Vec<_> = counts.iter().collect();
    sorted.sort_by_key(|(word, count)| (usize::MAX - *count, *word));
    let lines = sorted
        .iter()
        .map(|(word, count)| format!("{count:8} {word}\n"));
    let (all, different) = (counts.values().sum::<usize>(), counts.len());
    lines.collect::<String>() + &format!("{all:8} words, {different} different, in 52 files\n")
}

#[test]
fn word_count_finds_every_word_as_often_as_it_was_written() {
    let folder = Folder::new();
    let expected = library(&folder);
    let books = folder.path().join("books");
    for workers in ["1", "3"] {
        let arguments = [books.as_os_str(), "--workers".as_ref(), workers.as_ref()];
        let more = ["--top", "1000", "--check"].map(OsStr::new);
        let found = run("word_count", arguments.into_iter().chain(more)).expect(0);
        assert_eq!(
            (found.text(), found.stderr.as_str()),
            (expected.as_str(), "")
        );
    }
}

#[test]
fn word_count_tells_what_it_could_not_read_and_counts_the_rest() {
    let folder = Folder::new();
    folder.write("in/a", "one two two");
    let locked = folder.write("in/locked", "three");
    fs::set_permissions(locked, Permissions::from_mode(0o000)).unwrap();
    let found = run_unprivileged("word_count", [folder.path().join("in")], &folder).expect(1);
    assert!(
        found.stderr.contains("/in/locked: Permission denied"),
        "{}",
        found.stderr
    );
    let expected = "       2 two\n       1 one\n       3 words, 2 different, in 1 files\n";
    assert_eq!(found.text(), expected);
}

#[test]
fn word_count_refuses_wrong_arguments() {
    refuses("word_count", &[], "PATH is missing");
    refuses("word_count", &["a", "b"], "unexpected argument \"b\"");
    refuses("word_count", &["a", "--workers", "0"], "at least 1");
    let missing = run("word_count", [Path::new("/nowhere")]).expect(1);
    assert!(
        missing.stderr.contains("/nowhere: No such file"),
        "{}",
        missing.stderr
    );
}

#[cfg(feature = "redis")]
mod on_a_server {
    use std::process::Stdio;

    use super::redis::RedisServer;
    use super::{BOARD, library};
    use crate::stage::{Folder, command, outcome};

    #[test]
    fn scoreboard_shows_what_the_other_process_did() {
        let server = RedisServer::start();
        let mut scoreboard = command("scoreboard", [""; 0]);
        let found = outcome(scoreboard.env("MULTIPROC_URL", server.url())).expect(0);
        assert_eq!(found.text(), BOARD);
    }

    #[test]
    fn word_count_counts_by_agents_what_it_counts_alone() {
        let server = RedisServer::start();
        let url = format!("{}#words", server.url());
        let agent = || {
            let mut agent = command("word_count", [""; 0]);
            agent
                .env("MULTIPROC_WORKER", &url)
                .env("MULTIPROC_WORKERS", "1")
                .stdout(Stdio::piped())
                .stderr(Stdio::piped());
            agent.spawn().unwrap()
        };
        let agents = [agent(), agent()];
        let folder = Folder::new();
        let expected = library(&folder);
        let mut counting = command("word_count", ["books", "--top", "1000", "--check"]);
        let counting = counting.current_dir(folder.path());
        let found = outcome(counting.env("MULTIPROC_URL", &url)).expect(0);
        assert_eq!(
            (found.text(), found.stderr.as_str()),
            (expected.as_str(), "")
        );
        // they have joined, and went when the work was done; nothing of the program but its functions ran in them
        for agent in agents {
            let ended = agent.wait_with_output().unwrap();
            assert!(ended.status.success(), "{ended:?}");
            assert!(ended.stdout.is_empty(), "{ended:?}");
        }
    }
}
