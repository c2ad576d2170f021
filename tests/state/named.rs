//! Segments with names: who may have them, and what is left of the dead.

use std::os::unix::fs::PermissionsExt;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use multiproc::lock::RawSyncMutex;
use multiproc::{Array, ErrorKind, Value};

use crate::help::{Kid, Name, memory_files, role, say, wait_for_go};

#[test]
fn a_value_is_found_by_name_and_is_the_same_value() {
    let name = Name::new();
    let hits = Value::create(&name, 1u64).unwrap();
    let same = Value::<u64>::open(&name).unwrap();
    same.update(|hits| *hits += 1).unwrap();
    assert_eq!(hits.get().unwrap(), 2);
    let mode = std::fs::metadata(name.path()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn a_live_segment_already_exists() {
    let name = Name::new();
    let first = Value::create(&name, 1u64).unwrap();
    let error = Value::create(&name, 2u64).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{error}");
    assert_eq!(first.get().unwrap(), 1);
}

#[test]
fn the_name_goes_with_the_creator_and_the_memory_with_the_last_user() {
    let name = Name::new();
    let creator = Value::create(&name, 7u64).unwrap();
    let user = Value::<u64>::open(&name).unwrap();
    drop(creator);
    assert!(!name.exists());
    assert_eq!(user.get().unwrap(), 7);
    let error = Value::<u64>::open(&name).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
}

#[test]
fn persist_keeps_the_name_and_create_does_not_take_it() {
    let name = Name::new();
    let value = Value::create(&name, 7u64).unwrap();
    value.persist().unwrap();
    drop(value);
    let error = Value::create(&name, 8u64).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{error}");
    assert_eq!(Value::<u64>::open(&name).unwrap().get().unwrap(), 7);
    let again = Value::open_or_create(&name, || 9u64).unwrap();
    assert_eq!(again.get().unwrap(), 7);
    name.remove();
}

/// The bug of `shared_memory`: it unlinks by name, whoever's the name is by then.
#[test]
fn a_late_drop_does_not_unlink_the_next_segment_of_that_name() {
    let name = Name::new();
    let old = Value::create(&name, 1u64).unwrap();
    name.remove();
    let new = Value::create(&name, 2u64).unwrap();
    drop(old);
    assert_eq!(Value::<u64>::open(&name).unwrap().get().unwrap(), 2);
    drop(new);
}

#[test]
fn what_a_killed_creator_left_can_be_opened_and_is_taken_over_when_nobody_holds_it() {
    if let Some((_, name)) = role() {
        let value = Value::create(&name, 41u64).unwrap();
        say("ready");
        wait_for_go();
        drop(value);
        return;
    }
    let name = Name::new();
    let test =
        "named::what_a_killed_creator_left_can_be_opened_and_is_taken_over_when_nobody_holds_it";
    let mut kid = Kid::new(test, "creator", &name);
    kid.hear();
    let error = Value::create(&name, 0u64).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    kid.kill();
    assert!(name.exists());
    let survivor = Value::<u64>::open(&name).unwrap();
    assert_eq!(survivor.get().unwrap(), 41);
    let error = Value::create(&name, 0u64).unwrap_err();
    assert_eq!(
        error.kind(),
        ErrorKind::AlreadyExists,
        "held by us: {error}"
    );
    drop(survivor);
    let taken = Value::create(&name, 42u64).unwrap();
    assert_eq!(Value::<u64>::open(&name).unwrap().get().unwrap(), 42);
    drop(taken);
}

#[test]
fn a_sweep_removes_what_the_dead_left_and_nothing_else() {
    if let Some((_, name)) = role() {
        let value = Value::create(&format!("{name}.dead"), 1u64).unwrap();
        let kept = Value::create(&format!("{name}.kept"), 2u64).unwrap();
        kept.persist().unwrap();
        say("ready");
        wait_for_go();
        drop((value, kept));
        return;
    }
    let name = Name::new();
    let (dead, kept, foreign) = (
        format!("{}.dead", &*name),
        format!("{}.kept", &*name),
        format!("{}.foreign", &*name),
    );
    let live = Value::create(&name, 3u64).unwrap();
    std::fs::write(format!("/dev/shm/{foreign}"), "not ours").unwrap();
    let mut kid = Kid::new(
        "named::a_sweep_removes_what_the_dead_left_and_nothing_else",
        "creator",
        &name,
    );
    kid.hear();
    let ours = |found: &str| found.starts_with(&*name);
    assert!(
        multiproc::sweep_matching(ours).unwrap().is_empty(),
        "all are held"
    );
    kid.kill();
    assert_eq!(
        multiproc::sweep_matching(ours).unwrap(),
        std::slice::from_ref(&dead)
    );
    assert_eq!(
        Value::<u64>::open(&dead).unwrap_err().kind(),
        ErrorKind::NotFound
    );
    assert_eq!(Value::<u64>::open(&kept).unwrap().get().unwrap(), 2);
    assert_eq!(live.get().unwrap(), 3);
    for left in [kept, foreign] {
        std::fs::remove_file(format!("/dev/shm/{left}")).unwrap();
    }
}

/// The bug of `shared_memory`, its issue 35: a forked child owns, and unlinks, what its parent made.
#[test]
fn a_forked_child_neither_unlinks_nor_uses_what_it_inherited() {
    if let Some((_, name)) = role() {
        let value = Value::create(&name, 1u64).unwrap();
        let small = Value::new(5u64).unwrap();
        // SAFETY: the child calls functions of this crate and _exit; no other thread of this process holds a lock meanwhile.
        match unsafe { nix::unistd::fork() }.unwrap() {
            nix::unistd::ForkResult::Child => {
                let named = value.lock().err().map(|error| error.kind());
                let anonymous = small.get().err().map(|error| error.kind());
                let own = Value::new(6u64).and_then(|own| own.get()).ok();
                drop(value);
                drop(small);
                let all_well = named == Some(ErrorKind::Forked)
                    && anonymous == Some(ErrorKind::Forked)
                    && own == Some(6);
                // SAFETY: ends this process.
                unsafe { nix::libc::_exit(i32::from(!all_well)) };
            }
            nix::unistd::ForkResult::Parent { child } => {
                let status = nix::sys::wait::waitpid(child, None).unwrap();
                assert_eq!(status, nix::sys::wait::WaitStatus::Exited(child, 0));
            }
        }
        assert_eq!(Value::<u64>::open(&name).unwrap().get().unwrap(), 1);
        assert_eq!(small.get().unwrap(), 5);
        let other = Value::new(9u64).unwrap();
        assert_eq!((small.get().unwrap(), other.get().unwrap()), (5, 9));
        drop(value);
        say("done");
        return;
    }
    let name = Name::new();
    let test = "named::a_forked_child_neither_unlinks_nor_uses_what_it_inherited";
    let mut kid = Kid::new(test, "forks", &name);
    assert_eq!(kid.hear(), "done");
    assert!(kid.finish());
    assert!(!name.exists());
}

#[test]
fn a_wrong_type_is_an_error_that_names_both() {
    let name = Name::new();
    let _value = Value::create(&name, 1.0f64).unwrap();
    let error = Value::<u64>::open(&name).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TypeMismatch);
    assert_eq!(
        error.mismatch(),
        Some(("a value of u64 (<u8)", "a value of f64 (<f8)"))
    );
    let error = Array::<f64>::open(&name).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TypeMismatch);
    assert_eq!(
        error.mismatch(),
        Some(("an array of f64 (<f8)", "a value of f64 (<f8)"))
    );
    let error = Value::<f64, RawSyncMutex>::open_with_lock(&name).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TypeMismatch, "{error}");
    assert!(error.to_string().contains("raw_sync"), "{error}");
    let error = Value::<[u32; 2]>::open(&name).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("a type of 8 bytes (aligned to 4)"),
        "{error}"
    );
    let error = Value::<f64>::open_or_create(&name, || 0.0).map(drop);
    assert!(error.is_ok());
}

#[test]
fn the_length_of_an_array_is_part_of_open_or_create_only() {
    let name = Name::new();
    let array = Array::<u32>::create(&name, 5).unwrap();
    assert_eq!(Array::<u32>::open(&name).unwrap().len(), 5);
    let error = Array::<u32>::open_or_create(&name, 6).unwrap_err();
    assert_eq!(
        error.mismatch(),
        Some(("an array of 6 u32 (<u4)", "an array of 5 u32 (<u4)"))
    );
    assert_eq!(Array::<u32>::open_or_create(&name, 5).unwrap().len(), 5);
    drop(array);
}

#[test]
fn garbage_is_a_bad_segment_and_is_left_alone() {
    for bytes in [&b"x"[..], &[0xff; 300], &[b'a'; 5000], &[1; 256]] {
        let name = Name::new();
        std::fs::write(name.path(), bytes).unwrap();
        let error = Value::<u64>::open(&name).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::BadSegment, "{error}");
        let error = Value::create(&name, 1u64).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{error}");
        let error = Value::open_or_create(&name, || 1u64).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::BadSegment, "{error}");
        name.remove();
    }
}

#[test]
fn what_is_no_file_is_a_bad_segment_and_is_left_alone() {
    let name = Name::new();
    let mode = nix::sys::stat::Mode::S_IRWXU;
    let make: [&dyn Fn(); 4] = [
        &|| std::fs::create_dir(name.path()).unwrap(),
        &|| std::os::unix::fs::symlink("/nowhere", name.path()).unwrap(),
        &|| nix::unistd::mkfifo(&*name.path(), mode).unwrap(),
        &|| drop(std::os::unix::net::UnixListener::bind(name.path()).unwrap()),
    ];
    for (which, make) in make.into_iter().enumerate() {
        make();
        let bad = [
            Value::<u64>::open(&name).unwrap_err(),
            Value::open_or_create(&name, || 1u64).unwrap_err(),
        ];
        for error in bad {
            assert_eq!(error.kind(), ErrorKind::BadSegment, "{which}: {error}");
            assert!(error.to_string().contains("not a regular file"), "{error}");
        }
        let error = Value::create(&name, 1u64).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{which}: {error}");
        assert!(
            error
                .to_string()
                .ends_with("remove it, or choose another name")
        );
        let swept = multiproc::sweep_matching(|found| found == &*name).unwrap();
        assert!(swept.is_empty());
        if which == 0 {
            std::fs::remove_dir(name.path()).unwrap();
        } else {
            name.remove();
        }
    }
}

#[test]
fn a_segment_cut_short_or_bent_is_a_bad_segment() {
    let name = Name::new();
    let array = Array::<u64>::create(&name, 1000).unwrap();
    array.persist().unwrap();
    drop(array);
    let whole = std::fs::read(name.path()).unwrap();
    for len in [1, 100, 255, 256, 4096, whole.len() - 1] {
        std::fs::write(name.path(), &whole[..len]).unwrap();
        let error = Array::<u64>::open(&name).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::BadSegment, "{len}: {error}");
    }
    // count, data offset, total length, kind, format
    for (at, lie) in [(56, 0xff), (64, 7), (79, 0x7f), (12, 9), (8, 2)] {
        let mut bent = whole.clone();
        bent[at] = lie;
        bent[at + 1] = lie;
        std::fs::write(name.path(), bent).unwrap();
        let error = Array::<u64>::open(&name).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::BadSegment, "{at}: {error}");
    }
    // the type of the lock's own words
    let mut bent = whole.clone();
    bent[128 + 16] ^= 0x20;
    std::fs::write(name.path(), bent).unwrap();
    let error = Array::<u64>::open(&name).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::BadSegment, "{error}");
    std::fs::write(name.path(), &whole).unwrap();
    assert_eq!(Array::<u64>::open(&name).unwrap().len(), 1000);
    name.remove();
}

#[test]
fn what_a_creator_that_died_half_way_left_is_told_and_replaced() {
    if role().is_some() {
        return;
    }
    let kid = Kid::new(
        "named::what_a_creator_that_died_half_way_left_is_told_and_replaced",
        "nobody",
        "",
    );
    let dead = kid.id();
    assert!(kid.finish());
    let name = Name::new();
    let mut half = [0u8; 256];
    half[80..96].fill(7);
    half[96..100].copy_from_slice(&dead.to_le_bytes());
    half[104] = 1;
    half[112] = 1; // born
    std::fs::write(name.path(), half).unwrap();
    let error = Value::<u64>::open(&name).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::BadSegment);
    assert!(error.to_string().contains(&dead.to_string()), "{error}");
    assert_eq!(Value::create(&name, 3u64).unwrap().get().unwrap(), 3);
    // died even before it wrote who it was
    for zeros in [0, 256, 1000] {
        std::fs::write(name.path(), vec![0u8; zeros]).unwrap();
        let error = Value::<u64>::open(&name).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::BadSegment, "{error}");
        let made = Value::open_or_create(&name, || 4u64).unwrap();
        assert_eq!(made.get().unwrap(), 4);
    }
}

#[test]
fn what_is_being_made_by_a_living_process_is_waited_for_and_not_taken() {
    let name = Name::new();
    let own = std::fs::read_to_string("/proc/self/stat").unwrap();
    let started: u64 = own[own.rfind(')').unwrap() + 2..]
        .split(' ')
        .nth(19)
        .unwrap()
        .parse()
        .unwrap();
    let mut half = [0u8; 256];
    half[96..100].copy_from_slice(&std::process::id().to_le_bytes());
    half[104..112].copy_from_slice(&started.to_le_bytes());
    half[112] = 1; // born
    std::fs::write(name.path(), half).unwrap();
    let error = Value::create(&name, 1u64).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{error}");
    let error = Value::<u64>::open(&name).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::BadSegment, "{error}");
    name.remove();
}

#[test]
fn names_are_checked() {
    let long = "x".repeat(201);
    for name in ["", "/x", "a/b", "a b", "\u{e4}", ".", "..", "a\0", &long] {
        for error in [
            Value::create(name, 1u64).unwrap_err(),
            Value::<u64>::open(name).unwrap_err(),
            Value::open_or_create(name, || 1u64).unwrap_err(),
        ] {
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
        }
    }
}

#[test]
fn more_memory_than_there_is_is_an_error_and_leaves_nothing() {
    let name = Name::new();
    for len in [1 << 44, usize::MAX / 8, usize::MAX] {
        let error = Array::<u64>::create(&name, len).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::OutOfMemory, "{error}");
        assert!(!name.exists());
        let error = Array::<u64>::new(len).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::OutOfMemory, "{error}");
    }
}

#[test]
fn of_racing_creators_exactly_one_wins() {
    if let Some((_, name)) = role() {
        for round in 0..20 {
            if !wait_for_go() {
                return;
            }
            let made = Value::create(&format!("{name}-{round}"), 0u64);
            say(match &made {
                Ok(_) => "won",
                Err(error) if error.kind() == ErrorKind::AlreadyExists => "lost",
                Err(_) => "failed",
            });
            wait_for_go();
            drop(made);
            say("dropped");
        }
        return;
    }
    let name = Name::new();
    let mut kids: Vec<Kid> = (0..3)
        .map(|_| Kid::new("named::of_racing_creators_exactly_one_wins", "racer", &name))
        .collect();
    for round in 0..20 {
        kids.iter_mut().for_each(Kid::go);
        let mut said: Vec<String> = kids.iter_mut().map(Kid::hear).collect();
        said.sort();
        assert_eq!(said, ["lost", "lost", "won"], "round {round}");
        kids.iter_mut().for_each(Kid::go);
        for kid in &mut kids {
            kid.hear();
        }
        assert!(!std::path::Path::new(&format!("{}-{round}", name.path())).exists());
    }
    assert!(kids.into_iter().all(Kid::finish));
}

#[test]
fn whoever_opens_during_creation_sees_all_or_nothing() {
    let name = Name::new();
    let done = AtomicBool::new(false);
    let seen = AtomicU32::new(0);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    match Value::<[u64; 500]>::open(&name) {
                        Ok(value) => {
                            assert_eq!(value.get().unwrap(), [3; 500]);
                            seen.fetch_add(1, Ordering::Relaxed);
                        }
                        Err(error) => {
                            assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
                        }
                    }
                }
            });
        }
        let until = Instant::now() + Duration::from_secs(30);
        let mut rounds = 0;
        // on a busy machine the openers may not run for a while
        while rounds < 300 || seen.load(Ordering::Relaxed) < 20 && Instant::now() < until {
            drop(Value::create(&name, [3u64; 500]).unwrap());
            rounds += 1;
        }
        done.store(true, Ordering::Relaxed);
    });
    assert!(seen.into_inner() > 0);
}

#[test]
fn open_or_create_gives_all_comers_the_same_value() {
    for _ in 0..50 {
        let name = Name::new();
        let together = Barrier::new(4);
        let sum = std::thread::scope(|scope| {
            let all: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(|| {
                        together.wait();
                        let value = Value::open_or_create(&name, || 100u64).unwrap();
                        value.update(|sum| *sum += 1).unwrap();
                        together.wait();
                        value.get().unwrap()
                    })
                })
                .collect();
            let seen: Vec<u64> = all.into_iter().map(|one| one.join().unwrap()).collect();
            assert!(seen.iter().all(|sum| *sum == seen[0]));
            seen[0]
        });
        assert_eq!(sum, 104);
    }
}

/// `shared_memory` takes descriptor 0 for none: it would leak mapping and name.
#[test]
fn a_closed_stdin_leaks_nothing() {
    if let Some((_, name)) = role() {
        nix::unistd::close(0).unwrap();
        let before = memory_files();
        for _ in 0..10 {
            let value = Value::create(&name, [0u8; 3000]).unwrap();
            let same = Value::<[u8; 3000]>::open(&name).unwrap();
            drop((value, same));
        }
        assert_eq!(memory_files(), before);
        say(
            if std::path::Path::new(&format!("/dev/shm/{name}")).exists() {
                "left"
            } else {
                "clean"
            },
        );
        return;
    }
    let name = Name::new();
    let mut kid = Kid::new("named::a_closed_stdin_leaks_nothing", "closes", &name);
    assert_eq!(kid.hear(), "clean");
    assert!(kid.finish());
}

/// At whatever instruction the creator is killed, the next one gets the name, and nothing is left.
#[test]
fn a_creator_killed_anywhere_is_no_hindrance() {
    if let Some((_, name)) = role() {
        say("ready");
        loop {
            drop(Value::create(&name, [1u64; 100]).unwrap());
        }
    }
    let name = Name::new();
    for round in 0..25 {
        let mut kid = Kid::new(
            "named::a_creator_killed_anywhere_is_no_hindrance",
            "churns",
            &name,
        );
        kid.hear();
        // not to force an order: to die somewhere else each time
        std::thread::sleep(Duration::from_micros(137 * round));
        kid.kill();
        let next = Value::create(&name, [round; 100]).unwrap();
        let same = Value::<[u64; 100]>::open(&name).unwrap();
        assert_eq!(same.get().unwrap(), [round; 100]);
        drop((next, same));
        assert!(!name.exists());
    }
}
