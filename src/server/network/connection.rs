//! One connection: a reader that turns bytes into frames, and a writer with a short queue.
//!
//! Both live in one task of the network core. Whichever ends first ends the other, except while the
//! server shuts down: then the reader stops and the writer empties its queue.

use super::budget::guard;
use super::lane::{Admission, Lanes};
use super::listen::acknowledge;
use super::room::Sending;
use crate::constants::HEADER_SIZE;
use crate::io::ConnectionId;
use crate::wire::frame::{FrameError, check_body, check_header};
use crate::wire::header::command;
use bytes::Bytes;
use futures_util::future::{Either, select};
use futures_util::io::{AsyncRead, AsyncWrite};
use glommio::net::TcpStream;
use glommio::timer::Timer;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// Frames that wait for a peer to take them. A client has one request outstanding, and pings.
pub const SEND_FRAMES_MAX: usize = 8;
/// A body that has not arrived by then is not waited for any longer: it holds a permit.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// While a body is not there, what has come of it is acknowledged so often at first, and then ever less
/// often: a sender whose window is small may wait for that, and the kernel keeps it back for 40 to 200 ms.
const ACKNOWLEDGE_AFTER: Duration = Duration::from_millis(2);
/// Where there is room for peers only, the first frame has to come by then.
const PEER_TIMEOUT: Duration = Duration::from_secs(if cfg!(test) { 1 } else { 5 });
/// Bytes of a body that is skipped that are read at once.
const SKIP_SIZE: usize = 64 * 1024;
/// A peer that takes nothing for so long is not waited for.
const SEND_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a peer may take to see the end of the stream when the server shuts down.
const LINGER: Duration = Duration::from_millis(200);

/// Why a connection has ended.
#[derive(Debug, thiserror::Error)]
pub enum Ended {
    /// The peer closed it between two frames.
    #[error("closed by the peer")]
    Peer,
    /// The peer closed it within a frame.
    #[error("closed by the peer within a frame")]
    Cut,
    /// Not a frame.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The body did not come.
    #[error("the body did not arrive in time")]
    BodyTimeout,
    /// The peer does not take what it asked for.
    #[error("the peer does not take its replies")]
    Slow,
    /// There is room for peers only, and this is none.
    #[error("too many connections")]
    Refused,
    /// The server is shutting down.
    #[error("the server is shutting down")]
    Shutdown,
    /// The socket failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// A frame that the core sends to a connection.
#[derive(Debug)]
pub struct Outgoing {
    /// Where it goes.
    pub connection: ConnectionId,
    /// What goes there.
    pub sending: Sending,
}

/// A frame that has arrived whole.
#[derive(Debug)]
pub struct Arrived {
    /// Where it came from.
    pub connection: ConnectionId,
    /// The header.
    pub header: Box<[u8; HEADER_SIZE]>,
    /// The body; it holds the permit.
    pub body: Bytes,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Phase {
    Open,
    /// The queue is emptied, then the connection ends.
    Draining,
    /// It ends without more ado.
    Slow,
}

/// A connection of the network core.
#[derive(Debug)]
pub struct Connection {
    /// Its name.
    pub id: ConnectionId,
    /// It has to prove itself a peer, by its first frame: there is no room for more clients.
    doubted: Cell<bool>,
    /// Borrowed within a poll only.
    stream: RefCell<TcpStream>,
    queue: RefCell<VecDeque<Sending>>,
    writer: RefCell<Option<Waker>>,
    phase: Cell<Phase>,
}

impl Connection {
    /// A connection just accepted; it may be one for peers only.
    pub fn new(id: ConnectionId, stream: TcpStream, peers_only: bool) -> io::Result<Rc<Self>> {
        stream.set_write_timeout(Some(SEND_TIMEOUT))?;
        Ok(Rc::new(Self {
            id,
            doubted: Cell::new(peers_only),
            stream: RefCell::new(stream),
            queue: RefCell::new(VecDeque::with_capacity(SEND_FRAMES_MAX)),
            writer: RefCell::new(None),
            phase: Cell::new(Phase::Open),
        }))
    }

    /// Queues a frame; a peer whose queue is full is cut off.
    pub fn send(&self, sending: Sending) {
        let mut queue = self.queue.borrow_mut();
        if queue.len() == SEND_FRAMES_MAX {
            self.phase.set(Phase::Slow);
        } else {
            queue.push_back(sending);
        }
        drop(queue);
        self.wake_writer();
    }

    /// Ends the connection when its queue is empty.
    pub fn drain(&self) {
        if self.phase.get() == Phase::Open {
            self.phase.set(Phase::Draining);
        }
        self.wake_writer();
    }

    fn wake_writer(&self) {
        if let Some(waker) = self.writer.take() {
            waker.wake();
        }
    }

    /// Serves the connection to its end. The frames of a lane are delivered in order.
    pub async fn serve(&self, cluster: u128, lanes: &Lanes) -> Ended {
        let read = pin!(self.read_frames(cluster, lanes));
        let write = pin!(self.write_frames());
        let ended = match select(read, write).await {
            Either::Left((Err(ended), _)) | Either::Right((Err(ended), _)) => ended,
        };
        if matches!(ended, Ended::Shutdown) {
            self.linger().await;
        }
        ended
    }

    async fn read_frames(&self, cluster: u128, lanes: &Lanes) -> Result<Infallible, Ended> {
        let connection = self.id;
        let mut header = [0; HEADER_SIZE];
        loop {
            self.read_header(&mut header).await?;
            let info = check_header(&header, cluster)?;
            if self.doubted.take() && !command::is_of_peers(info.command) {
                return Err(Ended::Refused);
            }
            let size = info.size - HEADER_SIZE;
            let (lane, permit) = match lanes.admit(info.command, size).await {
                Admission::Granted(lane, permit) => (lane, permit),
                Admission::Dropped => {
                    let mut scratch = vec![0; size.min(SKIP_SIZE)];
                    let mut left = size;
                    while left > 0 {
                        let step = left.min(SKIP_SIZE);
                        self.read_body(&mut scratch[..step]).await?;
                        left -= step;
                    }
                    continue;
                }
                // The writer ends the connection.
                Admission::Closed => return std::future::pending().await,
            };
            let mut body = vec![0; size];
            self.read_body(&mut body).await?;
            check_body(&info, &body)?;
            let body = guard(body, permit);
            let header = Box::new(header);
            let arrived = Arrived {
                connection,
                header,
                body,
            };
            lanes.deliver(lane, arrived);
        }
    }

    async fn read_header(&self, header: &mut [u8; HEADER_SIZE]) -> Result<(), Ended> {
        let read = pin!(self.read_exact(header));
        if !self.doubted.get() {
            return read.await;
        }
        match select(read, Timer::new(PEER_TIMEOUT)).await {
            Either::Left((result, _)) => result,
            Either::Right(_) => Err(Ended::Refused),
        }
    }

    /// Reads what has to follow a header soon.
    async fn read_body(&self, body: &mut [u8]) -> Result<(), Ended> {
        if body.is_empty() {
            return Ok(());
        }
        let mut read = pin!(self.read_exact(body));
        let mut waited = Duration::ZERO;
        while waited < BODY_TIMEOUT {
            let pause = ACKNOWLEDGE_AFTER.max(waited / 8);
            match select(read, Timer::new(pause)).await {
                Either::Left((Err(Ended::Peer), _)) => return Err(Ended::Cut),
                Either::Left((result, _)) => return result,
                Either::Right((_, rest)) => read = rest,
            }
            acknowledge(&*self.stream.borrow())?;
            waited += pause;
        }
        Err(Ended::BodyTimeout)
    }

    async fn read_exact(&self, buffer: &mut [u8]) -> Result<(), Ended> {
        let mut filled = 0;
        while filled < buffer.len() {
            let read = |context: &mut Context<'_>| {
                Pin::new(&mut *self.stream.borrow_mut()).poll_read(context, &mut buffer[filled..])
            };
            match poll_fn(read).await? {
                0 if filled == 0 => return Err(Ended::Peer),
                0 => return Err(Ended::Cut),
                count => filled += count,
            }
        }
        Ok(())
    }

    async fn write_frames(&self) -> Result<Infallible, Ended> {
        loop {
            let sending = poll_fn(|context| self.poll_frame(context)).await?;
            let mut left: &[u8] = &sending.frame;
            while !left.is_empty() {
                let count = poll_fn(|context| self.poll_write(context, left)).await?;
                left = &left[count..];
            }
        }
    }

    fn poll_write(&self, context: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize, Ended>> {
        if self.phase.get() == Phase::Slow {
            return Poll::Ready(Err(Ended::Slow));
        }
        *self.writer.borrow_mut() = Some(context.waker().clone());
        let stream = &mut *self.stream.borrow_mut();
        Pin::new(stream)
            .poll_write(context, bytes)
            .map_err(|error| {
                if error.kind() == io::ErrorKind::TimedOut {
                    Ended::Slow
                } else {
                    Ended::Io(error)
                }
            })
    }

    fn poll_frame(&self, context: &mut Context<'_>) -> Poll<Result<Sending, Ended>> {
        if self.phase.get() == Phase::Slow {
            return Poll::Ready(Err(Ended::Slow));
        }
        if let Some(frame) = self.queue.borrow_mut().pop_front() {
            return Poll::Ready(Ok(frame));
        }
        if self.phase.get() == Phase::Draining {
            return Poll::Ready(Err(Ended::Shutdown));
        }
        *self.writer.borrow_mut() = Some(context.waker().clone());
        Poll::Pending
    }

    /// Says that no more will come, and takes what the peer still sends: bytes left unread when a
    /// socket is closed make the kernel throw away what the peer has not read yet.
    async fn linger(&self) {
        let shut = poll_fn(|context| Pin::new(&mut *self.stream.borrow_mut()).poll_close(context));
        if shut.await.is_err() {
            return;
        }
        let discard = pin!(async {
            let mut buffer = [0; HEADER_SIZE];
            while self.read_exact(&mut buffer).await.is_ok() {}
        });
        drop(select(discard, Timer::new(LINGER)).await);
    }
}
