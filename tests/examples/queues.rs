//! The examples around queues.

use std::io::Read;
use std::process::Stdio;

use crate::stage::{command, refuses, run};

#[test]
fn pipeline_passes_every_block_on() {
    let found = run("pipeline", [""; 0]).expect(0);
    let lines: Vec<&str> = found.text().lines().collect();
    assert_eq!(
        lines[..2],
        ["made:   200 blocks of 100000", "passed: 200 blocks"]
    );
    let (sum, expected) = lines[2]
        .strip_prefix("sum:    ")
        .and_then(|sums| sums.split_once(" of "))
        .unwrap();
    assert_eq!(sum, expected);
}

#[test]
fn producer_and_consumer_meet_under_a_name_whoever_comes_first() {
    for consumer_first in [true, false] {
        let name = format!("mp-examples-{}-{consumer_first}", std::process::id());
        let start = |name: &str, arguments: &[&str]| {
            command(name, arguments)
                .stdout(Stdio::piped())
                .spawn()
                .unwrap()
        };
        // 90 messages have room without a consumer
        let jobs = if consumer_first { "5000" } else { "90" };
        let both: Vec<_> = if consumer_first {
            vec![
                start("consumer", &[&name]),
                start("producer", &[&name, jobs]),
            ]
        } else {
            let mut producer = start("producer", &[&name, jobs]);
            producer.wait().unwrap();
            vec![start("consumer", &[&name]), producer]
        };
        let mut said = both.into_iter().map(|mut child| {
            let mut text = String::new();
            child
                .stdout
                .take()
                .unwrap()
                .read_to_string(&mut text)
                .unwrap();
            assert!(child.wait().unwrap().success());
            text
        });
        let count: u64 = jobs.parse().unwrap();
        let sum = count * (count + 1) / 2;
        let letters: usize = (1..=count)
            .map(|number| format!("job {number} of {jobs}").len())
            .sum();
        assert_eq!(
            said.next().unwrap(),
            format!("got {jobs} of {jobs} jobs: numbers {sum}, letters {letters}\n")
        );
        assert_eq!(said.next().unwrap(), format!("put {jobs} jobs\n"));
        std::fs::remove_file(format!("/dev/shm/{name}")).unwrap();
    }
}

#[test]
fn producer_and_consumer_refuse_wrong_arguments() {
    for arguments in [&[][..], &["name"], &["name", "many"]] {
        refuses("producer", arguments, "producer NAME JOBS");
    }
    refuses("consumer", &[], "consumer NAME");
}
