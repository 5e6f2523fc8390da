//! What stops the process on the spot: a write that the disk refuses.
//!
//! A replica whose write failed must neither go on nor tell anybody: the page cache is not in the
//! way (O_DIRECT), so what was not written is simply not there, and the journal says so at the next
//! start.

use std::path::PathBuf;

/// Why a write was refused.
#[derive(Debug, thiserror::Error)]
pub enum DiskFatal {
    /// No room.
    #[error("the disk of {path} is full (write at {offset}): make room, then start again")]
    Full {
        /// The data file.
        path: PathBuf,
        /// Where the write went.
        offset: u64,
    },
    /// Any other reason.
    #[error(
        "the disk of {path} refuses a write of {size} bytes at {offset}: {error}; check the \
         device (dmesg, smartctl) before starting again"
    )]
    Refused {
        /// The data file.
        path: PathBuf,
        /// Where the write went.
        offset: u64,
        /// Bytes that were left to write.
        size: usize,
        /// What the kernel said.
        error: std::io::Error,
    },
}

impl DiskFatal {
    /// Exit status of the process; numbers are never used again, see `vsr::FatalReason`.
    #[must_use]
    pub fn exit_status(&self) -> i32 {
        match self {
            Self::Full { .. } => 20,
            Self::Refused { .. } => 21,
        }
    }
}

/// Logs the reason and ends the process: nothing may follow a write that failed.
#[expect(
    clippy::exit,
    reason = "storage has no errors: the promise of the Storage trait"
)]
pub fn fatal(reason: &DiskFatal) -> ! {
    let status = reason.exit_status();
    tracing::error!(status, "{reason}");
    std::process::exit(status)
}
