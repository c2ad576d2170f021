//! A `/dev/shm` that is really full: a small one of our own, in a mount namespace.

use std::io::{self, Write};

use multiproc::{Array, Error, ErrorKind, Pool, Value};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use crate::left::name;
use crate::{alone_after, done, is_alone};

const NONE: Option<&str> = None;

/// A `/dev/shm` with `options`, seen by this process and its children alone. Who is not root is root in a user namespace for it.
fn own_shm(options: &str) -> io::Result<()> {
    let (user, group) = (nix::unistd::geteuid(), nix::unistd::getegid());
    if user.is_root() {
        unshare(CloneFlags::CLONE_NEWNS)?;
    } else {
        unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWUSER)?;
        std::fs::write("/proc/self/setgroups", "deny")?;
        map_to_root("/proc/self/uid_map", user.as_raw())?;
        map_to_root("/proc/self/gid_map", group.as_raw())?;
    }
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(NONE, "/", NONE, private, NONE)?;
    let kind = Some("tmpfs");
    mount(kind, "/dev/shm", kind, MsFlags::empty(), Some(options))?;
    Ok(())
}

/// Without an allocation, since it runs between fork and exec.
fn map_to_root(file: &str, id: u32) -> io::Result<()> {
    let mut line = [0_u8; 32];
    let mut rest = &mut line[..];
    write!(rest, "0 {id} 1")?;
    let len = 32 - rest.len();
    std::fs::write(file, &line[..len])
}

pub(crate) fn one_mebibyte() -> io::Result<()> {
    own_shm("size=1m")
}

fn six_files() -> io::Result<()> {
    // one of them is the directory
    own_shm("size=1m,nr_inodes=7")
}

fn files() -> usize {
    std::fs::read_dir("/dev/shm").unwrap().count()
}

/// The error says what was tried, what was found and what to do.
fn is_clear(error: &Error, object: &str) {
    assert_eq!(error.kind(), ErrorKind::OutOfMemory, "{error}");
    let text = error.to_string();
    assert!(
        text.starts_with(&format!("cannot create segment \"{object}\"")),
        "{text}"
    );
    assert!(
        text.contains("/dev/shm") && text.contains("enlarge"),
        "{text}"
    );
}

/// Creates arrays of `len` bytes until there is room for no more.
fn fill(len: usize) -> Vec<Array<u8>> {
    let mut arrays = Vec::new();
    loop {
        let (next, before) = (name(&format!("{len}-{}", arrays.len())), files());
        match Array::create(&next, len) {
            Ok(array) => arrays.push(array),
            Err(error) => {
                is_clear(&error, &next);
                assert_eq!(files(), before, "something half-made was left");
                return arrays;
            }
        }
    }
}

fn count(array: &Array<u8>) {
    array
        .update(|items| items.iter_mut().for_each(|item| *item += 1))
        .unwrap();
}

#[test]
fn a_full_shm_is_an_error_and_what_was_there_works_on() {
    if !is_alone() {
        return alone_after(
            "full::a_full_shm_is_an_error_and_what_was_there_works_on",
            one_mebibyte,
        );
    }
    let value = Value::create(&name("value"), 7_u64).unwrap();
    let mut arrays: Vec<_> = [300_000, 70_000, 5_000, 1]
        .into_iter()
        .flat_map(fill)
        .collect();
    println!("{} arrays fill it", arrays.len());
    assert!(arrays.len() > 8);
    for round in 0..3 {
        is_clear(&Value::create(&name("no"), 1_u8).unwrap_err(), &name("no"));
        is_clear(
            &Array::<u64>::create(&name("no"), 0).unwrap_err(),
            &name("no"),
        );
        is_clear(
            &Value::open_or_create(&name("no"), || 1_u8).unwrap_err(),
            &name("no"),
        );
        assert_eq!(
            Value::open_or_create(&name("value"), || 1_u64)
                .unwrap()
                .get()
                .unwrap(),
            7 + round
        );
        let error = Value::create(&name("value"), 1_u64).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{error}");
        value.update(|value| *value += 1).unwrap();
        arrays.iter().for_each(count);
        for array in &arrays {
            let sum = array
                .to_vec()
                .unwrap()
                .iter()
                .map(|item| u64::from(*item))
                .sum::<u64>();
            assert_eq!(sum, array.len() as u64 * (round + 1));
        }
        // what lies there can be opened, by another process, too
        let opened = Value::<u64>::open(&name("value")).unwrap();
        assert_eq!(opened.get().unwrap(), 8 + round);
    }
    let dropped = arrays.pop().unwrap();
    drop(dropped);
    let again = Value::create(&name("again"), 1_u8).unwrap();
    assert_eq!(again.get().unwrap(), 1);
    drop((again, arrays, value));
    assert_eq!(files(), 0);
    done();
}

#[test]
fn a_shm_that_takes_no_more_files_is_an_error() {
    if !is_alone() {
        return alone_after(
            "full::a_shm_that_takes_no_more_files_is_an_error",
            six_files,
        );
    }
    let mut arrays = fill(10);
    assert_eq!(arrays.len(), 6);
    for _ in 0..3 {
        is_clear(&Value::create(&name("no"), 1_u8).unwrap_err(), &name("no"));
        is_clear(
            &Value::open_or_create(&name("no"), || 1_u8).unwrap_err(),
            &name("no"),
        );
        arrays.iter().for_each(count);
        arrays.pop();
        arrays.push(Array::create(&name("next"), 10).unwrap());
    }
    drop(arrays);
    assert_eq!(files(), 0);
    done();
}

/// A program that was killed with a large segment could not start again: there was no room for the next one of that name.
#[test]
fn what_the_dead_one_of_that_name_takes_is_room_for_the_next() {
    if !is_alone() {
        return alone_after(
            "full::what_the_dead_one_of_that_name_takes_is_room_for_the_next",
            one_mebibyte,
        );
    }
    let (jobs, path) = (name("jobs"), format!("/dev/shm/{}", name("jobs")));
    let array = Array::<u8>::create(&jobs, 700_000).unwrap();
    let error = Array::<u8>::create(&jobs, 700_000).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{error}");
    // a whole segment that nobody holds is what a killed creator leaves
    let whole = std::fs::read(&path).unwrap();
    drop(array);
    std::fs::write(&path, &whole).unwrap();
    let array = Array::<u8>::create(&jobs, 700_000).unwrap();
    drop(array);
    std::fs::write(&path, &whole).unwrap();
    let array = Array::<u8>::open_or_create(&jobs, 700_000).unwrap();
    assert_eq!(array.len(), 700_000);
    drop(array);
    std::fs::write(&path, b"not ours").unwrap();
    let _full: Vec<_> = [300_000, 5_000, 1].into_iter().flat_map(fill).collect();
    let error = Array::<u8>::create(&jobs, 700_000).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{error}");
    assert_eq!(std::fs::read(&path).unwrap(), b"not ours");
    done();
}

/// What a copying program leaves of a segment of zeros: the file has its length, but no memory. The first touch of a page was a SIGBUS.
#[test]
fn a_segment_with_holes_is_opened_whole_or_not_at_all() {
    if !is_alone() {
        return alone_after(
            "full::a_segment_with_holes_is_opened_whole_or_not_at_all",
            one_mebibyte,
        );
    }
    let (holes, path) = (name("holes"), format!("/dev/shm/{}", name("holes")));
    let array = Array::<u8>::create(&holes, 300_000).unwrap();
    let whole = std::fs::read(&path).unwrap();
    drop(array);
    let file = std::fs::File::create(&path).unwrap();
    (&file).write_all(&whole[..4096]).unwrap();
    file.set_len(whole.len() as u64).unwrap();
    drop(file);
    let mut full: Vec<_> = [300_000, 5_000, 1].into_iter().flat_map(fill).collect();
    let error = Array::<u8>::open(&holes).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::OutOfMemory, "{error}");
    assert!(error.to_string().contains("enlarge /dev/shm"), "{error}");
    full.remove(0);
    let array = Array::<u8>::open(&holes).unwrap();
    full.extend([299_999, 4_999, 2].into_iter().flat_map(fill));
    count(&array);
    assert!(array.to_vec().unwrap().iter().all(|item| *item == 1));
    done();
}

/// They lie in memory files of their own, which no mount bounds.
#[test]
fn what_has_no_name_needs_no_room_in_shm() {
    if !is_alone() {
        return alone_after("full::what_has_no_name_needs_no_room_in_shm", one_mebibyte);
    }
    let _full: Vec<_> = [300_000, 5_000, 1].into_iter().flat_map(fill).collect();
    let pool = Pool::with_workers(2).unwrap();
    let total = Value::new(0_u64).unwrap();
    let array = Array::<u8>::new(3_000_000).unwrap();
    let context = (total.clone(), array.clone());
    pool.map_with(
        &context,
        |(total, array), x: u64| {
            array.set(x as usize, 1).unwrap();
            total.update(|total| *total += x).unwrap();
        },
        0..100,
    )
    .unwrap();
    assert_eq!(total.get().unwrap(), 4950);
    assert!(array.to_vec().unwrap()[..100].iter().all(|item| *item == 1));
    let large = pool.apply(|len: usize| vec![1_u8; len], 3_000_000).unwrap();
    assert_eq!(large.len(), 3_000_000);
    done();
}

/// Between the look at the room and the reservation another may have taken it.
#[test]
fn creators_that_race_for_the_last_room_get_an_error_or_all_of_it() {
    if !is_alone() {
        return alone_after(
            "full::creators_that_race_for_the_last_room_get_an_error_or_all_of_it",
            one_mebibyte,
        );
    }
    let (mut made, mut refused) = (0, 0);
    std::thread::scope(|scope| {
        let racers: Vec<_> = (0..4_usize)
            .map(|racer| {
                scope.spawn(move || {
                    let (mut made, mut refused) = (0, 0);
                    for round in 0..400_usize {
                        let next = name(&format!("race-{racer}"));
                        let len = (racer + 1) * 100_000 + round * 997 % 90_000;
                        match Array::<u8>::create(&next, len) {
                            Ok(array) => {
                                count(&array);
                                made += 1;
                            }
                            Err(error) => {
                                is_clear(&error, &next);
                                refused += 1;
                            }
                        }
                    }
                    (made, refused)
                })
            })
            .collect();
        for racer in racers {
            let (more, less) = racer.join().unwrap();
            (made, refused) = (made + more, refused + less);
        }
    });
    println!("{made} made, {refused} refused");
    assert!(made > 0 && refused > 0);
    assert_eq!(files(), 0);
    done();
}
