//! Where lines go.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command line")]

use super::arguments::Arguments;
use super::report;
use serde_json::Value;
use vopr::seed::Ended;
use vopr::timeline::page::{About, page};

impl Arguments {
    /// Prints a line for people: on stdout, unless that is for JSON.
    pub(super) fn say(&self, line: &str) {
        if self.json {
            eprintln!("{line}");
        } else {
            println!("{line}");
        }
    }

    /// Prints a line of JSON, if that is asked for.
    pub(super) fn say_json(&self, value: impl FnOnce() -> Value) {
        if self.json {
            println!("{}", value());
        }
    }

    /// Writes the page of a run, if that is asked for.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(super) fn write_timeline(
        &self,
        title: &str,
        repeat: &str,
        ended: &Ended,
    ) -> Result<(), String> {
        let (Some(path), Some(recording)) = (&self.timeline, &ended.recording) else {
            return Ok(());
        };
        let about = About {
            title,
            repeat,
            commit: &report::commit(),
        };
        let text = page(&about, ended, recording);
        std::fs::write(path, text).map_err(|error| format!("{path}: {error}"))?;
        self.say(&format!("the timeline is in {path}"));
        Ok(())
    }
}
