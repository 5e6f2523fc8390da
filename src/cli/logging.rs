//! The log: one line an event on stderr, for people or as JSON.

use clap::{Args, ValueEnum};
use std::io::IsTerminal;
use tracing::level_filters::LevelFilter;

/// How the log looks.
#[derive(Args, Clone, Copy, Debug)]
#[group(skip)]
pub struct Options {
    /// Lines for people, or one JSON object a line.
    #[arg(long, value_enum, default_value_t = Format::Human)]
    pub log_format: Format,
    /// What is worth a line.
    #[arg(long, value_enum, default_value_t = Level::Info)]
    pub log_level: Level,
}

/// The form of a line.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum Format {
    /// For people.
    Human,
    /// One object a line.
    Json,
}

/// The least important event that is logged.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum Level {
    /// What ends the process, or loses something.
    Error,
    /// What somebody should look at.
    Warn,
    /// Start, stop, checkpoints.
    Info,
    /// Sessions and requests.
    Debug,
    /// Everything.
    Trace,
}

/// Sends the events of this process to stderr. Only the first call of a process has an effect.
pub fn init(options: &Options) {
    let level = match options.log_level {
        Level::Error => LevelFilter::ERROR,
        Level::Warn => LevelFilter::WARN,
        Level::Info => LevelFilter::INFO,
        Level::Debug => LevelFilter::DEBUG,
        Level::Trace => LevelFilter::TRACE,
    };
    let builder = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    let done = match options.log_format {
        Format::Human => builder.try_init(),
        Format::Json => builder.json().flatten_event(true).try_init(),
    };
    if done.is_err() {
        tracing::debug!("the log was set up before");
    }
}
