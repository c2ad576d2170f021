//! The other of two programs that know nothing of each other but a name: gets what `producer` puts into a queue, until that has put its last.
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
    let [name] = &arguments[..] else {
        eprintln!("usage: consumer NAME");
        std::process::exit(2);
    };
    let queue = Queue::<Message>::open_or_create(name, 100)?;
    queue.persist()?;
    let (mut got, mut sum, mut letters) = (0_u64, 0, 0);
    loop {
        // a lease: should this process be killed at a job, another consumer gets it
        let message = queue.lease()?;
        let ends = match &*message {
            Message::Job { number, text } => {
                got += 1;
                sum += number;
                letters += text.len();
                None
            }
            Message::End { jobs } => Some(*jobs),
        };
        message.ack()?;
        if let Some(jobs) = ends {
            println!("got {got} of {jobs} jobs: numbers {sum}, letters {letters}");
            return Ok(());
        }
    }
}
