//! Replays recorded traces: `replay [--machine model|ledger] DIRECTORY_OR_FILE...`
#![expect(clippy::print_stdout, reason = "a command line tool")]

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use daftari::ledger::{Ledger, LedgerOptions};
use vopr::model::Model;
use vopr::traces::{Outcome, Packets, expand, replay};

/// Memory for the ledger under test.
const MEMORY: u64 = 1 << 30;

/// Both ways of sending packets, each against an empty ledger.
fn run(path: &Path, ledger: bool) -> Outcome {
    for packets in [Packets::Apart, Packets::Together] {
        if ledger {
            let mut machine = Ledger::new(LedgerOptions {
                memory_limit: MEMORY,
            });
            replay(path, &mut machine, packets)?;
        } else {
            let mut model = Model::new();
            replay(path, &mut model, packets)?;
            model.check_conservation()?;
        }
    }
    Ok(())
}

fn main() -> ExitCode {
    let mut ledger = false;
    let mut paths = Vec::new();
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        if argument == "--machine" {
            match arguments.next().as_deref() {
                Some("model") => ledger = false,
                Some("ledger") => ledger = true,
                other => {
                    println!("--machine model or ledger, not {other:?}");
                    return ExitCode::FAILURE;
                }
            }
        } else {
            paths.push(PathBuf::from(argument));
        }
    }
    let files = match expand(&paths) {
        Ok(files) => files,
        Err(error) => {
            println!("{error}");
            return ExitCode::FAILURE;
        }
    };
    let mut failed = 0;
    for file in &files {
        if let Err(difference) = run(file, ledger) {
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
