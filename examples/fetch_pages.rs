//! Fetches web pages in worker processes and prints status and size of each, in the order of the list.
//!
//! ```text
//! cargo run --example fetch_pages -- FILE [--workers N]
//! ```
//!
//! FILE has one `http://` address a line. Exit code 0; 1 if a page could not be fetched; 2 for wrong arguments.

#![allow(clippy::print_stdout, reason = "an example shows its results")]

use std::process::ExitCode;

use lexopt::ValueExt;
use multiproc::Pool;

/// Runs in a worker: status and size of a page, or why there is none.
fn fetch(url: String) -> Result<(u16, usize), String> {
    match minreq::get(url).with_timeout(20).send() {
        Ok(page) => Ok((page.status_code, page.as_bytes().len())),
        Err(error) => Err(error.to_string()),
    }
}

fn main() -> ExitCode {
    let (file, workers) = match arguments() {
        Ok(arguments) => arguments,
        Err(error) => {
            eprintln!("fetch_pages: {error}\nusage: fetch_pages FILE [--workers N]");
            return ExitCode::from(2);
        }
    };
    run(&file, workers).unwrap_or_else(|error| {
        eprintln!("fetch_pages: {error}");
        ExitCode::FAILURE
    })
}

fn run(file: &str, workers: usize) -> Result<ExitCode, Box<dyn std::error::Error>> {
    let list = std::fs::read_to_string(file).map_err(|error| format!("{file}: {error}"))?;
    let urls = || list.lines().map(str::trim).filter(|url| !url.is_empty());
    let pool = Pool::with_workers(workers)?;
    let mut code = ExitCode::SUCCESS;
    for (url, page) in urls().zip(pool.imap(fetch, urls().map(str::to_owned))) {
        // the outer error is the worker's: a panic, a death; the inner one is the page's
        match page.map_err(|error| error.to_string()).flatten() {
            Ok((status, bytes)) => println!("{status} {bytes:>8} bytes  {url}"),
            Err(why) => {
                println!("failed: {url}: {why}");
                code = ExitCode::FAILURE;
            }
        }
    }
    Ok(code)
}

fn arguments() -> Result<(String, usize), lexopt::Error> {
    let (mut file, mut workers, mut parser) = (None, 3, lexopt::Parser::from_env());
    while let Some(argument) = parser.next()? {
        match argument {
            lexopt::Arg::Long("workers") => workers = parser.value()?.parse()?,
            lexopt::Arg::Value(value) if file.is_none() => file = Some(value.string()?),
            other => return Err(other.unexpected()),
        }
    }
    Ok((file.ok_or("FILE is missing")?, workers))
}
