//! Changes of a manager's objects, growth of its data, and the making, opening and leaving of its directory, cut at each instruction.
//!
//! A forked child cannot use what its parent has open, so a process of its own keeps each manager alive, and the two open it by turns.

use std::cell::RefCell;
use std::mem::ManuallyDrop;
use std::path::PathBuf;

use multiproc::manager::{Dict, List};
use multiproc::{Manager, sweep};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use crate::alone;
use crate::help::{Kid, role, say, wait_for_go};
use crate::tracer::{Stepped, cut_everywhere, stepped, stride};

/// A manager's handle, on its way from the process that keeps it.
#[derive(Clone)]
struct Handle(Vec<u8>);

impl Handle {
    fn of(manager: &Manager) -> Self {
        Self(postcard::to_allocvec(manager).unwrap())
    }

    /// The manager, if it is there.
    fn find(&self) -> Option<Manager> {
        postcard::from_bytes(&self.0).ok()
    }

    fn open(&self) -> Manager {
        self.find().unwrap()
    }

    fn to_text(&self) -> String {
        let digits = self.0.iter().flat_map(|byte| [byte >> 4, byte & 15]);
        digits
            .filter_map(|digit| char::from_digit(digit.into(), 16))
            .collect()
    }

    fn from_text(text: &str) -> Self {
        let digits = text.as_bytes().chunks(2);
        let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16);
        Self(digits.map(|pair| byte(pair).unwrap()).collect())
    }
}

fn accounts(manager: &Manager) -> (Dict<String, i64>, Dict<String, i64>, List<u64>) {
    (
        manager.dict("a").unwrap(),
        manager.dict("b").unwrap(),
        manager.list("list").unwrap(),
    )
}

/// Pages of values in `fill`, one after the other, until the data file has grown; how many that took.
fn fill(manager: &Manager, most: usize) -> usize {
    let pages = manager.dict::<u32, Vec<u8>>("fill").unwrap();
    let length = || std::fs::metadata(data_of(manager)).unwrap().len();
    let before = length();
    for n in 0..most {
        pages.insert(n as u32, vec![n as u8; 2000]).unwrap();
        if length() > before {
            return n + 1;
        }
    }
    most
}

/// The data file: a manager's `Debug` says where it is.
fn data_of(manager: &Manager) -> PathBuf {
    let said = format!("{manager:?}");
    let at = said.find('/').unwrap();
    PathBuf::from(said[at..].trim_end_matches(')')).join("data.mdb")
}

/// A manager with something in it, and so many pages.
fn made(pages: usize) -> (Manager, usize) {
    let manager = Manager::new().unwrap();
    let (a, b, list) = accounts(&manager);
    a.insert("x".into(), 100).unwrap();
    b.insert("x".into(), 0).unwrap();
    list.extend([1, 2, 3]).unwrap();
    let filled = fill(&manager, pages);
    (manager, filled)
}

/// What a process of its own does: makes a manager, and keeps it until it is told to make the next.
fn keep_managers(role: &str) {
    // as many pages as just fit
    let pages = match role {
        "nearly full" => made(usize::MAX).1 - 1,
        _ => 0,
    };
    while wait_for_go() {
        let (manager, filled) = made(pages);
        assert_eq!(filled, pages);
        say(&Handle::of(&manager).to_text());
        let released = wait_for_go();
        drop(manager);
        if !released {
            return;
        }
        say("dropped");
    }
}

/// The process that keeps managers.
struct Keeper {
    kid: RefCell<Kid>,
    has: RefCell<bool>,
}

impl Keeper {
    fn next(&self) -> Handle {
        self.drop_it();
        let mut kid = self.kid.borrow_mut();
        kid.go();
        *self.has.borrow_mut() = true;
        Handle::from_text(&kid.hear())
    }

    /// The keeper's own handle goes.
    fn drop_it(&self) {
        if std::mem::take(&mut *self.has.borrow_mut()) {
            let mut kid = self.kid.borrow_mut();
            kid.go();
            assert_eq!(kid.hear(), "dropped");
        }
    }
}

/// Runs `body` with a process that keeps managers; the whole in a process and, for root, with a `/dev/shm` of its own.
fn with_keeper(test: &str, kind: &str, body: impl FnOnce(&Keeper)) {
    match role() {
        Some((role, _)) if role != "alone" => return keep_managers(&role),
        _ => {}
    }
    alone(test, || {
        let kid = Kid::new(test, kind, "");
        body(&Keeper {
            kid: RefCell::new(kid),
            has: RefCell::new(false),
        });
    });
}

/// What must hold of the objects whatever became of the one who was killed; then others go on.
fn look(manager: &Manager) -> (i64, Vec<u64>) {
    let (a, b, list) = accounts(manager);
    let (x, y) = (a.get("x").unwrap().unwrap(), b.get("x").unwrap().unwrap());
    assert_eq!(x + y, 100, "half a batch");
    let items = list.to_vec().unwrap();
    a.insert("next".into(), 1).unwrap();
    list.push(9).unwrap();
    assert_eq!(list.pop().unwrap(), Some(9));
    for (n, page) in manager
        .dict::<u32, Vec<u8>>("fill")
        .unwrap()
        .snapshot()
        .unwrap()
    {
        assert_eq!(page, vec![n as u8; 2000]);
    }
    (y, items)
}

/// Kills who does `operation` at each instruction. `is_done` says of what is found then whether it was done.
fn kill_everywhere(
    test: &str,
    kind: &str,
    stride: usize,
    operation: impl Fn(&Manager),
    is_done: impl Fn(&Manager, i64, Vec<u64>) -> bool,
) {
    with_keeper(test, kind, |keeper| {
        let (mut done, mut not) = (0, 0);
        let (cuts, length) = cut_everywhere(
            stride,
            || keeper.next(),
            |handle| {
                let manager = handle.open();
                // it has read: it has a place among the readers
                assert_eq!(look(&manager).0, 0);
                manager
            },
            |manager| operation(manager),
            |handle, child| {
                child.kill();
                let manager = handle.open();
                let (moved, items) = look(&manager);
                let count = if is_done(&manager, moved, items) {
                    &mut done
                } else {
                    &mut not
                };
                *count += 1;
            },
        );
        say(&format!(
            "{cuts} kills in {length} instructions ({} stepped): {not} before the commit, {done} after",
            stepped()
        ));
        assert!(done > 0 && not > 0);
    });
}

#[test]
fn a_process_killed_at_any_instruction_of_an_insert_has_inserted_or_not() {
    kill_everywhere(
        "manager::a_process_killed_at_any_instruction_of_an_insert_has_inserted_or_not",
        "small",
        stride(9973, 307),
        |manager| {
            accounts(manager).0.insert("new".into(), 7).unwrap();
        },
        |manager, _, _| match accounts(manager).0.get("new").unwrap() {
            None => false,
            Some(new) => {
                assert_eq!(new, 7);
                true
            }
        },
    );
}

/// LMDB stored the number of a commit before the root of its data, where a compiler had put it so: who was killed between the two, one instruction
/// in some thousands, left the newest number with the root of the commit before the last, whose pages the next writers then used again.
#[test]
fn a_process_killed_at_any_instruction_of_the_end_of_a_commit_leaves_all_commits_before_it() {
    let test = "manager::a_process_killed_at_any_instruction_of_the_end_of_a_commit_leaves_all_commits_before_it";
    with_keeper(test, "small", |keeper| {
        let before = |handle: &Handle| {
            let manager = handle.open();
            let (a, _, _) = accounts(&manager);
            // two commits, so that each meta page is one of this test's
            a.insert("first".into(), 1).unwrap();
            a.insert("second".into(), 2).unwrap();
            a
        };
        let third = |a: &Dict<String, i64>| {
            a.insert("third".into(), 3).unwrap();
        };
        let handle = keeper.next();
        let child = Stepped::fork(|| before(&handle), third);
        let (calls, length) = child.survey(|| false);
        child.kill();
        let mut cuts = 0;
        // whether the third was there after so many instructions
        let mut cut = |count: usize| {
            cuts += 1;
            let handle = keeper.next();
            let child = Stepped::fork(|| before(&handle), third);
            child.run(count, &calls, || false);
            child.kill();
            let manager = handle.open();
            look(&manager);
            let (a, b, _) = accounts(&manager);
            for n in 0..20 {
                b.insert(format!("more {n}"), n).unwrap();
            }
            let get = |key: &str| a.get(key).unwrap();
            assert_eq!((get("first"), get("second")), (Some(1), Some(2)), "{count}");
            assert!(get("third").is_none_or(|third| third == 3));
            get("third").is_some()
        };
        let (mut not, mut done) = (0, length);
        while done - not > 1 {
            let middle = usize::midpoint(not, done);
            *if cut(middle) { &mut done } else { &mut not } = middle;
        }
        let around = done.saturating_sub(50)..done + 50;
        let visible = around.clone().filter(|count| cut(*count)).count();
        say(&format!(
            "{cuts} kills in {length} instructions ({} stepped): the commit is done at number {done}",
            stepped()
        ));
        assert!(visible > 0 && visible < around.len());
    });
}

#[test]
fn a_process_killed_at_any_instruction_of_a_batch_has_done_all_of_it_or_nothing() {
    kill_everywhere(
        "manager::a_process_killed_at_any_instruction_of_a_batch_has_done_all_of_it_or_nothing",
        "small",
        stride(12007, 401),
        |manager| {
            let (a, b, list) = accounts(manager);
            manager
                .batch(|tx| {
                    tx.dict(&a)?.update("x", |n| n.map(|n| n - 1))?;
                    tx.list(&list)?.push(4)?;
                    tx.dict(&b)?.update("x", |n| n.map(|n| n + 1))
                })
                .unwrap();
        },
        |_, moved, items| {
            let is_done = moved == 1;
            assert_eq!(items.len(), 3 + usize::from(is_done), "half a batch");
            is_done
        },
    );
}

#[test]
fn a_process_killed_at_any_instruction_of_a_pop_has_taken_the_item_or_not() {
    kill_everywhere(
        "manager::a_process_killed_at_any_instruction_of_a_pop_has_taken_the_item_or_not",
        "small",
        stride(9973, 307),
        |manager| assert_eq!(accounts(manager).2.pop().unwrap(), Some(3)),
        |_, _, items| {
            assert!(items == [1, 2] || items == [1, 2, 3], "{items:?}");
            items.len() == 2
        },
    );
}

#[test]
fn a_process_killed_at_any_instruction_while_the_data_grows_is_no_hindrance() {
    kill_everywhere(
        "manager::a_process_killed_at_any_instruction_while_the_data_grows_is_no_hindrance",
        "nearly full",
        stride(20011, 997),
        |manager| {
            let length = || std::fs::metadata(data_of(manager)).unwrap().len();
            let before = length();
            let pages = manager.dict::<u32, Vec<u8>>("more").unwrap();
            for n in 0..3 {
                pages.insert(n, vec![7; 2000]).unwrap();
            }
            assert!(length() > before, "it did not grow");
        },
        |manager, _, _| {
            let pages = manager.dict::<u32, Vec<u8>>("more").unwrap();
            let found = pages.len().unwrap();
            for n in 0..10 {
                pages.insert(n, vec![8; 2000]).unwrap();
            }
            found == 3
        },
    );
}

#[test]
fn a_process_killed_at_any_instruction_of_opening_is_no_hindrance() {
    let test = "manager::a_process_killed_at_any_instruction_of_opening_is_no_hindrance";
    with_keeper(test, "small", |keeper| {
        let (cuts, length) = cut_everywhere(
            stride(20011, 997),
            || keeper.next(),
            Handle::clone,
            |handle| {
                let manager = ManuallyDrop::new(handle.open());
                assert_eq!(look(&manager).0, 0);
            },
            |handle, child| {
                child.kill();
                look(&handle.open());
                keeper.drop_it();
                assert!(handle.find().is_none(), "it was left behind");
            },
        );
        say(&format!(
            "{cuts} kills in {length} instructions ({} stepped)",
            stepped()
        ));
    });
}

/// Names in `/dev/shm`.
fn left() -> Vec<String> {
    let entries = std::fs::read_dir("/dev/shm").unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.collect()
}

/// Gives this thread and its children an empty `/dev/shm` of their own; false if the kernel does not let it.
fn own_shm() -> bool {
    const NONE: Option<&str> = None;
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    let tmpfs = Some("tmpfs");
    unshare(CloneFlags::CLONE_NEWNS).is_ok()
        && mount(NONE, "/", NONE, private, NONE).is_ok()
        && mount(tmpfs, "/dev/shm", tmpfs, MsFlags::empty(), NONE).is_ok()
}

/// Kills at each instruction of `operation`, after which nothing may be left that a sweep does not remove.
fn leaves_nothing<B>(test: &str, stride: usize, before: impl Fn() -> B, operation: impl Fn(&B)) {
    alone(test, || {
        if !own_shm() {
            say("skipped: only root has a /dev/shm of its own");
            return;
        }
        let (mut something, mut nothing) = (0, 0);
        let (cuts, length) = cut_everywhere(
            stride,
            || (),
            |()| before(),
            operation,
            |(), child| {
                child.kill();
                match left().len() {
                    0 => nothing += 1,
                    _ => something += 1,
                }
                sweep().unwrap();
                assert_eq!(left(), [""; 0]);
            },
        );
        say(&format!(
            "{cuts} kills in {length} instructions ({} stepped): {something} times there was something to remove, {nothing} times nothing",
            stepped()
        ));
        assert!(something > 0);
    });
}

/// With a lock, which is a named segment.
fn with_a_lock() -> Manager {
    let manager = Manager::new().unwrap();
    drop(manager.lock("door").unwrap().lock().unwrap());
    manager
}

#[test]
fn what_a_process_killed_at_any_instruction_of_making_one_leaves_is_swept() {
    leaves_nothing(
        "manager::what_a_process_killed_at_any_instruction_of_making_one_leaves_is_swept",
        stride(20011, 1999),
        || (),
        |()| {
            let _held = ManuallyDrop::new(with_a_lock());
        },
    );
}

#[test]
fn what_a_process_killed_at_any_instruction_of_leaving_one_leaves_is_swept() {
    leaves_nothing(
        "manager::what_a_process_killed_at_any_instruction_of_leaving_one_leaves_is_swept",
        stride(4001, 307),
        || RefCell::new(Some(with_a_lock())),
        |manager| drop(manager.take()),
    );
}

#[test]
fn who_opens_at_any_instruction_of_anothers_leaving_opens_it_whole_or_finds_it_gone() {
    let test =
        "manager::who_opens_at_any_instruction_of_anothers_leaving_opens_it_whole_or_finds_it_gone";
    with_keeper(test, "small", |keeper| {
        let (mut whole, mut gone) = (0, 0);
        let (cuts, length) = cut_everywhere(
            stride(4001, 307),
            || keeper.next(),
            |handle| {
                let manager = handle.open();
                look(&manager);
                keeper.drop_it();
                RefCell::new(Some(manager))
            },
            |manager| drop(manager.take()),
            |handle, child| {
                let opened = handle.find();
                assert!(child.finish());
                match opened {
                    Some(manager) => {
                        look(&manager);
                        whole += 1;
                    }
                    None => gone += 1,
                }
                // the keeper had dropped it in the child's name
                *keeper.has.borrow_mut() = false;
                assert!(handle.find().is_none(), "it was left behind");
            },
        );
        say(&format!(
            "frozen {cuts} times in {length} instructions ({} stepped): opened {whole} times, gone {gone} times",
            stepped()
        ));
        assert!(whole > 0 && gone > 0);
    });
}

#[test]
fn a_persistent_one_survives_a_kill_at_any_instruction_of_its_making() {
    let test = "manager::a_persistent_one_survives_a_kill_at_any_instruction_of_its_making";
    alone(test, || {
        let base = std::env::temp_dir().join(format!("mp-steps-{}", std::process::id()));
        let mut round = 0;
        let (cuts, length) = cut_everywhere(
            stride(20011, 1999),
            || {
                round += 1;
                base.join(round.to_string())
            },
            PathBuf::clone,
            |path| {
                let manager = ManuallyDrop::new(Manager::at(path).unwrap());
                accounts(&manager).0.insert("x".into(), 1).unwrap();
            },
            |path, child| {
                child.kill();
                let manager = Manager::at(&path).unwrap();
                let (a, _, _) = accounts(&manager);
                let found = a.get("x").unwrap();
                assert!(found.is_none() || found == Some(1));
                a.insert("x".into(), 2).unwrap();
                drop((a, manager));
                std::fs::remove_dir_all(&path).unwrap();
            },
        );
        std::fs::remove_dir_all(&base).unwrap();
        say(&format!(
            "{cuts} kills in {length} instructions ({} stepped)",
            stepped()
        ));
    });
}
