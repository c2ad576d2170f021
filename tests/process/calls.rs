//! Arguments and results.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use multiproc::{Array, ErrorKind, FrozenArray, Process, Value};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use proptest::prelude::*;
use serde::{Deserialize, Serialize};

use super::{command, in_role, state_of, stay, wait_for, wait_until};

fn square(x: u64) -> u64 {
    x * x
}

struct Shapes;

impl Shapes {
    fn area((width, height): (f64, f64)) -> f64 {
        width * height
    }
}

#[test]
fn functions_methods_and_closures_without_captures_are_called() {
    assert_eq!(Process::spawn(square, 12).unwrap().join().unwrap(), 144);
    assert!(
        (Process::spawn(Shapes::area, (2.0, 4.0))
            .unwrap()
            .join()
            .unwrap()
            - 8.0)
            .abs()
            < 1e-9
    );
    let closure = Process::spawn(
        |words: Vec<String>| words.join(" "),
        vec!["a".into(), "b".into()],
    );
    assert_eq!(closure.unwrap().join().unwrap(), "a b");
    let upper = Process::spawn(Some::<String>, "hello".to_owned()).unwrap();
    assert_eq!(upper.join().unwrap().as_deref(), Some("hello"));
}

#[test]
fn it_runs_in_another_process_which_bears_its_name() {
    let look = |()| {
        let thread = std::thread::current();
        (std::process::id(), thread.name().map(str::to_owned))
    };
    let process = Process::builder().name("a name").spawn(look, ()).unwrap();
    let (pid, name) = process.join().unwrap();
    assert_eq!(pid, process.pid());
    assert_ne!(pid, std::process::id());
    assert_eq!(
        (process.name(), name.as_deref()),
        ("a name", Some("a name"))
    );
    let (one, two) = (
        Process::spawn(|()| (), ()).unwrap(),
        Process::spawn(|()| (), ()).unwrap(),
    );
    assert!(one.name().starts_with("Process-") && one.name() != two.name());
    let nested = |()| {
        let inner = Process::spawn(|()| (), ()).unwrap();
        inner.join().unwrap();
        inner.name().to_owned()
    };
    let outer = Process::spawn(nested, ()).unwrap();
    assert_eq!(outer.join().unwrap(), format!("{}:1", outer.name()));
    // letters that a thread's name cannot have, and more of them than it can have
    let odd = Process::builder()
        .name("n\0".repeat(10_000))
        .spawn(square, 3)
        .unwrap();
    assert_eq!(odd.join().unwrap(), 9);
}

#[test]
fn a_process_is_alive_until_it_has_ended_and_may_be_joined_again() {
    let gate = Value::new(0_u8).unwrap();
    let wait = |gate: Value<u8>| {
        while gate.get().unwrap() == 0 {
            std::thread::yield_now();
        }
        7
    };
    let process = Process::spawn(wait, gate.clone()).unwrap();
    assert!(process.is_alive());
    assert_eq!(process.exit_status(), None);
    let start = Instant::now();
    let error = process.join_timeout(Duration::ZERO).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
    let limit = Duration::from_millis(50);
    let error = process.join_timeout(limit).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
    assert!(start.elapsed() >= limit);
    assert!(process.is_alive());
    gate.set(1).unwrap();
    assert_eq!(process.join().unwrap(), 7);
    assert!(!process.is_alive());
    assert!(process.exit_status().unwrap().success());
    assert_eq!(process.join().unwrap(), 7);
    assert_eq!(process.join_timeout(Duration::ZERO).unwrap(), 7);
}

#[test]
fn several_threads_may_join_one_process() {
    let gate = Value::new(0_u32).unwrap();
    let wait = |gate: Value<u32>| {
        while gate.get().unwrap() == 0 {
            std::thread::yield_now();
        }
        vec![1, 2, 3]
    };
    let process = Process::spawn(wait, gate.clone()).unwrap();
    std::thread::scope(|scope| {
        let joined: Vec<_> = (0..8).map(|_| scope.spawn(|| process.join())).collect();
        gate.set(1).unwrap();
        for thread in joined {
            assert_eq!(thread.join().unwrap().unwrap(), [1, 2, 3]);
        }
    });
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Deep {
    name: String,
    children: Vec<Deep>,
    table: HashMap<u32, Option<String>>,
}

fn deep() -> impl Strategy<Value = Deep> {
    let table = || proptest::collection::hash_map(any::<u32>(), any::<Option<String>>(), 0..5);
    let leaf = (any::<String>(), table()).prop_map(|(name, table)| Deep {
        name,
        children: Vec::new(),
        table,
    });
    leaf.prop_recursive(3, 20, 4, move |inner| {
        let children = proptest::collection::vec(inner, 0..4);
        (any::<String>(), children, table()).prop_map(|(name, children, table)| Deep {
            name,
            children,
            table,
        })
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn values_go_and_come_back_as_they_were(
        deep in deep(), number: i128, bytes in proptest::collection::vec(any::<u8>(), 0..40_000)
    ) {
        let identity = |all: (Deep, i128, Vec<u8>)| all;
        let all = (deep, number, bytes);
        let process = Process::spawn(identity, all.clone()).unwrap();
        prop_assert_eq!(process.join().unwrap(), all);
    }
}

#[test]
fn arguments_and_results_may_be_of_any_size() {
    // around what goes in a message, and far beyond
    for len in [
        0,
        1_000,
        1_023,
        1_024,
        1_025,
        2_047,
        2_048,
        100_000,
        4_000_000_usize,
    ] {
        let numbers: Vec<u64> = (0..len as u64).collect();
        let process = Process::spawn(
            |mut numbers: Vec<u64>| {
                numbers.reverse();
                numbers
            },
            numbers,
        )
        .unwrap();
        let back = process.join().unwrap();
        assert!(back.iter().rev().copied().eq(0..len as u64), "{len}");
        let text = "x".repeat(len);
        let process = Process::spawn(|text: String| text + "y", text).unwrap();
        assert_eq!(process.join().unwrap().len(), len + 1);
    }
}

#[test]
fn a_result_that_nobody_joins_holds_nobody_up() {
    let process = Process::spawn(|()| vec![7_u8; 10_000_000], ()).unwrap();
    wait_until("it has ended", || !process.is_alive());
    assert!(process.exit_status().unwrap().success());
}

type Given = (Value<u64>, Array<f64>, FrozenArray<u32>);

#[test]
fn values_and_arrays_travel_both_ways() {
    let hits = Value::new(1_u64).unwrap();
    let data = Array::from_slice(&[1.0, 2.0, 3.0]).unwrap();
    let frozen = Array::from_slice(&vec![5_u32; 10_000])
        .unwrap()
        .freeze()
        .unwrap();
    let work = |(hits, data, frozen): Given| {
        hits.update(|n| *n += 1).unwrap();
        data.set(0, 10.0).unwrap();
        let sum: u32 = frozen.iter().sum();
        // made here, and gone with this process but for what goes home
        let small = Value::new(sum).unwrap();
        let large = Array::from_slice(&vec![7_u8; 100_000]).unwrap();
        (hits, small, vec![large.clone(), large])
    };
    let process = Process::spawn(work, (hits.clone(), data.clone(), frozen)).unwrap();
    let (same, small, large) = process.join().unwrap();
    assert_eq!((hits.get().unwrap(), data.get(0).unwrap()), (2, 10.0));
    same.set(9).unwrap();
    assert_eq!(hits.get().unwrap(), 9);
    assert_eq!(small.get().unwrap(), 50_000);
    large[0].set(3, 8).unwrap();
    assert_eq!((large[1].get(3).unwrap(), large[1].len()), (8, 100_000));
    // the process holds them for whoever joins again, though all handles were dropped
    drop((same, small, large));
    let (_, small, large) = process.join().unwrap();
    assert_eq!(
        (small.get().unwrap(), large[1].get(3).unwrap()),
        (50_000, 8)
    );
}

/// Stops its parent, and returns what then nobody else holds.
fn hand_back(value: Value<u64>) -> Value<u64> {
    // so that the parent has let go of what it sent
    std::thread::sleep(Duration::from_millis(50));
    let parent = multiproc::parent().unwrap().pid();
    kill(Pid::from_raw(parent.cast_signed()), Signal::SIGSTOP).unwrap();
    value
}

fn hand_on(value: Value<u64>) -> u64 {
    let process = Process::spawn(hand_back, value).unwrap();
    process.join().unwrap().get().unwrap()
}

/// What a process returns it holds until its parent does, however long that takes: whose memory it is would use it for something else.
#[test]
fn a_handle_that_goes_home_waits_for_a_parent_that_was_stopped() {
    let process = Process::spawn(hand_on, Value::new(7_u64).unwrap()).unwrap();
    let pid = process.pid();
    wait_until("it has stopped", || state_of(pid) == Some('T'));
    // so that its child could go further than it may
    std::thread::sleep(Duration::from_millis(50));
    let others: Vec<_> = (0..20_000).map(|_| Value::new(8_u64).unwrap()).collect();
    kill(Pid::from_raw(pid.cast_signed()), Signal::SIGCONT).unwrap();
    assert_eq!(process.join().unwrap(), 7);
    drop(others);
}

#[test]
fn what_there_is_no_memory_for_is_an_error() {
    const TEST: &str = "calls::what_there_is_no_memory_for_is_an_error";
    if !in_role() {
        assert_eq!(command(TEST).output().unwrap().status.code(), Some(42));
        return;
    }
    // no file may be longer, nor one in memory; what is beyond would be a signal
    let limit = |()| {
        let (_, hard) = getrlimit(Resource::RLIMIT_FSIZE).unwrap();
        setrlimit(Resource::RLIMIT_FSIZE, 1 << 20, hard).unwrap();
        vec![1_u8; 2 << 20]
    };
    let process = Process::builder().name("large").spawn(limit, ()).unwrap();
    let error = process.join().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::OutOfMemory, "{error}");
    assert!(
        error.to_string().contains("process \"large\"") && error.to_string().contains("ulimit -f"),
        "{error}"
    );
    assert_eq!(process.exit_status().unwrap().code(), Some(101));
    let argument = limit(());
    let error = Process::spawn(|bytes: Vec<u8>| bytes.len(), argument).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::OutOfMemory, "{error}");
    std::process::exit(42);
}

#[test]
fn more_handles_than_a_message_has_room_for_come_home() {
    let make = |n: u32| (0..n).map(|x| Value::new(x).unwrap()).collect::<Vec<_>>();
    let process = Process::spawn(make, 2_000).unwrap();
    let values = process.join().unwrap();
    assert!(
        values
            .iter()
            .enumerate()
            .all(|(x, value)| value.get().unwrap() == x as u32)
    );
}

/// It was held until the process had ended.
#[test]
fn an_argument_is_let_go_once_the_process_has_it() {
    let there = Value::new(0_u32).unwrap();
    let files = || {
        let links = std::fs::read_dir("/proc/self/fd").unwrap();
        links
            .filter_map(|link| std::fs::read_link(link.unwrap().path()).ok())
            .filter(|link| link.to_string_lossy().contains("multiproc-parcel"))
            .count()
    };
    let keep = |(there, _large): (Value<u32>, Vec<u8>)| stay(there);
    let process = Process::spawn(keep, (there.clone(), vec![1; 1 << 20])).unwrap();
    wait_for(&there, 1);
    // other tests send large things too
    wait_until("the file of the argument is closed", || files() == 0);
    process.kill().unwrap();
}

struct Unwilling;

impl Serialize for Unwilling {
    fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        Err(serde::ser::Error::custom("not me"))
    }
}

impl<'de> Deserialize<'de> for Unwilling {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        <()>::deserialize(deserializer).map(|()| Self)
    }
}

/// Can be written, and never be read.
#[derive(Debug, Serialize)]
struct OneWay;

impl<'de> Deserialize<'de> for OneWay {
    fn deserialize<D: serde::Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
        Err(serde::de::Error::custom("never"))
    }
}

#[test]
fn what_cannot_be_encoded_or_decoded_is_an_error_that_names_the_process() {
    let builder = || Process::builder().name("odd");
    let error = builder().spawn(|_: Unwilling| (), Unwilling).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Encode, "{error}");
    assert!(
        error.to_string().contains("argument of process \"odd\""),
        "{error}"
    );

    let process = builder().spawn(|_: OneWay| (), OneWay).unwrap();
    let error = process.join().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Decode, "{error}");
    assert!(
        error.to_string().contains("cannot decode its argument"),
        "{error}"
    );
    assert_eq!(process.exit_status().unwrap().code(), Some(101));

    let process = builder().spawn(|()| Unwilling, ()).unwrap();
    let error = process.join().map(drop).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Encode, "{error}");
    assert!(
        error.to_string().contains("cannot encode its result"),
        "{error}"
    );

    let process = builder().spawn(|()| OneWay, ()).unwrap();
    let error = process.join().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Decode, "{error}");
    assert!(
        error.to_string().contains("result of process \"odd\""),
        "{error}"
    );
    assert!(process.exit_status().unwrap().success());
}

#[test]
fn an_error_of_the_function_itself_is_a_value() {
    let parse = |text: String| text.parse::<i32>().map_err(|error| error.to_string());
    assert_eq!(
        Process::spawn(parse, "12".into()).unwrap().join().unwrap(),
        Ok(12)
    );
    assert!(
        Process::spawn(parse, "x".into())
            .unwrap()
            .join()
            .unwrap()
            .is_err()
    );
    let own = |()| -> multiproc::Result<u32> { Value::<u32>::open("multiproc-test-none")?.get() };
    let error = Process::spawn(own, ())
        .unwrap()
        .join()
        .unwrap()
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
}

#[test]
fn a_large_stack_can_be_asked_for() {
    fn deep(depth: u64) -> u64 {
        let frame = std::hint::black_box([depth; 128]);
        if depth == 0 {
            0
        } else {
            deep(frame[127] - 1) + 1
        }
    }
    let process = Process::builder()
        .stack_size(512 << 20)
        .spawn(deep, 20_000)
        .unwrap();
    assert_eq!(process.join().unwrap(), 20_000);
}
