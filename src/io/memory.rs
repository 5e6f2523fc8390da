//! An `Io` in memory: storage that never waits, no clients. For tests, benchmarks and tools that run
//! the engine without a server.

use super::{ConnectionId, Incoming, Io, Network, Storage};
use crate::stdx::{SectorBuf, to_u64};
use bytes::Bytes;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::{Future, pending, ready};
use storage_format::SECTOR_SIZE;

/// See the module.
#[derive(Debug, Default)]
pub struct MemoryIo {
    storage: MemoryStorage,
    network: NoNetwork,
}

/// Sectors that were written; all others are zero.
#[derive(Debug, Default)]
pub struct MemoryStorage(RefCell<BTreeMap<u64, Box<[u8]>>>);

/// A network without clients.
#[derive(Debug, Default)]
pub struct NoNetwork;

impl MemoryStorage {
    /// Gives all memory back.
    pub fn clear(&self) {
        self.0.borrow_mut().clear();
    }
}

impl Io for MemoryIo {
    type Storage = MemoryStorage;
    type Network = NoNetwork;

    fn storage(&self) -> &MemoryStorage {
        &self.storage
    }

    fn network(&self) -> &NoNetwork {
        &self.network
    }

    fn monotonic(&self) -> u64 {
        0
    }

    fn realtime(&self) -> u64 {
        0
    }

    fn sleep(&self, _nanoseconds: u64) -> impl Future<Output = ()> {
        pending()
    }
}

impl Storage for MemoryStorage {
    fn size(&self) -> u64 {
        u64::MAX
    }

    fn reserve(&self, _size: u64, _limit: u64) -> u64 {
        u64::MAX
    }

    fn read(&self, offset: u64, mut buffer: SectorBuf) -> impl Future<Output = SectorBuf> {
        let sectors = self.0.borrow();
        for (index, bytes) in buffer.chunks_exact_mut(SECTOR_SIZE).enumerate() {
            match sectors.get(&(offset + to_u64(index * SECTOR_SIZE))) {
                Some(sector) => bytes.copy_from_slice(sector),
                None => bytes.fill(0),
            }
        }
        ready(buffer)
    }

    fn write(
        &self,
        offset: u64,
        buffer: SectorBuf,
        size: usize,
    ) -> impl Future<Output = SectorBuf> {
        let mut sectors = self.0.borrow_mut();
        for (index, bytes) in buffer[..size].chunks_exact(SECTOR_SIZE).enumerate() {
            let offset = offset + to_u64(index * SECTOR_SIZE);
            let _ = sectors.insert(offset, bytes.into());
        }
        ready(buffer)
    }
}

impl Network for NoNetwork {
    fn receive(&self) -> impl Future<Output = Incoming> {
        pending()
    }

    fn try_receive(&self) -> Option<Incoming> {
        None
    }

    fn send(&self, _connection: ConnectionId, _frame: Bytes) {}

    fn send_peer(&self, _replica: u8, _frame: Bytes) {}
}
