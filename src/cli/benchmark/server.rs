//! The server that a benchmark starts for itself, stops, kills and starts again, and what it used.
#![expect(
    clippy::disallowed_types,
    reason = "starts are timed, over sockets of this client"
)]
#![expect(
    clippy::disallowed_methods,
    reason = "the load generator may wait as it likes"
)]

use super::connection::Connection;
use super::options::Options;
use super::process::Process;
use crate::cli::exit::{Status, failure};
use crate::cli::inspect::DataFile;
use anyhow::Context;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

/// How long a server may take until it listens.
const START_PATIENCE: Duration = Duration::from_secs(3600);
/// How often that is looked at.
const START_PAUSE: Duration = Duration::from_millis(1);

/// A server process and its data file. Dropping it ends the one and removes the other.
#[derive(Debug)]
pub struct Server {
    child: Child,
    address: SocketAddr,
    file: PathBuf,
    keep: bool,
    file_empty: u64,
    /// The most memory of those processes that ended.
    memory: Option<u64>,
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
    /// What the last checkpoint holds.
    pub live: Live,
}

/// What the last checkpoint of a file holds.
#[derive(Clone, Copy, Debug)]
pub struct Live {
    /// Bytes of the blocks that it lists; those of the list itself are not among them.
    pub bytes: u64,
    /// The server's time of its last op.
    pub timestamp: u64,
}

impl Server {
    /// Makes a data file, and serves it on a free port.
    pub fn start(options: &Options) -> anyhow::Result<Self> {
        let unique = format!("daftari-benchmark-{}.daftari", std::process::id());
        let file = options.file.clone().unwrap_or_else(|| unique.into());
        let status = Command::new(binary()?)
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
        let file_empty = size_on_disk(&file)?;
        let (child, address) = spawn(options, &file)?;
        let mut server = Self {
            child,
            address,
            file,
            keep: options.file.is_some(),
            file_empty,
            memory: None,
        };
        server.wait_until_it_listens()?;
        Ok(server)
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

    /// The process as it runs now.
    #[must_use]
    pub fn process(&self) -> Process {
        Process(self.child.id())
    }

    /// Kills it as a crash would, and starts it again; gives the time from the start to the first
    /// reply.
    pub fn crash(&mut self, options: &Options) -> anyhow::Result<Duration> {
        self.check_alive()?;
        self.note_memory();
        self.child.kill()?;
        self.child.wait()?;
        self.start_again(options)
    }

    /// Stops it as an operator would, and starts it again; gives the same.
    pub fn restart(&mut self, options: &Options) -> anyhow::Result<Duration> {
        self.terminate()?;
        self.start_again(options)
    }

    /// Stops it as an operator would, for good.
    pub fn stop(&mut self) -> anyhow::Result<Usage> {
        self.terminate()?;
        Ok(Usage {
            memory: self.memory,
            file_empty: self.file_empty,
            file: size_on_disk(&self.file)?,
            live: live(&self.file)?,
        })
    }

    fn terminate(&mut self) -> anyhow::Result<()> {
        self.check_alive()?;
        self.note_memory();
        let id = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(id, rustix::process::Signal::TERM)?;
        let status = self.child.wait()?;
        if !status.success() {
            return Err(failure(
                Status::Server,
                format!("the server ended badly: {status}"),
            ));
        }
        Ok(())
    }

    /// On another port: the sockets of one that was killed may accept for a moment longer.
    fn start_again(&mut self, options: &Options) -> anyhow::Result<Duration> {
        let begin = Instant::now();
        (self.child, self.address) = spawn(options, &self.file)?;
        self.wait_until_it_listens()?;
        // To register a client is an op: everything before it has been replayed by then.
        Connection::open(self.address, options.cluster, 0)?;
        Ok(begin.elapsed())
    }

    fn wait_until_it_listens(&mut self) -> anyhow::Result<()> {
        let begin = Instant::now();
        while TcpStream::connect(self.address).is_err() {
            self.check_alive()?;
            if begin.elapsed() > START_PATIENCE {
                let seconds = START_PATIENCE.as_secs();
                let sentence = format!("the server does not listen after {seconds} s");
                return Err(failure(Status::Server, sentence));
            }
            std::thread::sleep(START_PAUSE);
        }
        Ok(())
    }

    fn check_alive(&mut self) -> anyhow::Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => Err(ended(status)),
        }
    }

    fn note_memory(&mut self) {
        self.memory = self.memory.max(self.process().memory_peak());
    }
}

/// Why a server that nobody has stopped is gone.
fn ended(status: ExitStatus) -> anyhow::Error {
    if status.code() == Some(Status::Usage as i32) {
        return failure(
            Status::Usage,
            "`daftari start` refused its arguments, as said above; check --server-arg",
        );
    }
    failure(
        Status::Server,
        format!("the server ended by itself: {status}"),
    )
}

fn binary() -> anyhow::Result<PathBuf> {
    std::env::current_exe().context("finding this program itself")
}

fn spawn(options: &Options, file: &Path) -> anyhow::Result<(Child, SocketAddr)> {
    let address = free_address()?;
    let mut command = Command::new(binary()?);
    command
        .arg("start")
        .arg(format!("--addresses={address}"))
        .args(&options.server_arg);
    let named = |name: &str| options.server_arg.iter().any(|arg| arg.starts_with(name));
    if !named("--log-level") {
        command.arg("--log-level=warn");
    }
    if let Some(limit) = options.limit_memory {
        command.arg(format!("--limit-memory={limit}"));
    }
    let child = command.arg(file).spawn();
    Ok((child.context("starting `daftari start`")?, address))
}

/// What the last checkpoint of a file holds that nobody serves.
fn live(file: &Path) -> anyhow::Result<Live> {
    // The kernel keeps the lock of a process for a moment after it; so it is not asked for.
    let superblock = DataFile::open(file, true)?.superblock()?;
    let block_size = u64::from(superblock.geometry.block_size.get());
    Ok(Live {
        bytes: superblock.checkpoint_block_count.get() * block_size,
        timestamp: superblock.checkpoint.timestamp.get(),
    })
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
