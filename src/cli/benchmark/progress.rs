//! How far a long phase has come, on stderr: a line that is written over once a second when that is
//! a terminal, else a line every 10 s.
#![expect(clippy::disallowed_types, reason = "progress is a matter of time")]
#![expect(clippy::print_stderr, reason = "the command line talks to its user")]

use super::report::rate;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

const INTERVAL_TERMINAL: Duration = Duration::from_secs(1);
const INTERVAL: Duration = Duration::from_secs(10);

/// One phase.
#[derive(Debug)]
pub struct Progress {
    what: &'static str,
    total: u64,
    terminal: bool,
    begin: Instant,
    printed: Instant,
    drawn: bool,
}

impl Progress {
    /// A phase that begins now and ends with `total` of `what`.
    pub fn new(what: &'static str, total: u64) -> Self {
        let begin = Instant::now();
        Self {
            what,
            total,
            terminal: std::io::stderr().is_terminal(),
            begin,
            printed: begin,
            drawn: false,
        }
    }

    /// Says how far it is, if it is time to.
    pub fn advance(&mut self, done: u64) {
        let interval = if self.terminal {
            INTERVAL_TERMINAL
        } else {
            INTERVAL
        };
        if self.printed.elapsed() < interval {
            return;
        }
        self.printed = Instant::now();
        let line = line(self.what, done, self.total, self.begin.elapsed());
        if self.terminal {
            eprint!("\r{line}\x1b[K");
            self.drawn = true;
        } else {
            eprintln!("{line}");
        }
    }
}

impl Drop for Progress {
    /// Leaves an empty line to whoever prints next.
    fn drop(&mut self) {
        if self.drawn {
            eprint!("\r\x1b[K");
        }
    }
}

fn line(what: &str, done: u64, total: u64, elapsed: Duration) -> String {
    let percent = u128::from(done) * 100 / u128::from(total.max(1));
    format!(
        "{what}: {done} of {total} ({percent} %), {} a second",
        rate(done, elapsed)
    )
}

#[cfg(test)]
mod tests {
    use super::line;
    use std::time::Duration;

    #[test]
    fn a_line_says_how_far_and_how_fast() {
        assert_eq!(
            line("transfers", 2_500_000, 10_000_000, Duration::from_secs(10)),
            "transfers: 2500000 of 10000000 (25 %), 250000 a second"
        );
        assert_eq!(
            line("queries", 0, 0, Duration::ZERO),
            "queries: 0 of 0 (0 %), 0 a second"
        );
    }
}
