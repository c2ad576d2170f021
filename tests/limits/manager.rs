//! A manager where `/dev/shm` has no more room: its data is mapped and written in place, so a page that cannot be had would be a SIGBUS.

use multiproc::manager::Dict;
use multiproc::{Error, ErrorKind, Manager, Process};

use crate::full::one_mebibyte;
use crate::{alone_after, done, is_alone};

const SIZE: usize = 5000;

fn is_full(error: &Error) {
    assert_eq!(error.kind(), ErrorKind::OutOfMemory, "{error}");
    let text = error.to_string();
    assert!(
        text.contains("cannot") && text.contains("/dev/shm"),
        "{text}"
    );
}

/// Inserts until there is no room; how many are in.
fn fill((dict, from): (Dict<u32, Vec<u8>>, u32)) -> u32 {
    for n in from.. {
        if let Err(error) = dict.insert(n, vec![n as u8; SIZE]) {
            is_full(&error);
            return n;
        }
    }
    unreachable!("there is an end to it");
}

fn check(dict: &Dict<u32, Vec<u8>>, count: u32) {
    assert_eq!(dict.len().unwrap(), count as usize);
    for (n, value) in dict.snapshot().unwrap() {
        assert_eq!(value, vec![n as u8; SIZE]);
    }
}

#[test]
fn a_manager_that_finds_no_room_says_so_and_loses_nothing() {
    if !is_alone() {
        return alone_after(
            "manager::a_manager_that_finds_no_room_says_so_and_loses_nothing",
            one_mebibyte,
        );
    }
    let manager = Manager::new().unwrap();
    let dict = manager.new_dict().unwrap();
    let count = fill((dict.clone(), 0));
    println!("{count} values of {SIZE} bytes fill it");
    assert!(count > 20);
    check(&dict, count);
    // no other process finds more, and what has no room changes nothing
    let other = Process::spawn(fill, (dict.clone(), count)).unwrap();
    assert_eq!(other.join().unwrap(), count);
    is_full(&dict.insert(0, vec![1; 400_000]).unwrap_err());
    is_full(&Manager::new().unwrap_err());
    check(&dict, count);
    // another program's file takes the rest to the last page
    let rest = std::fs::File::create("/dev/shm/rest").unwrap();
    let mut size = 0;
    while nix::fcntl::posix_fallocate(&rest, size, 4096).is_ok() {
        size += 4096;
    }
    let mut next = count;
    for _ in 0..5 {
        let keys = dict.keys().unwrap();
        for key in keys.iter().step_by(2) {
            assert!(dict.remove(key).unwrap().is_some());
        }
        let end = fill((dict.clone(), next));
        assert!(end > next, "room that was freed is not found");
        check(&dict, keys.len() as u32 / 2 + end - next);
        next = end;
    }
    // with more room it goes on
    std::fs::remove_file("/dev/shm/rest").unwrap();
    drop(rest);
    drop((dict, manager));
    assert_eq!(std::fs::read_dir("/dev/shm").unwrap().count(), 0);
    drop(Manager::new().unwrap());
    done();
}

fn make_and_die(size: usize) {
    let dict = Manager::new().unwrap().new_dict::<u8, Vec<u8>>().unwrap();
    dict.insert(1, vec![0; size]).unwrap();
    nix::sys::signal::raise(nix::sys::signal::Signal::SIGKILL).unwrap();
}

#[test]
fn what_a_killed_process_left_of_its_manager_is_room_for_the_next() {
    if !is_alone() {
        return alone_after(
            "manager::what_a_killed_process_left_of_its_manager_is_room_for_the_next",
            one_mebibyte,
        );
    }
    // so that this process has looked already
    drop(Manager::new().unwrap());
    for _ in 0..3 {
        let other = Process::spawn(make_and_die, 300_000).unwrap();
        assert!(other.join().is_err());
    }
    drop(Manager::new().unwrap());
    done();
}
