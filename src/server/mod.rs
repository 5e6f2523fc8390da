//! Production: disk on io_uring, network on glommio.
//!
//! Threads: `replica` runs the core and owns the data file; `network-N` accept, read, check and
//! write frames. They share two rings of frames and a few counters, see `network`. All memory has
//! a bound that is fixed at the start, see [`memory_bound`]; what is beyond it is not read from the
//! sockets.

pub mod data_file;
pub mod executor;
pub mod fatal;
pub mod host;
pub mod memory;
pub mod network;
pub mod options;
pub mod ring;
pub mod signals;
pub mod space;
#[cfg(test)]
mod tests;
pub mod wake;
pub mod workers;

pub use data_file::{DataFile, DataFileError};
pub use host::HostError;
pub use network::ServerNetwork;
pub use options::{OptionsError, ServerOptions, memory_bound};

use crate::io::{Io, Storage};
use crate::stdx::{Job, SectorBuf};
use futures_util::task::AtomicWaker;
use ring::Ring;
use signals::Signals;
use space::Space;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use wake::CoreWake;
use workers::Workers;

/// Why the server does not start.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The host lacks something.
    #[error(transparent)]
    Host(#[from] HostError),
    /// The options do not fit each other.
    #[error(transparent)]
    Options(#[from] OptionsError),
    /// An address cannot be had.
    #[error("cannot listen on {address}: {error}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// What the kernel said.
        error: io::Error,
    },
    /// A network core does not start.
    #[error("network core {index} does not start: {reason}")]
    NetworkCore {
        /// Its index.
        index: usize,
        /// What glommio said.
        reason: String,
    },
    /// The replica core does not start.
    #[error("the replica core cannot {action}: {error}")]
    Core {
        /// What was tried.
        action: &'static str,
        /// What the kernel said.
        error: io::Error,
    },
}

/// The data file as the core sees it.
#[derive(Clone, Debug)]
pub struct ServerStorage {
    ring: Rc<Ring>,
    /// `None` for what does not serve.
    space: Option<Rc<Space>>,
}

impl Storage for ServerStorage {
    fn size(&self) -> u64 {
        self.ring.file().size()
    }

    fn reserve(&self, size: u64, limit: u64) -> u64 {
        match &self.space {
            Some(space) => space.reserve(size, limit),
            None => u64::MAX,
        }
    }

    fn read(&self, offset: u64, buffer: SectorBuf) -> impl Future<Output = SectorBuf> {
        self.ring.read(offset, buffer)
    }

    fn write(
        &self,
        offset: u64,
        buffer: SectorBuf,
        size: usize,
    ) -> impl Future<Output = SectorBuf> {
        self.ring.write(offset, buffer, size)
    }
}

/// All that the core gets from outside, in production.
#[derive(Debug)]
pub struct ServerIo {
    storage: ServerStorage,
    network: ServerNetwork,
    workers: Workers,
}

impl Io for ServerIo {
    type Storage = ServerStorage;
    type Network = ServerNetwork;

    fn storage(&self) -> &ServerStorage {
        &self.storage
    }

    fn network(&self) -> &ServerNetwork {
        &self.network
    }

    fn monotonic(&self) -> u64 {
        ring::monotonic()
    }

    fn realtime(&self) -> u64 {
        ring::realtime()
    }

    fn spawn(&self, job: Job) {
        self.workers.spawn(job);
    }

    fn sleep(&self, nanoseconds: u64) -> impl Future<Output = ()> {
        self.storage.ring.sleep(nanoseconds)
    }
}

/// Checks the host, binds the addresses, starts the network cores and runs the core on a thread of
/// its own until its future completes. Then what is queued is sent, and all threads end.
///
/// # Errors
/// When something keeps the server from starting; the core has not run then.
pub fn run<F, C>(options: &ServerOptions, file: DataFile, core: C) -> Result<F::Output, ServerError>
where
    C: FnOnce(Rc<ServerIo>) -> F + Send,
    F: Future,
    F::Output: Send,
{
    options.check()?;
    host::check(options.network_cores)?;
    if host::has_swap() && !host::lock_memory() {
        tracing::warn!(
            "the host swaps, and the memory of the server cannot be locked: switch swap off, or set \
             LimitMEMLOCK=infinity"
        );
    }
    memory::keep();
    on_replica_thread(|| {
        let wake = core_wake()?;
        let action = "handle signals";
        let signals = options.signals.then(|| Signals::install(&wake)).transpose();
        let signals = signals.map_err(|error| ServerError::Core { action, error })?;
        let action = "start the thread that reserves space";
        let space = Space::new(&file).map_err(|error| ServerError::Core { action, error })?;
        let ring = core_ring(file, &wake)?;
        let action = "start the thread that touches memory";
        memory::start(options.state_memory).map_err(|error| ServerError::Core { action, error })?;
        let inbox = Arc::new(AtomicWaker::new());
        let network = ServerNetwork::start(options, Arc::clone(&inbox), signals)?;
        let storage = ServerStorage {
            ring: Rc::clone(&ring),
            space: Some(Rc::new(space)),
        };
        let action = "start the threads for compaction";
        let workers = Workers::new(options.compaction_threads);
        let workers = workers.map_err(|error| ServerError::Core { action, error })?;
        let io = Rc::new(ServerIo {
            storage,
            network,
            workers,
        });
        let core = core(Rc::clone(&io));
        let output = executor::block_on(&ring, &wake, || inbox.wake(), core);
        // The last reference: the network sends what it has.
        drop(io);
        Ok(output)
    })
}

/// Runs something that needs the data file only, such as making or inspecting one.
///
/// # Errors
/// When the host has no ring to offer.
pub fn block_on_file<F, C>(file: DataFile, task: C) -> Result<F::Output, ServerError>
where
    C: FnOnce(ServerStorage) -> F + Send,
    F: Future,
    F::Output: Send,
{
    host::check(0)?;
    on_replica_thread(|| {
        let wake = core_wake()?;
        let ring = core_ring(file, &wake)?;
        let task = task(ServerStorage {
            ring: Rc::clone(&ring),
            space: None,
        });
        Ok(executor::block_on(&ring, &wake, || {}, task))
    })
}

fn core_wake() -> Result<Arc<CoreWake>, ServerError> {
    CoreWake::new().map_err(|error| ServerError::Core {
        action: "make an eventfd",
        error,
    })
}

fn core_ring(file: DataFile, wake: &Arc<CoreWake>) -> Result<Rc<Ring>, ServerError> {
    Ring::new(file, Arc::clone(wake)).map_err(|error| ServerError::Core {
        action: "set up its ring",
        error,
    })
}

/// Runs `body` on a thread named `replica`, and passes a panic on.
fn on_replica_thread<T: Send>(
    body: impl FnOnce() -> Result<T, ServerError> + Send,
) -> Result<T, ServerError> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new()
            .name("replica".into())
            .spawn_scoped(scope, body)
            .map_err(|error| ServerError::Core {
                action: "start its thread",
                error,
            })?;
        thread
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}
