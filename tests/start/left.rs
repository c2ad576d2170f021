//! A program that ends without a word to its pool.

use std::sync::OnceLock;
use std::time::Duration;

use multiproc::Pool;

use super::killed::Family;
use super::{command, role};

static POOL: OnceLock<Pool> = OnceLock::new();

/// Statics are never dropped: the workers see that their parent has gone.
#[test]
fn a_program_that_leaves_its_pool_in_a_static_ends_well_and_alone() {
    if role().is_some() {
        let pool = POOL.get_or_init(|| Pool::with_workers(3).unwrap());
        assert_eq!(pool.map(|x: u64| x + 1, 0..3).unwrap(), [1, 2, 3]);
        return;
    }
    let test = "left::a_program_that_leaves_its_pool_in_a_static_ends_well_and_alone";
    let mut command = command(std::env::current_exe().unwrap(), &[], test, "leaver");
    let mut family = Family::start(command.stdout(std::process::Stdio::null()), "leaver");
    assert!(family.head.wait().unwrap().success());
    assert!(family.dies_out() < Duration::from_secs(20));
}
