//! Replays recorded traces against the model and against the ledger, without a server:
//! `replay DIRECTORY_OR_FILE...`
#![expect(clippy::print_stdout, reason = "a command line tool")]

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use daftari::ledger::{Ledger, LedgerOptions};
use vopr::model::Model;
use vopr::traces::{Outcome, Packets, expand, replay};

/// Both ways of sending packets, each against an empty model and an empty ledger.
fn run(path: &Path) -> Outcome {
    for packets in [Packets::Apart, Packets::Together] {
        let mut model = Model::new();
        replay(path, &mut model, packets)?;
        model.check_conservation()?;
        let mut ledger = Ledger::new(LedgerOptions {
            memory_limit: u64::MAX,
        });
        replay(path, &mut ledger, packets).map_err(|difference| format!("ledger: {difference}"))?;
    }
    Ok(())
}

fn main() -> ExitCode {
    let paths: Vec<PathBuf> = std::env::args().skip(1).map(PathBuf::from).collect();
    let files = match expand(&paths) {
        Ok(files) => files,
        Err(error) => {
            println!("{error}");
            return ExitCode::FAILURE;
        }
    };
    let mut failed = 0;
    for file in &files {
        if let Err(difference) = run(file) {
            failed += 1;
            println!("FAIL {}\n  {difference}", file.display());
        }
    }
    println!("{} passed, {failed} failed", files.len() - failed);
    if failed == 0 && !files.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
