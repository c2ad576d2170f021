//! A value, an array and a list of a manager, changed in another process and seen here.
//!
//! ```text
//! cargo run --example scoreboard
//! MULTIPROC_URL=redis://127.0.0.1/ cargo run --features redis --example scoreboard
//! ```

#![allow(clippy::print_stdout, reason = "an example shows its results")]

use multiproc::manager::{Array, List, Value};
use multiproc::{Manager, Process};

type Board = (Value<f64>, Array<u32>, List<String>);

/// Runs in the other process.
fn play((best, wins, log): Board) -> multiproc::Result<()> {
    for (player, score) in [(0, 71.5), (2, 93.25), (0, 88.0)] {
        best.update(|best| best.max(score))?;
        wins.update(player, |wins| wins + 1)?;
        log.push(format!("player {player}: {score}"))?;
    }
    Ok(())
}

fn manager() -> multiproc::Result<Manager> {
    #[cfg(feature = "redis")]
    if let Ok(url) = std::env::var("MULTIPROC_URL") {
        return Manager::connect(&url);
    }
    Manager::new()
}

fn main() -> multiproc::Result<()> {
    let manager = manager()?;
    let best = manager.new_value(0.0)?;
    let wins = manager.new_array(&[0; 3])?;
    let log = manager.new_list()?;

    let board = (best.clone(), wins.clone(), log.clone());
    Process::spawn(play, board)?.join()??;

    println!("best: {}", best.get()?);
    println!("wins: {:?}", wins.to_vec()?);
    for line in log.to_vec()? {
        println!("{line}");
    }
    Ok(())
}
