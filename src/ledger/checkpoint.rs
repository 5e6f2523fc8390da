//! The ledger in a checkpoint: what is not in blocks yet is written, the manifest names all of it,
//! and from both the ledger is made again.

use super::Ledger;
use super::catalog::table;
use super::manifest::{Manifest, TreesListed, entry_of};
use super::records::{DueRecord, EventRecord, ExpiryRecord, FailedRecord, WideRecord};
use crate::grid::{BlockStore, Grid};
use crate::io::Io;
use crate::lsm::{BlockEntry, Chunk, LogTable, MutableTable, Ranked, Record, Tail};
use crate::stdx::{to_u64, u64_to_usize};
use crate::wire::{Account, Transfer};
use std::collections::BTreeSet;
use storage_format::{MANIFEST_RECORD_SIZE, ManifestKind, ManifestRecord};
use zerocopy::little_endian::U64;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// What the superblock keeps of the ledger (256 bytes).
#[derive(
    Clone, Copy, Debug, Eq, PartialEq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
struct LedgerState {
    /// Records of the tables, in the order of their numbers.
    counts: [U64; 9],
    /// Of the last transfer.
    transfer_timestamp: U64,
    /// Of the last expiry.
    expiry_timestamp: U64,
    /// Of the last account.
    account_timestamp: U64,
    reserved: [u8; 160],
}

const _: () = assert!(size_of::<LedgerState>() == 256);

/// Records of the ledger's tables, in the order of their numbers, as the superblock has them.
#[must_use]
pub fn counts(state: &[u8; 256]) -> [u64; 9] {
    let state: LedgerState = zerocopy::transmute!(*state);
    state.counts.map(U64::get)
}

/// Why a checkpoint does not make a ledger.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum RestoreError {
    /// A table has another number of records than the superblock says.
    #[error("table {table} has {found} records, the superblock says {expected}")]
    Count {
        /// The table.
        table: u8,
        /// As the superblock says.
        expected: u64,
        /// As the blocks have it.
        found: u64,
    },
    /// A record of the manifest is of a table that there is not, or of an unknown kind.
    #[error("record {record} of the manifest makes no sense")]
    Manifest {
        /// Its position.
        record: usize,
    },
    /// A table cannot be put together.
    #[error("table {table}: {what}")]
    Table {
        /// The table.
        table: u8,
        /// What is wrong.
        what: &'static str,
    },
}

/// The blocks of a table, as the manifest lists them.
#[derive(Debug, Default)]
struct Listed {
    blocks: Vec<(BlockEntry, u64)>,
}

impl Listed {
    async fn restore<T: Record + Ranked>(
        mut self,
        number: u8,
        table: &mut LogTable<T>,
        store: &mut impl BlockStore,
    ) -> Result<(), RestoreError> {
        let full = to_u64(LogTable::<T>::PER_BLOCK);
        let tail = self.blocks.pop_if(|(_, count)| *count < full);
        let tail = tail.map(|(entry, count)| (entry.reference, u64_to_usize(count)));
        if self.blocks.iter().any(|(_, count)| *count != full) {
            let what = "a block that is not the last one is not full";
            return Err(RestoreError::Table {
                table: number,
                what,
            });
        }
        let blocks = self.blocks.into_iter().map(|(entry, _)| entry).collect();
        let tail = Tail {
            block: tail.map(|(block, _)| block),
            len: tail.map_or(0, |(_, len)| len),
        };
        table.restore(blocks, tail, store).await;
        Ok(())
    }

    async fn restore_mutable<T: Record>(
        self,
        number: u8,
        table: &mut MutableTable<T>,
        store: &mut impl BlockStore,
    ) -> Result<(), RestoreError> {
        for (entry, count) in self.blocks {
            let restored = table.restore(entry.reference, count, store).await;
            restored.map_err(|what| RestoreError::Table {
                table: number,
                what,
            })?;
        }
        Ok(())
    }
}

impl Ledger {
    /// What the superblock keeps beside the manifest.
    #[must_use]
    pub fn state(&self) -> [u8; 256] {
        let state = LedgerState {
            counts: self.counts().map(U64::new),
            transfer_timestamp: self.transfer_timestamp.into(),
            expiry_timestamp: self.expiry_timestamp.into(),
            account_timestamp: self.accounts.timestamp.into(),
            reserved: [0; 160],
        };
        zerocopy::transmute!(state)
    }

    fn counts(&self) -> [u64; 9] {
        [
            self.accounts.created.len(),
            self.transfers.len(),
            self.events.len(),
            self.wide.len(),
            self.expiries.len(),
            self.failed.len(),
            self.statuses.len(),
            to_u64(self.due.len()),
            self.accounts.heads.len(),
        ]
    }

    /// Writes what is not in blocks yet; gives the manifest.
    pub async fn checkpoint<I: Io>(&mut self, grid: &mut Grid<'_, I>) -> Vec<u8> {
        self.indexes.beat_end(grid).await;
        let mut manifest = Manifest::default();
        let (of, manifest_of) = (&mut *self, &mut manifest);
        manifest_of
            .log_table(table::ACCOUNTS, &mut of.accounts.created, grid)
            .await;
        manifest_of
            .log_table(table::TRANSFERS, &mut of.transfers, grid)
            .await;
        manifest_of
            .log_table(table::EVENTS, &mut of.events, grid)
            .await;
        manifest_of.log_table(table::WIDE, &mut of.wide, grid).await;
        manifest_of
            .log_table(table::EXPIRIES, &mut of.expiries, grid)
            .await;
        manifest_of
            .log_table(table::FAILED, &mut of.failed, grid)
            .await;
        for (block, count) in self.statuses.checkpoint(grid).await {
            manifest.table_block(table::STATUSES, block, 0, count);
        }
        self.checkpoint_due(grid, &mut manifest).await;
        for (block, count) in self.accounts.heads.checkpoint(grid).await {
            manifest.table_block(table::ACCOUNT_HEADS, block, 0, count);
        }
        manifest.indexes(&self.indexes);
        manifest.0
    }

    /// Writes the queue of expiries anew.
    async fn checkpoint_due<I: Io>(&mut self, grid: &mut Grid<'_, I>, manifest: &mut Manifest) {
        for old in std::mem::take(&mut self.due_blocks) {
            grid.release(&old);
        }
        let mut due = self.due.iter();
        for position in 0.. {
            let mut chunk = Chunk::new();
            for (expires, timestamp, transfer) in due.by_ref().take(Chunk::<DueRecord>::CAPACITY) {
                chunk.push(&DueRecord {
                    expires: (*expires).into(),
                    timestamp: (*timestamp).into(),
                    transfer: (*transfer).into(),
                });
            }
            if chunk.is_empty() {
                return;
            }
            let block = chunk.block(table::DUE, position, grid).await;
            let block = grid.write(block);
            manifest.table_block(table::DUE, block, 0, to_u64(chunk.len()));
            self.due_blocks.push(block);
        }
    }

    /// Makes the ledger that a checkpoint holds. It is empty before.
    ///
    /// # Errors
    /// When the parts do not fit each other.
    pub async fn restore<I: Io>(
        &mut self,
        state: &[u8; 256],
        manifest: &[u8],
        grid: &mut Grid<'_, I>,
    ) -> Result<(), RestoreError> {
        let mut listed: [Listed; 10] = Default::default();
        let mut trees = TreesListed::default();
        for (index, bytes) in manifest.chunks_exact(MANIFEST_RECORD_SIZE).enumerate() {
            let record = ManifestRecord::read_from_bytes(bytes).expect("the size of a record");
            let wrong = RestoreError::Manifest { record: index };
            // The sessions are the driver's.
            if record.tag.table == u8::MAX {
                continue;
            }
            if record.tag.kind == ManifestKind::TableBlock as u8 {
                let table = listed.get_mut(usize::from(record.tag.table)).ok_or(wrong)?;
                table.blocks.push((entry_of(&record), record.count.get()));
            } else {
                trees.take(&mut self.indexes, bytes).ok_or(wrong)?;
            }
        }
        let trees = trees.0;
        self.restore_tables(listed, grid).await?;
        let state: LedgerState = zerocopy::transmute!(*state);
        for ((number, expected), found) in (1..).zip(state.counts).zip(self.counts()) {
            let expected = expected.get();
            if expected != found {
                return Err(RestoreError::Count {
                    table: number,
                    expected,
                    found,
                });
            }
        }
        self.transfer_timestamp = state.transfer_timestamp.get();
        self.expiry_timestamp = state.expiry_timestamp.get();
        self.accounts.timestamp = state.account_timestamp.get();
        let repushes = self.indexes.restore(trees, grid).await;
        self.repush(&repushes, grid).await;
        Ok(())
    }

    async fn restore_tables<I: Io>(
        &mut self,
        listed: [Listed; 10],
        grid: &mut Grid<'_, I>,
    ) -> Result<(), RestoreError> {
        let [
            none,
            accounts,
            transfers,
            events,
            wide,
            expiries,
            failed,
            statuses,
            due,
            heads,
        ] = listed;
        if !none.blocks.is_empty() {
            return Err(RestoreError::Table {
                table: 0,
                what: "there is no such table",
            });
        }
        accounts
            .restore::<Account>(table::ACCOUNTS, &mut self.accounts.created, grid)
            .await?;
        transfers
            .restore::<Transfer>(table::TRANSFERS, &mut self.transfers, grid)
            .await?;
        events
            .restore::<EventRecord>(table::EVENTS, &mut self.events, grid)
            .await?;
        wide.restore::<WideRecord>(table::WIDE, &mut self.wide, grid)
            .await?;
        expiries
            .restore::<ExpiryRecord>(table::EXPIRIES, &mut self.expiries, grid)
            .await?;
        failed
            .restore::<FailedRecord>(table::FAILED, &mut self.failed, grid)
            .await?;
        statuses
            .restore_mutable(table::STATUSES, &mut self.statuses, grid)
            .await?;
        heads
            .restore_mutable(table::ACCOUNT_HEADS, &mut self.accounts.heads, grid)
            .await?;
        if self.accounts.heads.len() != self.accounts.created.len() {
            return Err(RestoreError::Table {
                table: table::ACCOUNT_HEADS,
                what: "there is not one head for each account",
            });
        }
        self.due = restore_due(&due.blocks, grid).await;
        let blocks = due.blocks.iter().map(|(entry, _)| entry.reference);
        self.due_blocks = blocks.collect();
        Ok(())
    }
}

async fn restore_due<I: Io>(
    blocks: &[(BlockEntry, u64)],
    grid: &mut Grid<'_, I>,
) -> BTreeSet<super::expiry::Due> {
    let mut due = BTreeSet::new();
    for (entry, count) in blocks {
        let buffer = grid.read(&entry.reference).await;
        for at in 0..u64_to_usize(*count) {
            let record = Chunk::<DueRecord>::record(&buffer, at);
            let _ = due.insert((
                record.expires.get(),
                record.timestamp.get(),
                record.transfer.get(),
            ));
        }
    }
    due
}
