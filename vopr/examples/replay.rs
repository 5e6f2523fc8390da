//! Replays recorded traces, and captured sessions:
//! `replay [--machine model|ledger] DIRECTORY_OR_FILE...`
#![expect(clippy::print_stdout, reason = "a command line tool")]

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use daftari::ledger::{LedgerInMemory, LedgerOptions};
use vopr::machine::Machine;
use vopr::model::Model;
use vopr::traces::{Outcome, Packets, expand, replay, replay_frames};

/// Memory for the ledger under test.
const MEMORY: u64 = 1 << 30;

/// A session, or a trace with both ways of sending packets, each against an empty ledger.
fn run(path: &Path, mut machine: impl FnMut() -> Box<dyn Machine>) -> Outcome {
    if path.is_dir() {
        return replay_frames(path, machine().as_mut()).map(drop);
    }
    replay(path, machine().as_mut(), Packets::Apart)?;
    replay(path, machine().as_mut(), Packets::Together)
}

fn new_machine(ledger: bool) -> Box<dyn Machine> {
    if ledger {
        Box::new(LedgerInMemory::new(LedgerOptions {
            memory_limit: MEMORY,
            account_cache_size: 0,
        }))
    } else {
        Box::new(Model::new())
    }
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
        if let Err(difference) = run(file, || new_machine(ledger)) {
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
