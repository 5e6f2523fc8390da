//! How the server is set up, and what that costs in memory at most.

use super::host;
use super::network::{
    CHARGE_MIN, CONNECTION_SIZE, PEER_FRAMES_MAX, PEER_SEND_MEMORY, SEND_FRAMES_MAX,
};
use crate::constants::{MESSAGE_SIZE_MAX, PEER_MESSAGE_SIZE_MAX, PIPELINE_PREPARES_MAX};
use crate::stdx::to_u64;
use std::net::SocketAddr;

/// How to serve.
#[derive(Clone, Debug)]
pub struct ServerOptions {
    /// Addresses to listen on; port 0 takes any.
    pub listen: Vec<SocketAddr>,
    /// The other replicas of the cluster: their indexes, and where they listen.
    pub peers: Vec<(u8, SocketAddr)>,
    /// The cluster; frames of others are refused.
    pub cluster: u128,
    /// Threads for the network.
    pub network_cores: usize,
    /// Processors for them, one each; empty leaves the choice to the server.
    pub network_cpus: Vec<usize>,
    /// Bytes of requests between the sockets and the core.
    pub message_memory: u64,
    /// Bytes of replies between the core and the sockets.
    pub send_memory: u64,
    /// Connections at the same time.
    pub connections_max: usize,
    /// Bytes of memory for the state that are touched before they are used, a few at a time.
    pub state_memory: u64,
    /// Threads that sort, merge and checksum beside the replica core.
    pub compaction_threads: usize,
    /// Whether SIGTERM and SIGINT shut this server down; one in a process can have them.
    pub signals: bool,
}

impl Default for ServerOptions {
    fn default() -> Self {
        Self {
            listen: Vec::new(),
            peers: Vec::new(),
            cluster: 0,
            network_cores: 1,
            network_cpus: Vec::new(),
            message_memory: 64 << 20,
            send_memory: 256 << 20,
            connections_max: 1024,
            state_memory: 0,
            compaction_threads: 0,
            signals: true,
        }
    }
}

/// What does not fit among the options.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum OptionsError {
    /// Nobody would take connections.
    #[error("no address to listen on: give --addresses")]
    NoAddress,
    /// No thread for the network.
    #[error("the number of network cores is 0: at least 1 is needed")]
    NoNetworkCores,
    /// Not as many processors as network cores.
    #[error("{cpus} processors are named for {cores} network cores: name one for each, or none")]
    Cpus {
        /// Processors named.
        cpus: usize,
        /// Network cores.
        cores: usize,
    },
    /// A network core cannot hold a message.
    #[error("memory for messages is {actual} bytes, the least for the network cores is {needed}")]
    Memory {
        /// The smaller of the two amounts.
        actual: u64,
        /// What is needed.
        needed: u64,
    },
    /// Fewer connections than network cores.
    #[error("the most connections is {connections}, fewer than the {cores} network cores")]
    Connections {
        /// Connections.
        connections: usize,
        /// Network cores.
        cores: usize,
    },
}

impl ServerOptions {
    /// Whether the options fit each other.
    ///
    /// # Errors
    /// The first thing that does not fit.
    pub fn check(&self) -> Result<(), OptionsError> {
        let (cores, cpus) = (self.network_cores, self.network_cpus.len());
        if self.listen.is_empty() {
            return Err(OptionsError::NoAddress);
        }
        if cores == 0 {
            return Err(OptionsError::NoNetworkCores);
        }
        if cpus != 0 && cpus != cores {
            return Err(OptionsError::Cpus { cpus, cores });
        }
        // A message, and what a permit counts on top.
        let needed = (to_u64(MESSAGE_SIZE_MAX) + CHARGE_MIN) * to_u64(cores);
        let actual = self.message_memory.min(self.send_memory);
        if actual < needed {
            return Err(OptionsError::Memory { actual, needed });
        }
        if self.connections_max < cores {
            return Err(OptionsError::Connections {
                connections: self.connections_max,
                cores,
            });
        }
        Ok(())
    }

    /// Bytes of requests per network core.
    pub(super) fn core_memory(&self) -> u64 {
        self.message_memory / to_u64(self.network_cores)
    }

    /// Bytes of frames of peers per network core: as much as the core may hold at a time, the prepares of
    /// a pipeline, and the same again for what is arriving.
    pub(super) fn core_peer_memory(&self) -> u64 {
        const MEMORY: u64 =
            2 * PIPELINE_PREPARES_MAX * (to_u64(PEER_MESSAGE_SIZE_MAX) + CHARGE_MIN);
        if self.peers.is_empty() { 0 } else { MEMORY }
    }

    /// Connections per network core.
    pub(super) fn core_connections(&self) -> usize {
        self.connections_max / self.network_cores
    }

    /// Connections of peers per network core, for when clients have taken all others. The kernel deals them
    /// out, so all may be on one; and one that is lost may linger beside its successor.
    pub(super) fn core_peer_connections(&self) -> usize {
        2 * self.peers.len()
    }

    /// The processor of a network core. Unless asked, threads are bound only where there are
    /// several network cores and processors to spare: on a small machine the scheduler knows better.
    pub(super) fn network_cpu(&self, index: usize) -> Option<usize> {
        if !self.network_cpus.is_empty() {
            return Some(self.network_cpus[index]);
        }
        let allowed = host::cpus_allowed();
        // The first one is where interrupts go, and the replica core needs one of its own.
        let spare = self.network_cores > 1 && allowed.len() >= 2 * (self.network_cores + 1);
        spare.then(|| allowed[index + 1])
    }
}

/// Bytes that the buffers of the network take at most, whatever clients do.
#[must_use]
pub fn memory_bound(options: &ServerOptions) -> u64 {
    const RING_ENTRY: u64 = 64;
    let peer_connections = options.network_cores * options.core_peer_connections();
    let connections = to_u64(options.connections_max + peer_connections);
    let peers = to_u64(options.peers.len());
    let from_peers = to_u64(options.network_cores) * options.core_peer_memory();
    let rings = (options.message_memory + from_peers) / CHARGE_MIN
        + connections * to_u64(SEND_FRAMES_MAX)
        + peers * to_u64(PEER_FRAMES_MAX);
    options.message_memory
        + options.send_memory
        + from_peers
        + peers * (PEER_SEND_MEMORY + CONNECTION_SIZE)
        + connections * CONNECTION_SIZE
        + rings * RING_ENTRY
        + to_u64(options.network_cores) * (4 << 20)
}

#[cfg(test)]
mod tests {
    use super::{OptionsError, PEER_SEND_MEMORY, ServerOptions, memory_bound};

    #[test]
    fn options_that_do_not_fit_are_named() {
        let listen = vec!["127.0.0.1:0".parse().unwrap()];
        let good = ServerOptions {
            listen,
            ..ServerOptions::default()
        };
        assert_eq!(good.check(), Ok(()));
        let alone = memory_bound(&good);
        assert!(alone > good.message_memory + good.send_memory);
        let peer = (1, good.listen[0]);
        let with_peers = |peers| {
            memory_bound(&ServerOptions {
                peers,
                ..good.clone()
            })
        };
        let (one, two) = (with_peers(vec![peer]), with_peers(vec![peer, peer]));
        assert!(one > alone + PEER_SEND_MEMORY && two > one + PEER_SEND_MEMORY);
        let bad = |change: fn(&mut ServerOptions)| {
            let mut options = good.clone();
            change(&mut options);
            options.check().unwrap_err()
        };
        assert_eq!(
            bad(|options| options.listen.clear()),
            OptionsError::NoAddress
        );
        assert_eq!(
            bad(|options| options.network_cores = 0),
            OptionsError::NoNetworkCores
        );
        assert_eq!(
            bad(|options| options.network_cpus = vec![0, 1]),
            OptionsError::Cpus { cpus: 2, cores: 1 }
        );
        assert!(matches!(
            bad(|options| options.message_memory = 1 << 20),
            OptionsError::Memory {
                actual: 1_048_576,
                ..
            }
        ));
        assert!(matches!(
            bad(|options| options.connections_max = 0),
            OptionsError::Connections { .. }
        ));
    }
}
