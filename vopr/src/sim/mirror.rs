//! A second ledger, over a grid in memory, that executes the history and never crashes.
//!
//! At every checkpoint of the replica it makes the same one. Whatever the replica went through, its
//! checkpoint has to be the same (I11): the manifest, and so the address and the bytes of every block.
//! Only the sessions' records are taken from the platter; replies are checked elsewhere.

use super::platter::Manifest;
use daftari::constants::BLOCK_DATA_SIZE;
use daftari::grid::{BlockStore, Grid, NewBlock};
use daftari::io::MemoryIo;
use daftari::ledger::{Ledger, LedgerOptions, Request};
use daftari::stdx::planted::{Bug, plant};
use daftari::stdx::to_u64;
use daftari::wire::Operation;
use std::collections::VecDeque;
use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use storage_format::{
    BlockKind, BlockReference, Geometry, MANIFEST_RECORD_SIZE, ManifestKind, ManifestRecord,
    ManifestTag, SECTOR_SIZE, Superblock,
};
use zerocopy::{FromZeros, IntoBytes};

/// Number of the sessions' table.
pub const SESSIONS_TABLE: u8 = 255;
/// Bytes of a session's record.
const SESSION_SIZE: usize = 288;
/// Bytes of its cache.
const CACHE_SIZE: u64 = 16 << 20;

/// What an op does.
#[derive(Clone, Debug)]
pub enum Work {
    /// Pending transfers expire.
    Pulse(u64),
    /// Requests are executed: operation, timestamp and body.
    Requests(Vec<(Operation, u64, Vec<u8>)>),
}

/// See the module.
#[derive(Debug)]
pub struct Mirror {
    io: &'static MemoryIo,
    /// What is planted in the replica: not in here.
    bug: Option<Bug>,
    ledger: Ledger,
    grid: Grid<'static, MemoryIo>,
    /// Ops that are not executed yet, the first of them first.
    waiting: VecDeque<Work>,
    /// The op that was executed last.
    op: u64,
    sessions: Vec<BlockReference>,
    manifest: Vec<BlockReference>,
    made: Made,
}

/// The checkpoint that was made last.
#[derive(Debug, Default)]
struct Made {
    op: u64,
    index: BlockReference,
    state: Vec<u8>,
    records: Vec<u8>,
}

/// Polls to the end what has nothing to wait for.
fn finish<T>(work: impl Future<Output = T>) -> T {
    let mut work = pin!(work);
    let mut context = Context::from_waker(Waker::noop());
    loop {
        if let Poll::Ready(done) = work.as_mut().poll(&mut context) {
            return done;
        }
    }
}

impl Mirror {
    /// The mirror of a new data file.
    #[must_use]
    pub fn new(cluster: u128, geometry: Geometry, bug: Option<Bug>) -> Self {
        // Writes that are under way borrow the storage for as long as they like.
        let io: &'static MemoryIo = Box::leak(Box::default());
        let mut superblock = Superblock::new_zeroed();
        superblock.cluster = cluster.into();
        superblock.geometry = geometry;
        Self {
            io,
            bug,
            ledger: Ledger::new(LedgerOptions {
                memory_limit: 1 << 30,
                account_cache_size: 0,
            }),
            grid: Grid::new(io, &superblock, CACHE_SIZE),
            waiting: VecDeque::new(),
            op: 0,
            sessions: Vec::new(),
            manifest: Vec::new(),
            made: Made::default(),
        }
    }

    /// The history grows by an op.
    pub fn push(&mut self, work: Work) {
        self.waiting.push_back(work);
    }

    /// Compares the checkpoint that `superblock` names with the mirror's. `found` is its manifest on
    /// the platter, `sessions` are the records of its sessions.
    ///
    /// # Errors
    /// Says what differs.
    pub fn compare(
        &mut self,
        superblock: &Superblock,
        found: &Manifest,
        sessions: &[u8],
    ) -> Result<(), String> {
        let op = superblock.checkpoint.op.get();
        if self.made.op != op {
            plant(None);
            finish(self.advance(op, sessions));
            plant(self.bug);
        }
        let made = &self.made;
        let chunks = |bytes: &[u8]| {
            let chunks = bytes.chunks_exact(MANIFEST_RECORD_SIZE);
            chunks.map(<[u8]>::to_vec).collect::<Vec<_>>()
        };
        let (expected, found) = (chunks(&made.records), chunks(&found.records));
        if let Some(at) =
            (0..expected.len().max(found.len())).find(|at| expected.get(*at) != found.get(*at))
        {
            let show = |records: &[Vec<u8>]| records.get(at).map(|record| describe(record));
            return Err(format!(
                "record {at} of the manifest is {:?}, without crashes {:?}",
                show(&found),
                show(&expected),
            ));
        }
        if made.index != superblock.checkpoint_index {
            return Err(format!(
                "the manifest is at {:?}, without crashes at {:?}",
                superblock.checkpoint_index, made.index
            ));
        }
        if made.state != superblock.ledger_state {
            return Err("the state in the superblock differs".into());
        }
        Ok(())
    }

    /// Executes up to an op, and makes a checkpoint.
    async fn advance(&mut self, op: u64, sessions: &[u8]) {
        while self.op < op {
            let work = self
                .waiting
                .pop_front()
                .expect("a checkpoint is of the history");
            self.op += 1;
            self.grid.op = self.op;
            match work {
                Work::Pulse(timestamp) => self.ledger.pulse(&mut self.grid, timestamp).await,
                Work::Requests(requests) => {
                    for (operation, timestamp, body) in requests {
                        let request = Request {
                            operation,
                            timestamp,
                            body: &body,
                        };
                        let mut reply = Vec::new();
                        self.ledger
                            .execute(&mut self.grid, &request, &mut reply)
                            .await;
                    }
                }
            }
            self.ledger.finish(&mut self.grid).await;
        }
        let mut records = self.ledger.checkpoint(&mut self.grid).await;
        self.write_sessions(sessions, &mut records).await;
        let index = self.write_manifest(&records).await;
        self.grid.finish_writes().await;
        self.grid.free.checkpoint_durable();
        self.made = Made {
            op,
            index,
            state: self.ledger.state().to_vec(),
            records,
        };
    }

    async fn write_sessions(&mut self, sessions: &[u8], records: &mut Vec<u8>) {
        for old in std::mem::take(&mut self.sessions) {
            self.grid.release(&old);
        }
        let chunks = sessions.chunks(BLOCK_DATA_SIZE / SESSION_SIZE * SESSION_SIZE);
        for (position, bytes) in (0..).zip(chunks) {
            let mut block = self.block(bytes).await;
            block.kind = BlockKind::Records;
            block.table = SESSIONS_TABLE;
            block.record_size = 288;
            block.position = position;
            let block = self.grid.write(block);
            let record = ManifestRecord {
                block,
                first: 0.into(),
                count: to_u64(bytes.len() / SESSION_SIZE).into(),
                tag: ManifestTag {
                    kind: ManifestKind::TableBlock as u8,
                    table: SESSIONS_TABLE,
                    ..ManifestTag::default()
                },
            };
            records.extend_from_slice(record.as_bytes());
            self.sessions.push(block);
        }
    }

    /// The last block first: each names the one after it.
    async fn write_manifest(&mut self, records: &[u8]) -> BlockReference {
        for old in std::mem::take(&mut self.manifest) {
            self.grid.release(&old);
        }
        let mut next = BlockReference::default();
        let chunks = records.chunks(BLOCK_DATA_SIZE / MANIFEST_RECORD_SIZE * MANIFEST_RECORD_SIZE);
        for (position, bytes) in chunks.enumerate().rev() {
            let mut block = self.block(bytes).await;
            block.position = to_u64(position);
            block.next = next;
            next = self.grid.write(block);
            self.manifest.push(next);
        }
        next
    }

    async fn block(&mut self, bytes: &[u8]) -> NewBlock {
        let mut buffer = self.grid.buffer().await;
        buffer[SECTOR_SIZE..SECTOR_SIZE + bytes.len()].copy_from_slice(bytes);
        NewBlock {
            kind: BlockKind::Manifest,
            table: 0,
            record_size: 64,
            position: 0,
            size: bytes.len(),
            next: BlockReference::default(),
            buffer,
            sums: None,
        }
    }
}

impl Drop for Mirror {
    fn drop(&mut self) {
        daftari::io::Io::storage(self.io).clear();
    }
}

/// A record of a manifest, as text.
fn describe(record: &[u8]) -> String {
    let [kind, table, tier, ..] = record[MANIFEST_RECORD_SIZE - 8..] else {
        return "too short".into();
    };
    let kind = ManifestKind::from_code(kind);
    format!(
        "{kind:?} of table {table} tier {tier}: {:02x?}",
        &record[..MANIFEST_RECORD_SIZE - 8]
    )
}
