//! Processes that must not become workers, and programs that must not start any.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;

use multiproc::{ErrorKind, Pool, Value};

use super::{command, role, run, stderr};

/// The kind of the error with which this process refuses to make a pool, told on stdout.
fn say_why_not() {
    println!("@{:?}", Pool::with_workers(2).map(drop).unwrap_err().kind());
}

#[test]
fn a_stale_marker_ends_the_process_before_main() {
    if role().is_some() {
        println!("@reached");
        return;
    }
    let test = "refusals::a_stale_marker_ends_the_process_before_main";
    // what the marker of a real worker of this program looks like
    let pool = Pool::with_workers(1).unwrap();
    let pid = pool.worker_pids()[0];
    let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap();
    let marker = environment
        .split(|byte| *byte == 0)
        .find_map(|entry| entry.strip_prefix(b"MULTIPROC_WORKER="));
    let marker = String::from_utf8(marker.unwrap().to_vec()).unwrap();
    for stale in [marker.as_str(), "yes", ""] {
        let output = run(test, "stale", &[("MULTIPROC_WORKER", stale)]);
        assert_eq!(
            output.status.code(),
            Some(122),
            "{stale}: {}",
            stderr(&output)
        );
        assert!(stderr(&output).contains("unset it (exit 122)"));
        assert!(!String::from_utf8_lossy(&output.stdout).contains("@reached"));
    }
}

#[test]
fn a_marker_for_another_copy_of_the_crate_is_left_alone_but_no_pool_is_made() {
    if role().is_some() {
        println!("@reached");
        say_why_not();
        return;
    }
    let test = "refusals::a_marker_for_another_copy_of_the_crate_is_left_alone_but_no_pool_is_made";
    let output = run(test, "other", &[("MULTIPROC_WORKER", "1:1")]);
    assert_eq!(output.status.code(), Some(124), "{}", stderr(&output));
    assert!(String::from_utf8_lossy(&output.stdout).contains("@reached"));
    assert!(
        stderr(&output).contains("the start hook did not run"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn a_program_started_through_the_dynamic_loader_starts_no_workers() {
    if role().is_some() {
        return say_why_not();
    }
    let loaders = ["/lib64/ld-linux-x86-64.so.2", "/lib/ld-linux-aarch64.so.1"];
    let Some(loader) = loaders.iter().find(|path| Path::new(path).exists()) else {
        println!("skipped: no dynamic loader at its usual place");
        return;
    };
    let test = "refusals::a_program_started_through_the_dynamic_loader_starts_no_workers";
    let this = std::env::current_exe().unwrap();
    let output = command(loader, &[this.to_str().unwrap()], test, "loaded")
        .output()
        .unwrap();
    assert!(
        String::from_utf8_lossy(&output.stdout).contains("@ForeignExecutable"),
        "{output:?}"
    );
}

#[test]
fn a_program_with_set_user_id_starts_no_workers() {
    if role().is_some() {
        return say_why_not();
    }
    if !nix::unistd::geteuid().is_root() {
        println!("skipped: only root can make a set-user-id program of another");
        return;
    }
    let copy = std::env::temp_dir().join(format!("multiproc-setuid-{}", std::process::id()));
    std::fs::copy(std::env::current_exe().unwrap(), &copy).unwrap();
    std::fs::set_permissions(&copy, std::fs::Permissions::from_mode(0o4755)).unwrap();
    let test = "refusals::a_program_with_set_user_id_starts_no_workers";
    let output = command(&copy, &[], test, "setuid")
        .uid(65_534)
        .gid(65_534)
        .current_dir("/")
        .output();
    std::fs::remove_file(&copy).unwrap();
    let output = output.unwrap();
    assert!(
        String::from_utf8_lossy(&output.stdout).contains("@Privileged"),
        "{output:?}"
    );
}

#[test]
fn a_program_whose_file_was_deleted_still_starts_workers() {
    if role().is_some() {
        std::fs::remove_file(std::env::current_exe().unwrap()).unwrap();
        println!(
            "@{}",
            Pool::with_workers(1)
                .unwrap()
                .apply(|x: u32| x + 1, 41)
                .unwrap()
        );
        return;
    }
    let copy = std::env::temp_dir().join(format!("multiproc-deleted-{}", std::process::id()));
    std::fs::copy(std::env::current_exe().unwrap(), &copy).unwrap();
    let test = "refusals::a_program_whose_file_was_deleted_still_starts_workers";
    let output = command(&copy, &[], test, "deleted").output().unwrap();
    assert!(
        String::from_utf8_lossy(&output.stdout).contains("@42"),
        "{output:?}"
    );
}

/// The system keeps 15 bytes of a program's name, and with them half a character. Who started when, which tells a process from the next one
/// of its number, stands behind that name, and was not found.
#[test]
fn a_program_of_any_name_has_values_and_workers() {
    if role().is_some() {
        let comm = std::fs::read("/proc/self/comm").unwrap();
        assert!(
            std::str::from_utf8(&comm).is_err(),
            "half a character at the end"
        );
        let value = Value::new(41_u32).unwrap();
        let add = |value: Value<u32>| *value.lock().unwrap() += 1;
        let pool = Pool::with_workers(1).unwrap();
        pool.apply(add, value.clone()).unwrap();
        println!("@{}", value.get().unwrap());
        return;
    }
    let name = format!("multiproc-name\u{e9}-{}", std::process::id());
    let copy = std::env::temp_dir().join(name);
    std::fs::copy(std::env::current_exe().unwrap(), &copy).unwrap();
    let test = "refusals::a_program_of_any_name_has_values_and_workers";
    let output = command(&copy, &[], test, "named").output();
    std::fs::remove_file(&copy).unwrap();
    let output = output.unwrap();
    assert!(
        String::from_utf8_lossy(&output.stdout).contains("@42"),
        "{output:?}"
    );
}

#[test]
fn a_shared_library_starts_no_workers() {
    // the library is built beside the tests: target/PROFILE/examples
    let this = std::env::current_exe().unwrap();
    let library = this
        .parent()
        .and_then(Path::parent)
        .unwrap()
        .join("examples/libin_shared_library.so");
    // SAFETY: the library's constructors are those of Rust and of this crate, whose hook is what is tried here.
    let loaded = unsafe { libloading::Library::new(&library) };
    let loaded = loaded.expect("`cargo test` builds it; with `cargo test --test start` say `cargo build --examples` before");
    // SAFETY: the function is declared so in tests/start/in_shared_library.rs.
    let try_pool: libloading::Symbol<'_, extern "C" fn() -> bool> =
        unsafe { loaded.get(b"try_pool") }.unwrap();
    assert!(try_pool(), "the library was not told InSharedLibrary");
}

#[test]
fn a_forked_child_is_told_that_the_pool_is_not_its() {
    if role().is_some() {
        let pool = Pool::with_workers(1).unwrap();
        let pending = pool
            .apply_async(
                |()| std::thread::sleep(std::time::Duration::from_millis(200)),
                (),
            )
            .unwrap();
        // SAFETY: the child only uses this thread and ends by _exit.
        if let nix::unistd::ForkResult::Child = unsafe { nix::unistd::fork() }.unwrap() {
            let right = pool.apply(|x: u8| x, 1).unwrap_err().kind() == ErrorKind::Forked
                && pool.join().unwrap_err().kind() == ErrorKind::Forked
                && pending.get().unwrap_err().kind() == ErrorKind::Forked;
            pool.terminate();
            drop(pool);
            std::process::exit(if right { 7 } else { 8 });
        }
        let status = nix::sys::wait::wait().unwrap();
        println!(
            "@{}",
            matches!(status, nix::sys::wait::WaitStatus::Exited(_, 7))
        );
        pending.get().unwrap();
        println!("@{}", pool.apply(|x: u32| x, 5).unwrap());
        return;
    }
    let output = run(
        "refusals::a_forked_child_is_told_that_the_pool_is_not_its",
        "fork",
        &[],
    );
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("@true") && said.contains("@5"), "{output:?}");
}

fn leave(code: i32) {
    std::process::exit(code);
}

#[test]
fn a_host_that_ignores_its_children_still_learns_how_a_worker_ended() {
    if role().is_some() {
        // SAFETY: a standard disposition; the kernel now collects children before anybody can ask for their status.
        unsafe {
            nix::sys::signal::signal(
                nix::sys::signal::SIGCHLD,
                nix::sys::signal::SigHandler::SigIgn,
            )
        }
        .unwrap();
        let pool = Pool::with_workers(1).unwrap();
        println!("@{}", pool.apply(leave, 5).unwrap_err());
        println!("@{}", pool.apply(|x: u32| x, 5).unwrap());
        return;
    }
    let output = run(
        "refusals::a_host_that_ignores_its_children_still_learns_how_a_worker_ended",
        "ignore",
        &[],
    );
    let said = String::from_utf8_lossy(&output.stdout);
    // older kernels do not keep the code
    let known = said.contains("exited with code 5 while running item 0")
        || said.contains("collected by the program's own wait");
    assert!(known && said.contains("@5"), "{output:?}");
}
