//! One of two programs that know nothing of each other but a name: puts messages into a queue, which `consumer` gets. Either may be started
//! first, and several of each.
//!
//! ```text
//! cargo run --example consumer -- jobs &
//! cargo run --example producer -- jobs 1000
//! ```

#![allow(clippy::print_stdout, reason = "an example shows its results")]

use std::error::Error;

use multiproc::Queue;
use serde::{Deserialize, Serialize};

/// What both programs understand: the same fields in the same order.
#[derive(Debug, Serialize, Deserialize)]
enum Message {
    Job {
        number: u64,
        text: String,
    },
    /// The last one of a producer.
    End {
        jobs: u64,
    },
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let parsed = match &arguments[..] {
        [name, jobs] => jobs.parse().ok().map(|jobs: u64| (name, jobs)),
        _ => None,
    };
    let Some((name, jobs)) = parsed else {
        eprintln!("usage: producer NAME JOBS");
        std::process::exit(2);
    };
    let queue = Queue::<Message>::open_or_create(name, 100)?;
    queue.persist()?; // it outlives the producer that made it
    for number in 1..=jobs {
        let text = format!("job {number} of {jobs}");
        queue.put(&Message::Job { number, text })?; // waits while 100 are waiting
    }
    queue.put(&Message::End { jobs })?;
    println!("put {jobs} jobs");
    Ok(())
}
