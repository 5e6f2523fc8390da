//! The seam between the core and its surroundings.
//!
//! Production implements these traits in `server`, the simulator in `vopr`; the core in between is
//! the same. Everything runs on one thread, so no future has to be `Send`.
//!
//! * Storage has no errors: an unreadable sector comes back zeroed, so that only checksums decide;
//!   a write that the device refuses stops the process with a named reason before it returns.
//! * A write is durable when its future completes, and not before. Writes under way at the same
//!   time may reach the device in any order.

pub mod memory;

pub use memory::MemoryIo;

use crate::stdx::marks::{Mark, mark};
use crate::stdx::planted::{Bug, planted};
use crate::stdx::{Job, SectorBuf};
use bytes::Bytes;
use std::future::Future;
use std::pin::pin;
use std::task::Poll;

/// All that the core gets from outside.
pub trait Io: 'static {
    /// The data file.
    type Storage: Storage;
    /// Clients.
    type Network: Network;

    /// The data file.
    fn storage(&self) -> &Self::Storage;
    /// Clients.
    fn network(&self) -> &Self::Network;
    /// Nanoseconds since some moment in the past; never steps back.
    fn monotonic(&self) -> u64;
    /// Nanoseconds since 1970; may step in either direction.
    fn realtime(&self) -> u64;
    /// Runs a job, at once or later on another core.
    fn spawn(&self, job: Job) {
        job();
    }
    /// Completes after at least so many nanoseconds of monotonic time.
    fn sleep(&self, nanoseconds: u64) -> impl Future<Output = ()>;
}

/// The data file: whole, aligned sectors.
pub trait Storage: 'static {
    /// Bytes of the file, or of the device.
    fn size(&self) -> u64;
    /// Has the first `size` bytes of the file, which never needs more than `limit`, made certain: no
    /// write there meets a full disk. Gives how many are certain; that may be less, and more when
    /// it is asked again. May take a moment, but no waiting for others.
    fn reserve(&self, size: u64, limit: u64) -> u64;
    /// Fills `buffer` with the bytes at `offset`. Unreadable sectors, and those beyond the end, are
    /// zeroed.
    fn read(&self, offset: u64, buffer: SectorBuf) -> impl Future<Output = SectorBuf>;
    /// Writes the first `size` bytes of `buffer` at `offset`; on stable storage when it completes.
    fn write(&self, offset: u64, buffer: SectorBuf, size: usize)
    -> impl Future<Output = SectorBuf>;
}

/// Names a connection. Numbers are never used again within a process.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct ConnectionId(pub u64);

/// What the network hands to the core.
#[derive(Clone, Debug)]
pub enum Incoming {
    /// A frame whose size, cluster and both checksums are right; nothing else is checked.
    Frame {
        /// Where it came from, and where an answer goes.
        connection: ConnectionId,
        /// The 256 bytes of the header.
        header: Box<[u8; 256]>,
        /// The body.
        body: Bytes,
    },
    /// Stop taking requests, finish what was prepared, and return.
    Shutdown,
}

/// Clients and peers.
pub trait Network: 'static {
    /// The next frame; frames of one connection come in the order in which they were sent, but those of
    /// peers overtake those of clients, forwarded ones included. The future may be dropped at any time
    /// without losing a frame.
    fn receive(&self) -> impl Future<Output = Incoming>;
    /// A frame that is there already, if any.
    fn try_receive(&self) -> Option<Incoming>;
    /// Queues a whole frame for the connection; dropped when the connection is gone or does not
    /// take what it is sent.
    fn send(&self, connection: ConnectionId, frame: Bytes);
    /// Queues a whole frame for another replica; dropped when that cannot be reached, or does not take
    /// what it is sent. Its answers come as frames, like those of clients.
    fn send_peer(&self, replica: u8, frame: Bytes);
}

/// What a read gives, or the same read done again: one may go wrong although nothing is damaged.
pub async fn once_more<T>(again: Mark, read: impl AsyncFn() -> Option<T>) -> Option<T> {
    if let Some(found) = read().await {
        return Some(found);
    }
    mark(again);
    read().await
}

/// Writes; with `bug` planted the write is only under way when this completes.
pub async fn write_unless<I: Io>(
    bug: Bug,
    io: &I,
    offset: u64,
    buffer: SectorBuf,
    size: usize,
) -> SectorBuf {
    if !planted(bug) {
        return io.storage().write(offset, buffer, size).await;
    }
    let mut copy = SectorBuf::zeroed(size);
    copy.copy_from_slice(&buffer[..size]);
    let mut write = pin!(io.storage().write(offset, copy, size));
    std::future::poll_fn(|cx| {
        drop(write.as_mut().poll(cx));
        Poll::Ready(())
    })
    .await;
    buffer
}
