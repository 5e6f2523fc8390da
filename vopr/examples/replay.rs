//! Replays recorded traces: `replay [--machine model|ledger] DIRECTORY_OR_FILE...`
#![expect(clippy::print_stdout, reason = "a command line tool")]

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use daftari::ledger::{Ledger, LedgerOptions};
use vopr::model::Model;
use vopr::traces::{Outcome, Packets, expand, replay};

/// Both ways of sending packets, each against an empty ledger.
fn run(path: &Path, machine: &str) -> Outcome {
    for packets in [Packets::Apart, Packets::Together] {
        if machine == "ledger" {
            let mut ledger = Ledger::new(LedgerOptions {
                memory_limit: 1 << 30,
            });
            replay(path, &mut ledger, packets)?;
            continue;
        }
        let mut model = Model::new();
        replay(path, &mut model, packets)?;
        model.check_conservation()?;
    }
    Ok(())
}

fn main() -> ExitCode {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    let mut machine = "model".to_owned();
    if arguments.len() > 1 && arguments[0] == "--machine" {
        machine = arguments.remove(1);
        arguments.remove(0);
    }
    let paths: Vec<PathBuf> = arguments.into_iter().map(PathBuf::from).collect();
    let files = match expand(&paths) {
        Ok(files) => files,
        Err(error) => {
            println!("{error}");
            return ExitCode::FAILURE;
        }
    };
    let mut failed = 0;
    for file in &files {
        if let Err(difference) = run(file, &machine) {
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
