//! The connection on which this replica sends to another one. What that one sends arrives over a
//! connection of its own making, like the frames of clients.
//!
//! * From the replica core to the connection there is a ring for so many frames and bytes. What finds
//!   no room is dropped: consensus sends again what still matters.
//! * While there is no connection, frames are dropped too: old news would only delay what matters
//!   when there is one again.
//! * Peers share nothing, so a slow one does not delay others.

use super::listen;
use super::room::{Room, Sending};
use crate::constants::{PEER_MESSAGE_SIZE_MAX, PIPELINE_PREPARES_MAX};
use crate::stdx::to_u64;
use bytes::Bytes;
use futures_util::future::{Either, select};
use futures_util::io::{AsyncRead, AsyncWrite};
use glommio::net::TcpStream;
use glommio::timer::Timer;
use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::future::{pending, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// Frames that wait for a peer.
pub const PEER_FRAMES_MAX: usize = 64;
/// Bytes of them: a whole pipeline, and the same again to repair from.
pub const PEER_SEND_MEMORY: u64 = 2 * PIPELINE_PREPARES_MAX * to_u64(PEER_MESSAGE_SIZE_MAX);

/// Between two attempts to connect: at first, and after many failures. A peer that is back is needed at once.
const PAUSE_MIN: Duration = Duration::from_millis(20);
const PAUSE_MAX: Duration = Duration::from_millis(200);
/// An attempt to connect takes no longer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A connection that has lasted so long counts as one: only then is it told, and does the pause start
/// anew.
const SETTLED: Duration = Duration::from_secs(1);
/// A peer that takes nothing for so long is cut off.
const SEND_TIMEOUT: Duration = Duration::from_secs(if cfg!(test) { 2 } else { 10 });

/// A peer as the core sees it.
#[derive(Debug)]
pub struct PeerEnd {
    /// Its index.
    pub replica: u8,
    connected: Arc<AtomicBool>,
    room: Arc<Room>,
    frames: RefCell<rtrb::Producer<Sending>>,
}

/// A peer as the network core sees it.
#[derive(Debug)]
pub struct Peer {
    replica: u8,
    address: SocketAddr,
    connected: Arc<AtomicBool>,
    frames: RefCell<rtrb::Consumer<Sending>>,
    /// The connection waits for a frame.
    idle: RefCell<Option<Waker>>,
}

/// Both ends of the way to a peer.
pub fn new(replica: u8, address: SocketAddr) -> (PeerEnd, Peer) {
    let connected = Arc::new(AtomicBool::new(false));
    let (producer, consumer) = rtrb::RingBuffer::new(PEER_FRAMES_MAX);
    let end = PeerEnd {
        replica,
        connected: Arc::clone(&connected),
        room: Room::new(PEER_SEND_MEMORY),
        frames: RefCell::new(producer),
    };
    let peer = Peer {
        replica,
        address,
        connected,
        frames: RefCell::new(consumer),
        idle: RefCell::new(None),
    };
    (end, peer)
}

impl PeerEnd {
    /// Whether there is somebody to send to.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.connected.load(Ordering::Relaxed)
    }

    /// Queues a frame; false if there is no room. Whoever queues then wakes the pump.
    #[must_use]
    pub fn send(&self, frame: Bytes) -> bool {
        let sending = self.room.take(frame);
        sending.is_some_and(|sending| self.frames.borrow_mut().push(sending).is_ok())
    }
}

impl Peer {
    /// Whether the connection waits for a frame, and there is one.
    #[must_use]
    pub fn has_news(&self) -> bool {
        self.idle.borrow().is_some() && !self.frames.borrow().is_empty()
    }

    /// Tells the connection of a frame.
    pub fn wake(&self) {
        if self.has_news()
            && let Some(waker) = self.idle.take()
        {
            waker.wake();
        }
    }

    /// Keeps a connection to the peer, and sends what the core has for it.
    pub async fn run(&self) -> Infallible {
        let mut pause = PAUSE_MIN;
        let mut told = false;
        loop {
            let settled = Cell::new(false);
            let reason = match self.connect().await {
                Ok(stream) => self.serve(stream, &settled).await,
                Err(error) => error,
            };
            if settled.get() {
                (pause, told) = (PAUSE_MIN, false);
            }
            if !told {
                let (replica, address) = (self.replica, self.address);
                tracing::warn!(replica, %address, %reason, "no connection to a peer");
                told = true;
            }
            Timer::new(pause).await;
            pause = PAUSE_MAX.min(pause * 2);
        }
    }

    async fn connect(&self) -> io::Result<TcpStream> {
        let stream = TcpStream::connect_timeout(self.address, CONNECT_TIMEOUT).await?;
        if stream.local_addr()? == stream.peer_addr()? {
            // Nobody listens, and the kernel has chosen the very port that it connects to.
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        stream.set_write_timeout(Some(SEND_TIMEOUT))?;
        listen::prepare(&stream, SEND_TIMEOUT)?;
        Ok(stream)
    }

    /// Sends until the connection is lost; says why, and whether it had settled.
    async fn serve(&self, stream: TcpStream, settled: &Cell<bool>) -> io::Error {
        let stream = RefCell::new(stream);
        self.connected.store(true, Ordering::Relaxed);
        let write = pin!(self.write_frames(&stream));
        let read = pin!(read_end(&stream));
        let settle = pin!(async {
            Timer::new(SETTLED).await;
            let (replica, address) = (self.replica, self.address);
            tracing::info!(replica, %address, "connected to a peer");
            settled.set(true);
            pending::<Infallible>().await
        });
        let reason = match select(select(write, read), settle).await {
            Either::Left((Either::Left((error, _)) | Either::Right((error, _)), _)) => error,
            Either::Right((never, _)) => match never {},
        };
        self.connected.store(false, Ordering::Relaxed);
        self.idle.take();
        // What the core queues at this very moment stays, and is sent late: as any frame may be.
        while self.frames.borrow_mut().pop().is_ok() {}
        reason
    }

    async fn write_frames(&self, stream: &RefCell<TcpStream>) -> io::Error {
        loop {
            let sending = poll_fn(|context| self.poll_frame(context)).await;
            let mut left: &[u8] = &sending.frame;
            while !left.is_empty() {
                let written = poll_fn(|context| {
                    Pin::new(&mut *stream.borrow_mut()).poll_write(context, left)
                });
                match written.await {
                    Ok(count) => left = &left[count..],
                    Err(error) => return error,
                }
            }
        }
    }

    fn poll_frame(&self, context: &mut Context<'_>) -> Poll<Sending> {
        if let Ok(sending) = self.frames.borrow_mut().pop() {
            return Poll::Ready(sending);
        }
        *self.idle.borrow_mut() = Some(context.waker().clone());
        Poll::Pending
    }
}

/// Waits for the end of the connection, which tells at once that the peer is gone. It sends nothing
/// on it.
async fn read_end(stream: &RefCell<TcpStream>) -> io::Error {
    let mut buffer = [0; 256];
    loop {
        let read =
            poll_fn(|context| Pin::new(&mut *stream.borrow_mut()).poll_read(context, &mut buffer));
        match read.await {
            Ok(0) => return io::ErrorKind::ConnectionReset.into(),
            Ok(_) => {}
            Err(error) => return error,
        }
    }
}
