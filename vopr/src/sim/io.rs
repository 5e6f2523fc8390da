//! The replica's surroundings: `Io` on the simulated world of this thread.

use super::world::with;
use crate::jobs;
use bytes::Bytes;
use daftari::io::{ConnectionId, Incoming, Io, Network, Storage};
use daftari::stdx::{Job, SectorBuf};
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

/// Disk, network and clocks of the world of this thread.
#[derive(Debug, Default)]
pub struct SimIo {
    storage: SimStorage,
    network: SimNetwork,
}

/// The disk.
#[derive(Debug, Default)]
pub struct SimStorage;

/// The network.
#[derive(Debug, Default)]
pub struct SimNetwork;

impl Io for SimIo {
    type Storage = SimStorage;
    type Network = SimNetwork;

    fn storage(&self) -> &SimStorage {
        &self.storage
    }

    fn network(&self) -> &SimNetwork {
        &self.network
    }

    fn monotonic(&self) -> u64 {
        super::world::now()
    }

    fn realtime(&self) -> u64 {
        with(|world| world.realtime())
    }

    fn spawn(&self, job: Job) {
        let time = with(|world| jobs::time(&mut world.random.job));
        jobs::run(job, time);
    }

    async fn sleep(&self, nanoseconds: u64) {
        madsim::time::sleep(Duration::from_nanos(nanoseconds)).await;
    }
}

/// Completes with a write or a read.
struct Completion {
    id: u64,
}

impl Future for Completion {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if with(|world| world.disk.poll(self.id, context.waker())) {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }
}

impl Storage for SimStorage {
    fn size(&self) -> u64 {
        with(|world| world.disk.size())
    }

    fn reserve(&self, size: u64, limit: u64) -> u64 {
        with(|world| world.disk.reserve(super::world::now(), size, limit))
    }

    async fn read(&self, offset: u64, mut buffer: SectorBuf) -> SectorBuf {
        let id = with(|world| world.start_read(offset, buffer.len()));
        Completion { id }.await;
        with(|world| world.finish_read(offset, &mut buffer));
        buffer
    }

    async fn write(&self, offset: u64, buffer: SectorBuf, size: usize) -> SectorBuf {
        let id = with(|world| world.start_write(offset, &buffer[..size]));
        Completion { id }.await;
        buffer
    }
}

/// Completes with the next frame.
struct Receive;

impl Future for Receive {
    type Output = Incoming;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Incoming> {
        match with(|world| world.network.receive(context.waker())) {
            Some(incoming) => Poll::Ready(incoming),
            None => Poll::Pending,
        }
    }
}

impl Network for SimNetwork {
    async fn receive(&self) -> Incoming {
        Receive.await
    }

    fn try_receive(&self) -> Option<Incoming> {
        with(|world| world.network.try_receive())
    }

    fn send(&self, connection: ConnectionId, frame: Bytes) {
        with(|world| world.on_server_send(connection, frame));
    }

    fn send_peer(&self, _replica: u8, _frame: Bytes) {}
}
