//! What the ledger keeps: tables that a checkpoint writes, and indexes that are made from them.

use super::index::Indexes;
use super::records::{EventRecord, PendingRecord, PendingStatus};
use crate::lsm::{Hash, IdIndex, LoadError, RecordTable, Segments, Table};
use crate::stdx::{to_u64, to_usize};
use crate::wire::{Account, ChangeEventKind, Operation, ReplyEncoder, Transfer};
use std::collections::BTreeSet;
use zerocopy::little_endian::{U64, U128};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Limits of a ledger.
#[derive(Clone, Copy, Debug)]
pub struct LedgerOptions {
    /// Bytes of memory that the state may take.
    pub memory_limit: u64,
}

/// What the superblock keeps of the ledger (256 bytes): the numbers of records, to compare.
#[derive(
    Clone, Copy, Debug, Eq, PartialEq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
struct LedgerState {
    accounts: U64,
    transfers: U64,
    events: U64,
    pending: U64,
    failed: U64,
    reserved: [u8; 216],
}

const _: () = assert!(size_of::<LedgerState>() == 256);

/// Why tables do not make a ledger.
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
    /// A record leads to one that is not there, or has an impossible value.
    #[error("record {position} of table {table} does not fit the others")]
    Record {
        /// The table.
        table: u8,
        /// Position of the record.
        position: usize,
    },
    /// A chunk cannot be loaded.
    #[error(transparent)]
    Load(#[from] LoadError),
}

const ACCOUNTS: u8 = 1;
const TRANSFERS: u8 = 2;
const EVENTS: u8 = 3;
const PENDING: u8 = 4;
const FAILED: u8 = 5;

/// Bytes that a pending transfer that expires takes in the queue at most: an entry in a node that is
/// half full, and its share of the nodes above.
const EXPIRY_SIZE_MAX: u64 = 64;
/// Bytes kept free for buffers and for chunks that are begun.
const MEMORY_RESERVE: u64 = 8 << 20;

/// Accounts and transfers, in memory.
#[derive(Debug)]
pub struct Ledger {
    memory_limit: u64,
    pub(super) accounts: RecordTable<Account>,
    pub(super) transfers: RecordTable<Transfer>,
    pub(super) events: RecordTable<EventRecord>,
    pub(super) pending: RecordTable<PendingRecord>,
    /// Ids burnt by failures.
    pub(super) failed: RecordTable<U128>,

    pub(super) account_ids: IdIndex,
    pub(super) transfer_ids: IdIndex,
    pub(super) failed_ids: IdIndex,
    pub(super) indexes: Indexes,
    /// From the position of a transfer to that of its pending record.
    pub(super) pending_of: IdIndex,
    /// (Time of expiry, time of creation, position of the pending record).
    pub(super) expiry: BTreeSet<(u64, u64, u32)>,
    /// Positions of the events that are expiries.
    pub(super) expiries: Segments<u32>,

    pub(super) undo: super::chain::Undo,
    pub(super) encoder: ReplyEncoder,
}

impl Ledger {
    /// An empty ledger.
    #[must_use]
    pub fn new(options: LedgerOptions) -> Self {
        Self {
            memory_limit: options.memory_limit,
            accounts: RecordTable::new(ACCOUNTS, false),
            transfers: RecordTable::new(TRANSFERS, true),
            events: RecordTable::new(EVENTS, true),
            pending: RecordTable::new(PENDING, false),
            failed: RecordTable::new(FAILED, true),
            account_ids: IdIndex::new(),
            transfer_ids: IdIndex::new(),
            failed_ids: IdIndex::new(),
            indexes: Indexes::default(),
            pending_of: IdIndex::new(),
            expiry: BTreeSet::new(),
            expiries: Segments::default(),
            undo: super::chain::Undo::default(),
            encoder: super::encoder(),
        }
    }

    /// Bytes of memory that the state takes.
    #[must_use]
    pub fn memory_used(&self) -> u64 {
        let tables = self.accounts.memory()
            + self.transfers.memory()
            + self.events.memory()
            + self.pending.memory()
            + self.failed.memory();
        let ids = self.account_ids.memory()
            + self.transfer_ids.memory()
            + self.failed_ids.memory()
            + self.pending_of.memory();
        tables
            + ids
            + self.indexes.memory()
            + self.expiries.memory()
            + to_u64(self.expiry.len()) * EXPIRY_SIZE_MAX
    }

    /// Whether the memory limit leaves room for a request of `events`, after `events_waiting` more
    /// that were admitted and not executed yet, whatever they are.
    #[must_use]
    pub fn admits(&self, operation: Operation, events: u64, events_waiting: u64) -> bool {
        assert!(operation.is_create());
        let used = self.memory_used() + MEMORY_RESERVE;
        let events = events + events_waiting;
        used.saturating_add(self.growth(events)) <= self.memory_limit
    }

    /// Bytes that so many more events take at most.
    fn growth(&self, events: u64) -> u64 {
        let tables = self.accounts.growth(events)
            + self.transfers.growth(events)
            + self.events.growth(events)
            + self.pending.growth(events)
            + self.failed.growth(events);
        let ids = self.account_ids.growth(events)
            + self.transfer_ids.growth(events)
            + self.failed_ids.growth(events)
            + self.pending_of.growth(events);
        tables + ids + self.indexes_growth(events) + events * EXPIRY_SIZE_MAX
    }

    /// The highest timestamp that an account, a transfer or an expiry has.
    #[must_use]
    pub fn timestamp_last(&self) -> u64 {
        let account = self
            .accounts
            .last()
            .map_or(0, |account| account.timestamp.get());
        let transfer = self
            .transfers
            .last()
            .map_or(0, |transfer| transfer.timestamp.get());
        let event = self.events.last().map_or(0, |event| event.timestamp.get());
        account.max(transfer).max(event)
    }

    /// The tables, in the order of their numbers.
    #[must_use]
    pub fn tables(&self) -> [&dyn Table; 5] {
        [
            &self.accounts,
            &self.transfers,
            &self.events,
            &self.pending,
            &self.failed,
        ]
    }

    /// The tables, in the order of their numbers.
    pub fn tables_mut(&mut self) -> [&mut dyn Table; 5] {
        [
            &mut self.accounts,
            &mut self.transfers,
            &mut self.events,
            &mut self.pending,
            &mut self.failed,
        ]
    }

    fn counts(&self) -> [u64; 5] {
        [
            to_u64(self.accounts.len()),
            to_u64(self.transfers.len()),
            to_u64(self.events.len()),
            to_u64(self.pending.len()),
            to_u64(self.failed.len()),
        ]
    }

    /// What the superblock keeps beside the tables.
    #[must_use]
    pub fn state(&self) -> [u8; 256] {
        let [accounts, transfers, events, pending, failed] = self.counts();
        let state = LedgerState {
            accounts: accounts.into(),
            transfers: transfers.into(),
            events: events.into(),
            pending: pending.into(),
            failed: failed.into(),
            reserved: [0; 216],
        };
        zerocopy::transmute!(state)
    }

    /// Makes the indexes, once all tables are loaded.
    ///
    /// # Errors
    /// When the tables do not fit each other or `state`.
    pub fn restore(&mut self, state: &[u8; 256]) -> Result<(), RestoreError> {
        let state: LedgerState = zerocopy::transmute!(*state);
        let expected = [
            state.accounts,
            state.transfers,
            state.events,
            state.pending,
            state.failed,
        ];
        for ((table, expected), found) in (1..).zip(expected).zip(self.counts()) {
            let expected = expected.get();
            if expected != found {
                return Err(RestoreError::Count {
                    table,
                    expected,
                    found,
                });
            }
        }
        for (position, account) in (0..).zip(self.accounts.iter()) {
            self.account_ids
                .insert(Hash::of(account.id.get()), position);
        }
        for (position, transfer) in (0..).zip(self.transfers.iter()) {
            self.transfer_ids
                .insert(Hash::of(transfer.id.get()), position);
            for id in [
                transfer.debit_account_id.get(),
                transfer.credit_account_id.get(),
            ] {
                if self.find_account(id).is_none() {
                    return Err(RestoreError::Record {
                        table: TRANSFERS,
                        position: to_usize(position),
                    });
                }
            }
        }
        for (position, id) in (0..).zip(self.failed.iter()) {
            self.failed_ids.insert(Hash::of(id.get()), position);
        }
        self.index_all();
        self.restore_pending()?;
        self.restore_events()
    }

    fn restore_pending(&mut self) -> Result<(), RestoreError> {
        let transfers = self.transfers.len();
        for (position, record) in (0..).zip(self.pending.iter()) {
            if to_usize(record.transfer.get()) >= transfers || record.status > 3 {
                let position = to_usize(position);
                return Err(RestoreError::Record {
                    table: PENDING,
                    position,
                });
            }
            self.pending_of
                .insert(Hash::of(record.transfer.get().into()), position);
            let transfer = self.transfers.get(record.transfer.get());
            if record.status() == PendingStatus::Pending
                && let Some(expires) = super::expiry::expires_at(transfer)
            {
                let _ = self
                    .expiry
                    .insert((expires, transfer.timestamp.get(), position));
            }
        }
        Ok(())
    }

    fn restore_events(&mut self) -> Result<(), RestoreError> {
        let (accounts, transfers) = (self.accounts.len(), self.transfers.len());
        let mut next_transfer = 0;
        for (position, event) in (0_u32..).zip(self.events.iter()) {
            let expired = event.kind == ChangeEventKind::TwoPhaseExpired.code();
            let fits = to_usize(event.transfer.get()) < transfers
                && to_usize(event.debit_account.get()) < accounts
                && to_usize(event.credit_account.get()) < accounts
                && (expired || event.transfer.get() == next_transfer);
            if !fits {
                return Err(RestoreError::Record {
                    table: EVENTS,
                    position: to_usize(position),
                });
            }
            if expired {
                let _ = self.expiries.push(position);
            } else {
                next_transfer += 1;
            }
        }
        if to_usize(next_transfer) != transfers {
            return Err(RestoreError::Record {
                table: TRANSFERS,
                position: to_usize(next_transfer),
            });
        }
        Ok(())
    }

    /// Position of the account with that id.
    #[inline]
    pub(super) fn find_account(&self, id: u128) -> Option<u32> {
        let accounts = &self.accounts;
        self.account_ids.find(Hash::of(id), |position| {
            accounts.get(position).id.get() == id
        })
    }

    /// Position of the transfer with that id.
    #[inline]
    pub(super) fn find_transfer(&self, id: u128) -> Option<u32> {
        let transfers = &self.transfers;
        self.transfer_ids.find(Hash::of(id), |position| {
            transfers.get(position).id.get() == id
        })
    }

    /// Position of the pending record of the transfer at a position.
    pub(super) fn find_pending(&self, transfer: u32) -> Option<u32> {
        self.pending_of.find(Hash::of(transfer.into()), |position| {
            self.pending.get(position).transfer.get() == transfer
        })
    }

    /// Whether an account has that timestamp.
    pub(super) fn account_at(&self, timestamp: u64) -> bool {
        let position = self
            .accounts
            .partition_point(|a| a.timestamp.get() < timestamp);
        to_usize(position) < self.accounts.len()
            && self.accounts.get(position).timestamp.get() == timestamp
    }

    /// Whether a transfer has that timestamp.
    pub(super) fn transfer_at(&self, timestamp: u64) -> bool {
        let position = self
            .transfers
            .partition_point(|t| t.timestamp.get() < timestamp);
        to_usize(position) < self.transfers.len()
            && self.transfers.get(position).timestamp.get() == timestamp
    }
}
