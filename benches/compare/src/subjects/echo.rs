//! 64 MiB there and back.

use std::fs::File;
use std::hint::black_box;
use std::io::{Read, Write, pipe};
use std::os::fd::{FromRawFd, OwnedFd};
use std::thread;

use multiproc::Pool;

use super::tools::{Stopwatch, checked};
use crate::harness::{Field, Outcome, Run, Scale, Subject, Unit, at_most};
use crate::os::area::Area;
use crate::os::party::{BODY, Processes, Role, leave_open};
use crate::rivals::program::Python;

pub const SUBJECTS: &[Subject] = &[Subject {
    id: "echo-64mib",
    what: "64 MiB of bytes to another process and back into a new vector; 1 worker",
    unit: Unit::Milliseconds,
    goals: &[
        at_most("multiproc apply", 2.5, MEMCPY),
        at_most("multiproc apply", 1.0, "pipes"),
        at_most("multiproc apply", 1.0, "Python Pool"),
    ],
    field: echo,
}];

pub const ROLES: &[(&str, Role)] = &[("pipe-echo", |party| {
    let [mut inbox, mut outbox] = [party.number(0)?, party.number(1)?].map(|number| {
        // SAFETY: the parent left the two descriptors open for this process to take over.
        File::from(unsafe { OwnedFd::from_raw_fd(number as i32) })
    });
    let mut buffer = vec![0; PIECE];
    party.start_line();
    loop {
        match inbox.read(&mut buffer)? {
            0 => return Ok(()),
            count => outbox.write_all(&buffer[..count])?,
        }
    }
})];

const MEMCPY: &str = "one memcpy";
const PIECE: usize = 1 << 16;

fn same(bytes: Vec<u8>) -> Vec<u8> {
    bytes
}

fn echo(scale: Scale, field: &mut Field) {
    let (size, times) = (scale.of(64 << 20) as usize, 5);
    field.ours("multiproc apply", || {
        let pool = Pool::with_workers(1)?;
        repeat(size, times, move |bytes| Ok(pool.apply(same, bytes)?))
    });
    field.limit(MEMCPY, || {
        let mut other = vec![1; size];
        repeat(size, times, move |bytes| {
            other.copy_from_slice(&bytes);
            Ok(std::mem::replace(&mut other, bytes))
        })
    });
    field.limit("two memcpys, each into a new vector", || {
        repeat(size, times, move |bytes| {
            Ok(black_box(bytes.clone()).clone())
        })
    });
    field.rival("pipes", || by_pipes(size, times));
    by_procspawn(field, size, times);
    by_ipc_channel(field, size, times);
    field.rival("Python Pool", || {
        Python::contender("pool_echo", &[size as u64])
    });
}

fn bytes(size: usize) -> Vec<u8> {
    (0..size).map(|index| (index % 251) as u8).collect()
}

/// Milliseconds for one of `times`; each gives a vector away and gets one.
fn repeat(
    size: usize,
    times: u64,
    mut echo: impl FnMut(Vec<u8>) -> Outcome<Vec<u8>> + 'static,
) -> Outcome<Run<f64>> {
    let expected = bytes(size);
    Ok(Box::new(move || {
        let mut watch = Stopwatch::default();
        for _ in 0..times {
            let given = expected.clone();
            let result = watch.run(|| echo(given))?;
            checked(result == expected, true)?;
        }
        Ok(watch.milliseconds(times))
    }))
}

fn by_pipes(size: usize, times: u64) -> Outcome<Run<f64>> {
    let area: &'static Area = Box::leak(Box::new(Area::new(BODY)?));
    let ((inbox, mut there), (mut back, outbox)) = (pipe()?, pipe()?);
    let arguments = [leave_open(&inbox)?, leave_open(&outbox)?];
    let process = Processes::start("pipe-echo", 1, Some(1), area, &arguments)?;
    drop((inbox, outbox));
    repeat(size, times, move |bytes| {
        let _running = &process;
        let mut result = Vec::with_capacity(bytes.len());
        let written = thread::scope(|scope| {
            let writer = scope.spawn(|| there.write_all(&bytes));
            let read = (&mut back)
                .take(bytes.len() as u64)
                .read_to_end(&mut result);
            read.and(writer.join().expect("the writer does not panic"))
        });
        written?;
        Ok(result)
    })
}

#[cfg(feature = "procspawn")]
fn by_procspawn(field: &mut Field, size: usize, times: u64) {
    field.rival("procspawn", || {
        let pool = procspawn::Pool::new(1)?;
        repeat(size, times, move |bytes| {
            Ok(pool.spawn(bytes, same).join()?)
        })
    });
}

#[cfg(not(feature = "procspawn"))]
fn by_procspawn(field: &mut Field, _: usize, _: u64) {
    field.absent("procspawn", crate::harness::Kind::Rival, "built without it");
}

#[cfg(feature = "ipc-channel")]
fn by_ipc_channel(field: &mut Field, size: usize, times: u64) {
    field.rival("ipc-channel, bytes", || {
        let echo = crate::rivals::ipc::Echo::start()?;
        repeat(size, times, move |bytes| echo.send(&bytes))
    });
}

#[cfg(not(feature = "ipc-channel"))]
fn by_ipc_channel(field: &mut Field, _: usize, _: u64) {
    field.absent(
        "ipc-channel, bytes",
        crate::harness::Kind::Rival,
        "built without it",
    );
}
