//! The `daftari` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    daftari::cli::run()
}
