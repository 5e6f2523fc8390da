//! The server that a benchmark starts for itself, and what it used.

use super::Options;
use crate::cli::exit::{Status, failure};
use crate::stdx::to_u64;
use anyhow::Context;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

/// A server process and its data file. Dropping it ends the one and removes the other.
#[derive(Debug)]
pub struct Server {
    child: Child,
    address: SocketAddr,
    file: PathBuf,
    keep: bool,
    file_empty: u64,
}

/// What a server used.
#[derive(Clone, Copy, Debug)]
pub struct Usage {
    /// Bytes of memory at most, if the system says so.
    pub memory: Option<u64>,
    /// Bytes on disk after format.
    pub file_empty: u64,
    /// Bytes on disk in the end.
    pub file: u64,
}

impl Server {
    /// Makes a data file, and serves it on a free port.
    pub fn start(options: &Options) -> anyhow::Result<Self> {
        let unique = format!("daftari-benchmark-{}.daftari", std::process::id());
        let file = options.file.clone().unwrap_or_else(|| unique.into());
        let binary = std::env::current_exe().context("finding this program itself")?;
        let status = Command::new(&binary)
            .args(["format", "--replica=0", "--replica-count=1"])
            .arg(format!("--cluster={}", options.cluster))
            .arg(&file)
            .status()
            .context("starting `daftari format`")?;
        if !status.success() {
            return Err(failure(
                Status::Other,
                format!("`daftari format {}` failed; see above", file.display()),
            ));
        }
        let address = free_address()?;
        let mut command = Command::new(&binary);
        command
            .args(["start", "--log-level=warn"])
            .arg(format!("--addresses={address}"));
        if let Some(limit) = options.limit_memory {
            command.arg(format!("--limit-memory={limit}"));
        }
        let file_empty = size_on_disk(&file)?;
        let keep = options.file.is_some();
        let child = command
            .arg(&file)
            .spawn()
            .context("starting `daftari start`")?;
        Ok(Self {
            child,
            address,
            file,
            keep,
            file_empty,
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its data file.
    #[must_use]
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// Stops it, as an operator would.
    pub fn stop(&mut self) -> anyhow::Result<Usage> {
        let memory = memory_max(self.child.id());
        if let Some(status) = self.child.try_wait()? {
            return Err(failure(
                Status::Server,
                format!("the server ended by itself: {status}"),
            ));
        }
        let id = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(id, rustix::process::Signal::TERM)?;
        let status = self.child.wait()?;
        if !status.success() {
            return Err(failure(
                Status::Server,
                format!("the server ended badly: {status}"),
            ));
        }
        Ok(Usage {
            memory,
            file_empty: self.file_empty,
            file: size_on_disk(&self.file)?,
        })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may be gone already, in which case there is nothing to end.
        if let Ok(None) = self.child.try_wait() {
            let ended = self.child.kill().and_then(|()| self.child.wait());
            if let Err(error) = ended {
                tracing::warn!(%error, "the server could not be ended");
            }
        }
        if !self.keep
            && let Err(error) = std::fs::remove_file(&self.file)
        {
            tracing::warn!(%error, file = %self.file.display(), "the data file could not be removed");
        }
    }
}

/// A port that nobody listens on.
fn free_address() -> anyhow::Result<SocketAddr> {
    let listener =
        TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("looking for a free port")?;
    Ok(listener.local_addr()?)
}

/// Bytes that the file takes; holes take none.
fn size_on_disk(file: &Path) -> anyhow::Result<u64> {
    let metadata = std::fs::metadata(file)
        .with_context(|| format!("reading the size of {}", file.display()))?;
    Ok(metadata.blocks() * 512)
}

/// The most memory that the process had, from `/proc`.
fn memory_max(process: u32) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    parse_memory(&text)
}

fn parse_memory(status: &str) -> Option<u64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * to_u64(1024))
}

#[cfg(test)]
mod tests {
    use super::{memory_max, parse_memory};

    #[test]
    fn memory_is_the_high_water_mark() {
        let status = "Name:\tx\nVmPeak:\t  999 kB\nVmHWM:\t    2048 kB\nVmRSS:\t 1 kB\n";
        assert_eq!(parse_memory(status), Some(2 << 20));
        assert_eq!(parse_memory("Name:\tx\n"), None);
        assert!(memory_max(std::process::id()).is_some_and(|bytes| bytes > 1 << 20));
    }
}
