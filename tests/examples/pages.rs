//! `fetch_pages` against a server of the test's own.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener};
use std::thread::{self, JoinHandle};

use crate::stage::{Folder, refuses, run};

/// Answers `requests` requests and ends: `/N` with N bytes, everything else with 404.
fn serve(requests: usize) -> (SocketAddr, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let server = thread::spawn(move || {
        for _ in 0..requests {
            let (stream, _) = listener.accept().unwrap();
            let mut lines = BufReader::new(&stream).lines();
            let request = lines.next().unwrap().unwrap();
            while !lines.next().unwrap().unwrap().is_empty() {}
            let size = request
                .split([' ', '/'])
                .nth(2)
                .and_then(|name| name.parse().ok());
            let (status, body) = size.map_or(("404 Not Found", 9), |size: usize| ("200 OK", size));
            let head =
                format!("HTTP/1.1 {status}\r\nContent-Length: {body}\r\nConnection: close\r\n\r\n");
            (&stream).write_all(head.as_bytes()).unwrap();
            (&stream).write_all(&vec![b'x'; body]).unwrap();
        }
    });
    (address, server)
}

#[test]
fn fetch_pages_tells_status_and_size_in_the_order_of_the_list() {
    let (address, server) = serve(12);
    let urls: Vec<String> = (0..11)
        .map(|n| format!("http://{address}/{}", n * 1000))
        .collect();
    let folder = Folder::new();
    let list = folder.write(
        "list",
        format!("{}\n\n  http://{address}/no\n", urls.join("\n")),
    );
    let found = run(
        "fetch_pages",
        [list.as_os_str(), "--workers".as_ref(), "4".as_ref()],
    )
    .expect(0);
    server.join().unwrap();
    let words: Vec<Vec<&str>> = found
        .text()
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert_eq!(words.len(), 12);
    for (n, url) in urls.iter().enumerate() {
        assert_eq!(
            words[n],
            [
                "200",
                (n * 1000).to_string().as_str(),
                "bytes",
                url.as_str()
            ]
        );
    }
    assert_eq!(words[11][..3], ["404", "9", "bytes"]);
}

#[test]
fn fetch_pages_goes_on_past_bad_addresses_and_says_so_at_the_end() {
    let closed = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let (address, server) = serve(1);
    let folder = Folder::new();
    let list = folder.write(
        "list",
        format!("nonsense\nhttp://{closed}/\nhttps://localhost/\nhttp://{address}/7\n"),
    );
    let found = run("fetch_pages", [list]).expect(1);
    server.join().unwrap();
    let lines: Vec<&str> = found.text().lines().collect();
    assert!(lines[0].starts_with("failed: nonsense: "), "{lines:?}");
    assert!(lines[1].contains("Connection refused"), "{lines:?}");
    assert!(
        lines[2].starts_with("failed: https://localhost/: "),
        "{lines:?}"
    );
    assert_eq!(lines[3], format!("200        7 bytes  http://{address}/7"));
}

#[test]
fn fetch_pages_refuses_wrong_arguments() {
    refuses("fetch_pages", &[], "FILE is missing");
    refuses("fetch_pages", &["a", "--workers", "many"], "many");
    refuses("fetch_pages", &["a", "--fast"], "--fast");
    let missing = run("fetch_pages", ["/nowhere/list"]).expect(1);
    assert!(
        missing.stderr.contains("/nowhere/list: No such file"),
        "{}",
        missing.stderr
    );
    let none = run("fetch_pages", ["/dev/null", "--workers", "0"]).expect(1);
    assert!(none.stderr.contains("workers is 0"), "{}", none.stderr);
}
