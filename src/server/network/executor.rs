//! A network core: a glommio executor on a thread of its own, with its listening sockets, its
//! connections, and the pump that takes frames from the core. The first one has the connections to
//! peers, too.

use super::Counters;
use super::connection::{Connection, Ended, Outgoing};
use super::lane::{LaneSetup, Lanes};
use super::link::Link;
use super::peer::Peer;
use crate::io::ConnectionId;
use crate::stdx::to_u64;
use futures_util::future::select;
use futures_util::io::AsyncReadExt;
use futures_util::task::AtomicWaker;
use glommio::net::{TcpListener, TcpStream, UnixStream};
use glommio::timer::Timer;
use glommio::{LocalExecutorBuilder, Placement, spawn_local};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::future::poll_fn;
use std::os::fd::{FromRawFd, IntoRawFd};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::task::{Context, Poll, Waker};
use std::thread::JoinHandle;
use std::time::Duration;

/// Registered buffers of the executor; sockets do not use them.
const IO_MEMORY: usize = 64 * 1024;
/// Entries of the executor's rings.
const RING_DEPTH: usize = 256;
/// When the descriptors are used up, accepting waits so long.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long connections may take to send what they have when the server shuts down.
const DRAIN_MAX: Duration = Duration::from_secs(2);
/// The longest that the executor may sleep.
const HEARTBEAT: Duration = Duration::from_millis(50);

/// What a network core is made of.
#[derive(Debug)]
pub struct Setup {
    /// Its index, below `count`.
    pub index: usize,
    /// Network cores.
    pub count: usize,
    /// Processor to run on.
    pub cpu: Option<usize>,
    /// Frames of other clusters are not for us.
    pub cluster: u128,
    /// Its sockets.
    pub listeners: Vec<std::net::TcpListener>,
    /// Connections at the same time.
    pub connections_max: usize,
    /// Beyond them, connections of peers.
    pub peer_connections_max: usize,
    /// The peers that it connects to.
    pub peers: Vec<Peer>,
    /// Wakes the pump.
    pub bell: std::os::unix::net::UnixStream,
    /// Shared with the core.
    pub link: Arc<Link>,
    /// Wakes the core for a frame.
    pub inbox: Arc<AtomicWaker>,
    /// Frames of clients to the core.
    pub clients: LaneSetup,
    /// Frames of peers.
    pub from_peers: LaneSetup,
    /// From the core.
    pub outgoing: rtrb::Consumer<Outgoing>,
    /// What happened.
    pub counters: Arc<Counters>,
}

/// Starts the thread, and returns when it serves.
///
/// # Errors
/// What kept the executor from starting.
pub fn spawn(setup: Setup) -> Result<JoinHandle<()>, String> {
    let placement = setup.cpu.map_or(Placement::Unbound, Placement::Fixed);
    let (started, wait) = mpsc::channel::<Result<(), String>>();
    let builder = std::thread::Builder::new().name(format!("network-{}", setup.index));
    let thread = builder.spawn(move || {
        let executor = LocalExecutorBuilder::new(placement)
            .io_memory(IO_MEMORY)
            .ring_depth(RING_DEPTH)
            .make();
        let executor = match executor {
            Ok(executor) => executor,
            Err(error) => return report(&started, Err(error.to_string())),
        };
        executor.run(async move {
            report(&started, Ok(()));
            serve(setup).await;
        });
    });
    let thread = thread.map_err(|error| error.to_string())?;
    wait.recv().map_err(|error| error.to_string())??;
    Ok(thread)
}

/// The receiver waits for exactly one report.
fn report(started: &mpsc::Sender<Result<(), String>>, result: Result<(), String>) {
    started.send(result).expect("the starter waits");
}

struct NetworkCore {
    index: u64,
    count: u64,
    cluster: u128,
    connections_max: usize,
    peer_connections_max: usize,
    connections: RefCell<BTreeMap<u64, Rc<Connection>>>,
    /// Connections so far.
    accepted: Cell<u64>,
    lanes: Lanes,
    counters: Arc<Counters>,
    /// Waits for the last connection to end.
    empty: RefCell<Option<Waker>>,
}

async fn serve(setup: Setup) {
    let core = Rc::new(NetworkCore {
        index: to_u64(setup.index),
        count: to_u64(setup.count),
        cluster: setup.cluster,
        connections_max: setup.connections_max,
        peer_connections_max: setup.peer_connections_max,
        connections: RefCell::default(),
        accepted: Cell::new(0),
        lanes: Lanes::new(setup.clients, setup.from_peers, &setup.link, setup.inbox),
        counters: setup.counters,
        empty: RefCell::new(None),
    });
    let accepts: Vec<_> = setup
        .listeners
        .into_iter()
        .map(|listener| spawn_local(accept(Rc::clone(&core), listener)))
        .collect();
    let peers: Vec<_> = setup.peers.into_iter().map(Rc::new).collect();
    let connects: Vec<_> = peers
        .iter()
        .cloned()
        .map(|peer| spawn_local(async move { peer.run().await }))
        .collect();
    let beat = spawn_local(heartbeat());
    let bell = unix_stream(setup.bell);
    pump(&core, &peers, &setup.link, (setup.outgoing, bell)).await;
    for accept in accepts {
        let _: Option<()> = accept.cancel().await;
    }
    // What peers have not taken they can do without.
    for connect in connects {
        let _: Option<Infallible> = connect.cancel().await;
    }
    core.lanes.close();
    core.connections
        .borrow()
        .values()
        .for_each(|connection| connection.drain());
    let drained = pin!(poll_fn(|context| core.poll_empty(context)));
    drop(select(drained, Timer::new(DRAIN_MAX)).await);
    let _: Option<()> = beat.cancel().await;
}

async fn accept(core: Rc<NetworkCore>, listener: std::net::TcpListener) {
    #[expect(
        unsafe_code,
        reason = "glommio takes over a bound socket by its descriptor only"
    )]
    // SAFETY: the descriptor is a listening socket and changes hands.
    let listener = unsafe { TcpListener::from_raw_fd(listener.into_raw_fd()) };
    loop {
        match listener.accept().await {
            Ok(stream) => core.open(stream),
            Err(error) => {
                core.counters.accept_errors.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(%error, "cannot accept a connection");
                Timer::new(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Bounds a stall of the executor, which sleeps on runnable tasks if its preemption timer fires at
/// the wrong moment: see `link`.
async fn heartbeat() {
    loop {
        Timer::new(HEARTBEAT).await;
    }
}

#[expect(
    unsafe_code,
    reason = "glommio takes over a socket by its descriptor only"
)]
fn unix_stream(stream: std::os::unix::net::UnixStream) -> UnixStream {
    // SAFETY: the descriptor is a connected socket and changes hands.
    unsafe { UnixStream::from_raw_fd(stream.into_raw_fd()) }
}

/// Hands frames to the connections and permits to the readers, until the core closes the link.
async fn pump(
    core: &NetworkCore,
    peers: &[Rc<Peer>],
    link: &Link,
    (mut outgoing, mut bell): (rtrb::Consumer<Outgoing>, UnixStream),
) {
    let mut rings = [0; 64];
    loop {
        // The core sends nothing after it has closed, so what is read after this is all.
        let closing = link.is_closing();
        core.lanes.grant();
        peers.iter().for_each(|peer| peer.wake());
        while let Ok(Outgoing {
            connection,
            sending,
        }) = outgoing.pop()
        {
            let connection = core.connections.borrow().get(&connection.0).cloned();
            match connection {
                Some(connection) => connection.send(sending),
                None => drop(sending),
            }
        }
        if closing {
            return;
        }
        link.park();
        let idle = outgoing.is_empty() && !peers.iter().any(|peer| peer.has_news());
        if idle && !core.lanes.has_returns() && !link.is_closing() {
            let read = bell.read(&mut rings).await;
            assert!(
                read.is_ok_and(|count| count > 0),
                "the link keeps the other end open"
            );
        }
        link.unpark();
    }
}

impl NetworkCore {
    fn open(self: &Rc<Self>, stream: TcpStream) {
        let open = self.connections.borrow().len();
        if open == self.connections_max + self.peer_connections_max {
            self.refuse();
            return;
        }
        let id = ConnectionId(self.accepted.get() * self.count + self.index);
        self.accepted.set(self.accepted.get() + 1);
        let connection = match Connection::new(id, stream, open >= self.connections_max) {
            Ok(connection) => connection,
            Err(error) => {
                tracing::debug!(id = id.0, %error, "connection lost at once");
                return;
            }
        };
        self.counters.accepted.fetch_add(1, Ordering::Relaxed);
        self.connections
            .borrow_mut()
            .insert(id.0, Rc::clone(&connection));
        let core = Rc::clone(self);
        spawn_local(async move {
            let ended = connection.serve(core.cluster, &core.lanes).await;
            core.ended(id, &ended);
        })
        .detach();
    }

    fn refuse(&self) {
        if self.counters.refused.fetch_add(1, Ordering::Relaxed) == 0 {
            let max = self.connections_max;
            tracing::warn!(max, "too many connections; more are closed at once");
        }
    }

    fn ended(&self, id: ConnectionId, ended: &Ended) {
        let counters = &self.counters;
        let count = |counter: &AtomicU64| {
            counter.fetch_add(1, Ordering::Relaxed);
        };
        match ended {
            Ended::Frame(_) | Ended::Cut | Ended::BodyTimeout => count(&counters.bad_frames),
            Ended::Slow => count(&counters.slow),
            Ended::Refused => self.refuse(),
            Ended::Peer | Ended::Shutdown | Ended::Io(_) => count(&counters.closed),
        }
        tracing::debug!(id = id.0, reason = %ended, "connection ended");
        self.connections.borrow_mut().remove(&id.0);
        if let Some(waker) = self.empty.take() {
            waker.wake();
        }
    }

    fn poll_empty(&self, context: &mut Context<'_>) -> Poll<()> {
        if self.connections.borrow().is_empty() {
            return Poll::Ready(());
        }
        *self.empty.borrow_mut() = Some(context.waker().clone());
        Poll::Pending
    }
}
