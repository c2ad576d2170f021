//! The comparison, as `cargo bench` runs it: see the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    let small = compare::Small {
        ours: env!("CARGO_BIN_EXE_small"),
        procspawn: option_env!("CARGO_BIN_EXE_small-procspawn"),
    };
    compare::main(small)
}
