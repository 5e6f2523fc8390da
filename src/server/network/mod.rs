//! Clients: the core's end of the network cores.
//!
//! Every network core has a ring in each direction. Frames wake the core through `inbox`, replies
//! wake the pump of the network core through `link`. A connection belongs to the network core that its number
//! names, so its frames and replies stay in order.
//!
//! A ping of 256 bytes takes 60 to 125 us through both threads on a busy 2-core machine, where a
//! plain blocking echo takes 20 us (`latency_of_a_ping`).

mod budget;
mod connection;
mod executor;
mod link;
mod listen;

use super::ServerError;
use super::options::ServerOptions;
use super::signals::Signals;
use crate::io::{ConnectionId, Incoming, Network};
use crate::stdx::{to_u64, u64_to_usize};
use bytes::Bytes;
use connection::{Arrived, Outgoing};
use futures_util::task::AtomicWaker;
use link::Link;
use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;
use std::thread::JoinHandle;

pub use budget::CHARGE_MIN;
pub use connection::SEND_FRAMES_MAX;

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
    /// Frames of the core that found no room and were dropped.
    pub dropped: AtomicU64,
}

/// One network core as the core sees it.
#[derive(Debug)]
struct CoreEnd {
    link: Arc<Link>,
    incoming: RefCell<rtrb::Consumer<Arrived>>,
    outgoing: RefCell<rtrb::Producer<Outgoing>>,
    thread: Option<JoinHandle<()>>,
}

/// Clients, on the network cores. Dropping it sends what is queued and ends the threads.
#[derive(Debug)]
pub struct ServerNetwork {
    ends: Vec<CoreEnd>,
    inbox: Arc<AtomicWaker>,
    /// Where the search for a frame goes on, so that no network core is preferred.
    next: Cell<usize>,
    /// Bytes of frames to send, per network core.
    send_memory: u64,
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
        let counters = Arc::<Counters>::default();
        let send_memory = options.send_memory / to_u64(count);
        let mut this = Self {
            ends: Vec::new(),
            inbox,
            next: Cell::new(0),
            send_memory,
            signals: RefCell::new(signals),
            addresses,
            counters,
        };
        for (index, listeners) in sockets.into_iter().enumerate() {
            let end = this.start_core(options, index, listeners)?;
            this.ends.push(end);
        }
        Ok(this)
    }

    fn start_core(
        &self,
        options: &ServerOptions,
        index: usize,
        listeners: Vec<std::net::TcpListener>,
    ) -> Result<CoreEnd, ServerError> {
        let memory = options.core_memory();
        let connections_max = options.core_connections();
        let (to_core, incoming) = rtrb::RingBuffer::new(u64_to_usize(memory / CHARGE_MIN));
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
            connections_max,
            memory,
            bell,
            link: Arc::clone(&link),
            inbox: Arc::clone(&self.inbox),
            incoming: to_core,
            outgoing: from_core,
            counters: Arc::clone(&self.counters),
        };
        let thread =
            executor::spawn(setup).map_err(|reason| ServerError::NetworkCore { index, reason })?;
        let (incoming, outgoing) = (RefCell::new(incoming), RefCell::new(outgoing));
        Ok(CoreEnd {
            link,
            incoming,
            outgoing,
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
        let count = self.ends.len();
        for step in 0..count {
            let index = (self.next.get() + step) % count;
            if let Ok(arrived) = self.ends[index].incoming.borrow_mut().pop() {
                self.next.set((index + 1) % count);
                let Arrived {
                    connection,
                    header,
                    body,
                } = arrived;
                return Some(Incoming::Frame {
                    connection,
                    header,
                    body,
                });
            }
        }
        None
    }

    fn send(&self, connection: ConnectionId, frame: Bytes) {
        let end = &self.ends[u64_to_usize(connection.0 % to_u64(self.ends.len()))];
        let Some(outgoing) = Outgoing::new(connection, frame, &end.link, self.send_memory) else {
            return self.drop_frame(connection);
        };
        match end.outgoing.borrow_mut().push(outgoing) {
            Ok(()) => end.link.wake(),
            Err(rtrb::PushError::Full(_)) => self.drop_frame(connection),
        }
    }

    fn send_peer(&self, _replica: u8, _frame: Bytes) {}
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
