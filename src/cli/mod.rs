//! The command line: what can be asked for, where it is answered, and with which exit status.
//!
//! * Everything that was asked for goes to stdout, everything else to stderr.
//! * An error is one sentence on stderr: what was wrong, where, and what to do about it.
//! * Exit statuses are stable (see [`exit`]).

pub mod benchmark;
pub mod exit;
pub mod format;
pub mod inspect;
pub mod logging;
pub mod parse;
pub mod recover;
pub mod start;
pub mod version;

#[cfg(test)]
mod tests;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

const EXAMPLES: &str = "\
Examples:
  daftari start --development --addresses=3000 ledger.daftari
      A ledger to try things with: makes the file when it is absent, and serves it.

  daftari format --cluster=0 --replica=0 --replica-count=1 ledger.daftari
  daftari start --addresses=127.0.0.1:3000 ledger.daftari
      A ledger to keep.

  daftari format --cluster=7 --replica=2 --replica-count=3 /data/ledger
  daftari start --addresses=10.0.0.1:3000,10.0.0.2:3000,10.0.0.3:3000 /data/ledger
      The last one of three replicas that keep a ledger together.

  daftari recover --cluster=7 --replica=2 \
      --addresses=10.0.0.1:3000,10.0.0.2:3000,10.0.0.3:3000 /data/ledger
      The file of that replica was lost: another one, which gets all that it had from the others.

  daftari inspect integrity ledger.daftari
      Reads the whole file and says whether it is damaged.

  daftari benchmark --transfer-count=10_000_000
      How fast it is on this machine.

`daftari help COMMAND` explains a command.";

/// A double-entry ledger server that speaks the TigerBeetle client protocol.
#[derive(Debug, Parser)]
#[command(name = "daftari", version, after_help = EXAMPLES, max_term_width = 100)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make a data file.
    Format(format::Options),
    /// Make a data file in the place of one that was lost, of a replica of several.
    Recover(recover::Options),
    /// Serve a data file.
    Start(start::Options),
    /// Print the release, the protocol and the limits.
    Version(version::Options),
    /// Read a data file, and say what is in it.
    Inspect(inspect::Options),
    /// Measure how fast a server is.
    Benchmark(benchmark::Options),
}

/// Does what the arguments of the process ask for.
#[must_use]
pub fn run() -> ExitCode {
    match Cli::try_parse() {
        Ok(cli) => exit::report(dispatch(&cli.command)),
        Err(error) => exit::report_usage(&error),
    }
}

fn dispatch(command: &Command) -> anyhow::Result<()> {
    match command {
        Command::Format(options) => format::run(options),
        Command::Recover(options) => recover::run(options),
        Command::Start(options) => start::run(options),
        Command::Version(options) => version::run(options),
        Command::Inspect(options) => inspect::run(options),
        Command::Benchmark(options) => benchmark::run(options),
    }
}
