//! A replica's surroundings: `Io` on the simulated cluster of this thread.

use super::world::with;
use crate::jobs;
use bytes::Bytes;
use daftari::io::{ConnectionId, Incoming, Io, Network, Storage};
use daftari::stdx::{Job, SectorBuf};
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

/// Disk, network and clocks of one replica.
#[derive(Debug)]
pub struct ClusterIo {
    replica: u8,
    storage: ClusterStorage,
    network: ClusterNetwork,
}

/// The disk.
#[derive(Debug)]
pub struct ClusterStorage {
    replica: u8,
}

/// The network.
#[derive(Debug)]
pub struct ClusterNetwork {
    replica: u8,
}

impl ClusterIo {
    /// That of a replica.
    #[must_use]
    pub fn new(replica: u8) -> Self {
        Self {
            replica,
            storage: ClusterStorage { replica },
            network: ClusterNetwork { replica },
        }
    }
}

impl Io for ClusterIo {
    type Storage = ClusterStorage;
    type Network = ClusterNetwork;

    fn storage(&self) -> &ClusterStorage {
        &self.storage
    }

    fn network(&self) -> &ClusterNetwork {
        &self.network
    }

    fn monotonic(&self) -> u64 {
        with(|world| world.clocks(self.replica).monotonic())
    }

    fn realtime(&self) -> u64 {
        with(|world| world.clocks(self.replica).realtime())
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
    replica: u8,
    id: u64,
}

impl Future for Completion {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let disk = usize::from(self.replica);
        if with(|world| world.disks[disk].poll(self.id, context.waker())) {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }
}

impl Storage for ClusterStorage {
    fn size(&self) -> u64 {
        with(|world| world.disks[usize::from(self.replica)].size())
    }

    fn reserve(&self, size: u64, limit: u64) -> u64 {
        let now = crate::sim::world::now();
        with(|world| world.disks[usize::from(self.replica)].reserve(now, size, limit))
    }

    async fn read(&self, offset: u64, mut buffer: SectorBuf) -> SectorBuf {
        let replica = self.replica;
        let id = with(|world| world.start_read(replica, offset));
        Completion { replica, id }.await;
        with(|world| world.finish_read(replica, offset, &mut buffer));
        buffer
    }

    async fn write(&self, offset: u64, buffer: SectorBuf, size: usize) -> SectorBuf {
        let replica = self.replica;
        let id = with(|world| world.start_write(replica, offset, &buffer[..size]));
        Completion { replica, id }.await;
        buffer
    }
}

/// Completes with the next frame.
struct Receive {
    replica: u8,
}

impl Future for Receive {
    type Output = Incoming;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Incoming> {
        match with(|world| world.network.receive(self.replica, context.waker())) {
            Some(incoming) => Poll::Ready(incoming),
            None => Poll::Pending,
        }
    }
}

impl Network for ClusterNetwork {
    async fn receive(&self) -> Incoming {
        Receive {
            replica: self.replica,
        }
        .await
    }

    fn try_receive(&self) -> Option<Incoming> {
        with(|world| world.network.try_receive(self.replica))
    }

    fn send(&self, connection: ConnectionId, frame: Bytes) {
        with(|world| world.on_send(self.replica, connection, frame));
    }

    fn send_peer(&self, replica: u8, frame: Bytes) {
        with(|world| world.on_send_peer(self.replica, replica, frame));
    }
}
