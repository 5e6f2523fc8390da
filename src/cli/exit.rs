//! Exit statuses. Scripts and supervisors rely upon the numbers: they never change their meaning.
#![expect(clippy::print_stderr, reason = "the command line talks to its user")]

use crate::server::{DataFileError, ServerError};
use crate::vsr::FatalReason;
use std::process::ExitCode;

/// Why a command ended other than well.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub enum Status {
    /// The answer to what was asked is no: the file is damaged, a transfer was refused.
    Negative = 1,
    /// The command line was wrong.
    Usage = 2,
    /// Reading or writing failed, or the file is absent.
    InputOutput = 3,
    /// The data file is in use by another process.
    FileInUse = 4,
    /// The file is not a data file, or not one that can be used.
    FileUnusable = 5,
    /// The server does not answer, or has ended the session.
    Server = 6,
    /// Anything else.
    Other = 7,
}

/// An error that knows its status.
#[derive(Debug, thiserror::Error)]
#[error("{sentence}")]
pub struct Failure {
    /// The exit status.
    pub status: Status,
    /// What was wrong, where, and what to do about it.
    pub sentence: String,
}

/// An error with a status.
pub fn failure(status: Status, sentence: impl Into<String>) -> anyhow::Error {
    Failure {
        status,
        sentence: sentence.into(),
    }
    .into()
}

/// The status of an error: its own if it has one.
#[must_use]
pub fn status_of(error: &anyhow::Error) -> Status {
    match error.downcast_ref::<DataFileError>() {
        Some(DataFileError::InUse { .. }) => return Status::FileInUse,
        Some(_) => return Status::InputOutput,
        None => {}
    }
    if let Some(ServerError::Bind { .. }) = error.downcast_ref::<ServerError>() {
        return Status::InputOutput;
    }
    error.downcast_ref::<Failure>().map_or_else(
        || match error.downcast_ref::<std::io::Error>() {
            Some(_) => Status::InputOutput,
            None => Status::Other,
        },
        |failure| failure.status,
    )
}

/// Says what went wrong, if anything did, and gives the exit status.
#[must_use]
pub fn report(result: anyhow::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            match error.downcast_ref::<FatalReason>() {
                Some(reason) => ExitCode::from(reason.exit_status()),
                None => ExitCode::from(status_of(&error) as u8),
            }
        }
    }
}

/// Says what is wrong with the arguments; help and version are no errors.
#[must_use]
pub fn report_usage(error: &clap::Error) -> ExitCode {
    let printed = error.print();
    if error.use_stderr() || printed.is_err() {
        ExitCode::from(Status::Usage as u8)
    } else {
        ExitCode::SUCCESS
    }
}
