//! The simulator's command line: `cargo vopr --help`.

use std::process::ExitCode;

#[cfg(madsim)]
mod cli;

#[cfg(madsim)]
fn main() -> ExitCode {
    cli::main()
}

#[cfg(not(madsim))]
#[expect(clippy::print_stderr, reason = "a command line")]
fn main() -> ExitCode {
    eprintln!("the simulator needs madsim's executor: run it as `cargo vopr`");
    ExitCode::from(2)
}
