//! Progress, for whoever waits.
#![expect(clippy::print_stderr, reason = "progress is for whoever waits")]

use std::io::IsTerminal;

/// Tells whoever waits at a terminal how far it is.
#[derive(Debug)]
pub struct Progress {
    terminal: bool,
}

impl Default for Progress {
    fn default() -> Self {
        Self {
            terminal: std::io::stderr().is_terminal(),
        }
    }
}

impl Progress {
    /// So many are done.
    pub fn step(&self, what: &str, done: u64, of: u64) {
        if self.terminal && (done.is_multiple_of(256) || done == of) {
            eprint!("\r{what}: {done} of {of}    ");
            if done == of {
                eprintln!();
            }
        }
    }
}
