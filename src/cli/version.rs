//! `daftari version`: the release, the protocol, the limits.
#![expect(clippy::print_stdout, reason = "the command line talks to its user")]

use crate::constants::{self, release_text};
use clap::Args;

const EXAMPLES: &str = "\
Examples:
  daftari version
  daftari version --verbose";

/// What `version` is asked for.
#[derive(Args, Clone, Copy, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Options {
    /// Also the build, and every limit that is compiled in.
    #[arg(long)]
    pub verbose: bool,
}

/// The limits by name.
#[must_use]
pub fn limits() -> Vec<(&'static str, u64)> {
    let size = crate::stdx::to_u64;
    vec![
        (
            "storage_format_version",
            u64::from(storage_format::FORMAT_VERSION),
        ),
        ("sector_size", size(storage_format::SECTOR_SIZE)),
        ("header_size", size(constants::HEADER_SIZE)),
        ("message_size_max", size(constants::MESSAGE_SIZE_MAX)),
        ("body_size_max", size(constants::BODY_SIZE_MAX)),
        ("batch_events_max", u64::from(constants::BATCH_EVENTS_MAX)),
        ("change_events_max", u64::from(constants::CHANGE_EVENTS_MAX)),
        ("pulse_expiries_max", constants::PULSE_EXPIRIES_MAX),
        (
            "prepare_entries_size",
            size(constants::PREPARE_ENTRIES_SIZE),
        ),
        (
            "prepare_requests_max",
            size(constants::PREPARE_REQUESTS_MAX),
        ),
        ("pipeline_prepares_max", constants::PIPELINE_PREPARES_MAX),
        ("sessions_default", u64::from(constants::SESSIONS_DEFAULT)),
        ("block_size", size(constants::BLOCK_SIZE)),
        ("block_data_size", size(constants::BLOCK_DATA_SIZE)),
        ("timestamp_max", constants::TIMESTAMP_MAX),
    ]
}

/// What is printed.
#[must_use]
pub fn text(verbose: bool) -> String {
    let mut text = format!("daftari {}\n", env!("CARGO_PKG_VERSION"));
    if !verbose {
        return text;
    }
    let profile = if cfg!(debug_assertions) {
        "debug"
    } else {
        "release"
    };
    let lines = [
        ("protocol_release", release_text(constants::RELEASE)),
        (
            "client_release_min",
            release_text(constants::RELEASE_CLIENT_MIN),
        ),
        (
            "client_release_max",
            release_text(constants::RELEASE_CLIENT_MAX),
        ),
        ("log_release_min", release_text(constants::RELEASE_LOG_MIN)),
        ("log_release_max", release_text(constants::RELEASE_LOG_MAX)),
        ("build_profile", profile.to_owned()),
        (
            "build_target",
            format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS),
        ),
        ("verify", constants::VERIFY.to_string()),
    ];
    let limits = limits()
        .into_iter()
        .map(|(name, value)| (name, value.to_string()));
    for (name, value) in lines.into_iter().chain(limits) {
        text.push_str(&format!("{name} = {value}\n"));
    }
    text
}

/// Prints it.
///
/// # Errors
/// Never.
pub fn run(options: &Options) -> anyhow::Result<()> {
    print!("{}", text(options.verbose));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{release_text, text};

    #[test]
    fn the_short_form_is_one_line() {
        assert_eq!(
            text(false),
            format!("daftari {}\n", env!("CARGO_PKG_VERSION"))
        );
    }

    #[test]
    fn the_long_form_has_the_protocol_window_and_the_limits() {
        let text = text(true);
        for line in [
            "client_release_min = 0.16.4",
            "client_release_max = 0.17.255",
            "protocol_release = 0.17.9",
            "log_release_min = 0.17.9",
            "log_release_max = 0.17.10",
            "message_size_max = 1048576",
            "batch_events_max = 8189",
        ] {
            assert!(
                text.lines().any(|found| found == line),
                "{line} is missing in:\n{text}"
            );
        }
        assert_eq!(release_text(1 << 16 | 2 << 8 | 3), "1.2.3");
    }
}
