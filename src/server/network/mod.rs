//! Clients and peers: the core's end of the network cores.
//!
//! Every network core has a ring for replies, and a `lane` each for what comes from clients and from
//! peers. Frames wake the core through `inbox`, replies wake the pump of the network core through `link`.
//! A connection belongs to the network core that its number names, so its frames and replies stay in
//! order. Frames for other replicas go out through the first network core, see `peer`.
//!
//! A ping of 256 bytes takes 60 to 125 us through both threads on a busy 2-core machine, where a
//! plain blocking echo takes 20 us (`latency_of_a_ping`).

mod budget;
mod connection;
mod executor;
mod lane;
mod link;
mod listen;
mod peer;
mod room;

use super::ServerError;
use super::options::ServerOptions;
use super::signals::Signals;
use crate::io::{ConnectionId, Incoming, Network};
use crate::stdx::{to_u64, u64_to_usize};
use bytes::Bytes;
use connection::{Arrived, Outgoing};
use futures_util::task::AtomicWaker;
use lane::LaneSetup;
use link::Link;
use peer::{Peer, PeerEnd};
use room::Room;
use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;
use std::thread::JoinHandle;

pub use budget::CHARGE_MIN;
pub use connection::SEND_FRAMES_MAX;
pub use peer::{PEER_FRAMES_MAX, PEER_SEND_MEMORY};

/// Bytes that a connection takes beside its frames: its task, its queue, and the kernel's source.
pub const CONNECTION_SIZE: u64 = 8 * 1024;

/// What happened on the network since the start.
#[derive(Debug, Default)]
pub struct Counters {
    /// Connections accepted.
    pub accepted: AtomicU64,
    /// Connections closed at once because there were too many.
    pub refused: AtomicU64,
    /// Failures to accept.
    pub accept_errors: AtomicU64,
    /// Connections closed for what they sent.
    pub bad_frames: AtomicU64,
    /// Connections closed because the peer did not take its replies.
    pub slow: AtomicU64,
    /// Connections that ended in another way.
    pub closed: AtomicU64,
    /// Replies of the core that found no room and were dropped.
    pub dropped: AtomicU64,
    /// Frames for connected peers that found no room and were dropped.
    pub peer_dropped: AtomicU64,
}

/// One network core as the core sees it.
#[derive(Debug)]
struct CoreEnd {
    link: Arc<Link>,
    clients: RefCell<rtrb::Consumer<Arrived>>,
    peers: RefCell<rtrb::Consumer<Arrived>>,
    outgoing: RefCell<rtrb::Producer<Outgoing>>,
    /// For the frames in `outgoing`, and beyond.
    room: Arc<Room>,
    thread: Option<JoinHandle<()>>,
}

/// Clients and peers, on the network cores. Dropping it sends clients what is queued and ends the
/// threads.
#[derive(Debug)]
pub struct ServerNetwork {
    ends: Vec<CoreEnd>,
    peers: Vec<PeerEnd>,
    inbox: Arc<AtomicWaker>,
    /// Where the search for a frame goes on, so that no network core is preferred.
    next: Cell<usize>,
    signals: RefCell<Option<Signals>>,
    addresses: Vec<SocketAddr>,
    counters: Arc<Counters>,
}

impl ServerNetwork {
    /// Binds all addresses and starts the network cores.
    pub(super) fn start(
        options: &ServerOptions,
        inbox: Arc<AtomicWaker>,
        signals: Option<Signals>,
    ) -> Result<Self, ServerError> {
        let count = options.network_cores;
        let mut sockets: Vec<Vec<std::net::TcpListener>> = (0..count).map(|_| Vec::new()).collect();
        let mut addresses = Vec::new();
        for address in &options.listen {
            let bound = listen::bind_patiently(*address, count)
                .and_then(|bound| Ok((bound[0].local_addr()?, bound)))
                .map_err(|error| ServerError::Bind {
                    address: *address,
                    error,
                })?;
            addresses.push(bound.0);
            for (core, socket) in sockets.iter_mut().zip(bound.1) {
                core.push(socket);
            }
        }
        let (ends, peers) = options
            .peers
            .iter()
            .map(|(replica, address)| peer::new(*replica, *address))
            .unzip();
        let mut this = Self {
            ends: Vec::new(),
            peers: ends,
            inbox,
            next: Cell::new(0),
            signals: RefCell::new(signals),
            addresses,
            counters: Arc::default(),
        };
        // All for the first network core.
        let mut peers = Some(peers);
        for (index, listeners) in sockets.into_iter().enumerate() {
            let peers = peers.take().unwrap_or_default();
            let end = this.start_core(options, index, (listeners, peers))?;
            this.ends.push(end);
        }
        Ok(this)
    }

    fn start_core(
        &self,
        options: &ServerOptions,
        index: usize,
        (listeners, peers): (Vec<std::net::TcpListener>, Vec<Peer>),
    ) -> Result<CoreEnd, ServerError> {
        let connections_max = options.core_connections();
        let (clients, clients_end) = LaneSetup::new(options.core_memory());
        let (from_peers, peers_end) = LaneSetup::new(options.core_peer_memory());
        let (outgoing, from_core) = rtrb::RingBuffer::new(connections_max * SEND_FRAMES_MAX);
        let (link, bell) = Link::new().map_err(|error| ServerError::NetworkCore {
            index,
            reason: error.to_string(),
        })?;
        let setup = executor::Setup {
            index,
            count: options.network_cores,
            cpu: options.network_cpu(index),
            cluster: options.cluster,
            listeners,
            peers,
            connections_max,
            peer_connections_max: options.core_peer_connections(),
            bell,
            link: Arc::clone(&link),
            inbox: Arc::clone(&self.inbox),
            clients,
            from_peers,
            outgoing: from_core,
            counters: Arc::clone(&self.counters),
        };
        let thread =
            executor::spawn(setup).map_err(|reason| ServerError::NetworkCore { index, reason })?;
        Ok(CoreEnd {
            link,
            clients: RefCell::new(clients_end),
            peers: RefCell::new(peers_end),
            outgoing: RefCell::new(outgoing),
            room: Room::new(options.send_memory / to_u64(options.network_cores)),
            thread: Some(thread),
        })
    }

    /// The addresses bound, with the ports that were chosen for 0.
    #[must_use]
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// What happened since the start.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// The next frame of the lane, of whichever network core.
    fn pop(&self, lane: impl Fn(&CoreEnd) -> &RefCell<rtrb::Consumer<Arrived>>) -> Option<Arrived> {
        let count = self.ends.len();
        (0..count).find_map(|step| {
            let index = (self.next.get() + step) % count;
            let arrived = lane(&self.ends[index]).borrow_mut().pop().ok()?;
            self.next.set((index + 1) % count);
            Some(arrived)
        })
    }

    fn drop_frame(&self, connection: ConnectionId) {
        let before = self.counters.dropped.fetch_add(1, Ordering::Relaxed);
        if before.is_power_of_two() || before == 0 {
            tracing::warn!(
                dropped = before + 1,
                connection = connection.0,
                "no room for a reply"
            );
        }
    }

    fn drop_peer_frame(&self, replica: u8) {
        let before = self.counters.peer_dropped.fetch_add(1, Ordering::Relaxed);
        if before.is_power_of_two() || before == 0 {
            tracing::warn!(
                dropped = before + 1,
                replica,
                "no room for a frame for a peer"
            );
        }
    }
}

impl Network for ServerNetwork {
    fn receive(&self) -> impl Future<Output = Incoming> {
        poll_fn(|context| {
            if let Some(incoming) = self.try_receive() {
                return Poll::Ready(incoming);
            }
            self.inbox.register(context.waker());
            // What came before the registration has not woken anybody.
            self.try_receive().map_or(Poll::Pending, Poll::Ready)
        })
    }

    fn try_receive(&self) -> Option<Incoming> {
        if self
            .signals
            .borrow_mut()
            .as_mut()
            .is_some_and(Signals::take)
        {
            return Some(Incoming::Shutdown);
        }
        let arrived = self.pop(|end| &end.peers);
        let arrived = arrived.or_else(|| self.pop(|end| &end.clients));
        arrived.map(|arrived| Incoming::Frame {
            connection: arrived.connection,
            header: arrived.header,
            body: arrived.body,
        })
    }

    fn send(&self, connection: ConnectionId, frame: Bytes) {
        let end = &self.ends[u64_to_usize(connection.0 % to_u64(self.ends.len()))];
        let Some(sending) = end.room.take(frame) else {
            return self.drop_frame(connection);
        };
        let outgoing = Outgoing {
            connection,
            sending,
        };
        match end.outgoing.borrow_mut().push(outgoing) {
            Ok(()) => end.link.wake(),
            Err(rtrb::PushError::Full(_)) => self.drop_frame(connection),
        }
    }

    fn send_peer(&self, replica: u8, frame: Bytes) {
        let peer = self.peers.iter().find(|peer| peer.replica == replica);
        let Some(peer) = peer.filter(|peer| peer.is_connected()) else {
            return;
        };
        if peer.send(frame) {
            self.ends[0].link.wake();
        } else {
            self.drop_peer_frame(replica);
        }
    }
}

impl Drop for ServerNetwork {
    fn drop(&mut self) {
        for end in &self.ends {
            end.link.close();
        }
        for end in &mut self.ends {
            let thread = end.thread.take().expect("it is joined once");
            if thread.join().is_err() {
                tracing::error!("a network core has panicked");
            }
        }
    }
}
