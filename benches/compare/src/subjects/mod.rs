//! The rows of the comparison, a file for each kind of work.

mod add;
mod apply;
mod async_calls;
mod cost;
mod echo;
mod locks;
mod manager;
mod map;
mod rings;
mod sha512;
mod start;
mod sum;
mod tools;
mod trips;

use crate::harness::Subject;
use crate::os::party::Role;

/// In the order of the table.
pub fn all() -> impl Iterator<Item = &'static Subject> {
    let files = [
        locks::SUBJECTS,
        add::SUBJECTS,
        manager::SUBJECTS,
        rings::SUBJECTS,
        trips::SUBJECTS,
        apply::SUBJECTS,
        async_calls::SUBJECTS,
        map::SUBJECTS,
        sum::SUBJECTS,
        sha512::SUBJECTS,
        echo::SUBJECTS,
        start::SUBJECTS,
        cost::SUBJECTS,
    ];
    files.into_iter().flatten()
}

/// What a process that takes part can do.
pub fn role(name: &str) -> Option<Role> {
    let files = [
        locks::ROLES,
        add::ROLES,
        rings::ROLES,
        trips::ROLES,
        apply::ROLES,
        echo::ROLES,
        #[cfg(feature = "ipc-channel")]
        crate::rivals::ipc::ROLES,
    ];
    let mut roles = files.into_iter().flatten();
    roles
        .find(|(known, _)| *known == name)
        .map(|(_, role)| *role)
}
