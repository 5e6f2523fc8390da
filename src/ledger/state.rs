//! What the ledger keeps: tables that a checkpoint writes, and indexes that are made from them.

use crate::lsm::{FixedState, IdIndex, LoadError, Postings, RecordTable, Table};
use crate::stdx::{to_u64, to_usize};
use crate::wire::{Account, ChangeEventKind, Operation, ReplyEncoder, Transfer};
use hashbrown::HashMap;
use std::collections::BTreeSet;
use zerocopy::little_endian::{U16, U32, U64, U128};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Limits of a ledger.
#[derive(Clone, Copy, Debug)]
pub struct LedgerOptions {
    /// Bytes of memory that the state may take.
    pub memory_limit: u64,
}

/// What became of a pending transfer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum PendingStatus {
    Pending = 0,
    Posted = 1,
    Voided = 2,
    Expired = 3,
}

/// A pending transfer and what became of it (16 bytes).
#[derive(
    Clone, Copy, Debug, Eq, PartialEq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub(super) struct PendingRecord {
    /// Position of the transfer.
    pub(super) transfer: U32,
    /// A [`PendingStatus`].
    status: u8,
    reserved: [u8; 11],
}

impl PendingRecord {
    pub(super) fn new(transfer: u32) -> Self {
        Self {
            transfer: transfer.into(),
            status: 0,
            reserved: [0; 11],
        }
    }

    pub(super) fn status(&self) -> PendingStatus {
        match self.status {
            0 => PendingStatus::Pending,
            1 => PendingStatus::Posted,
            2 => PendingStatus::Voided,
            3 => PendingStatus::Expired,
            other => unreachable!("status {other} is refused when a data file is opened"),
        }
    }

    pub(super) fn set(&mut self, status: PendingStatus) {
        self.status = status as u8;
    }
}

/// Balances of an account.
#[derive(
    Clone, Copy, Debug, Eq, PartialEq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub(super) struct Balances {
    pub(super) debits_pending: U128,
    pub(super) debits_posted: U128,
    pub(super) credits_pending: U128,
    pub(super) credits_posted: U128,
}

impl Balances {
    pub(super) fn of(account: &Account) -> Self {
        Self {
            debits_pending: account.debits_pending,
            debits_posted: account.debits_posted,
            credits_pending: account.credits_pending,
            credits_posted: account.credits_posted,
        }
    }
}

/// A change of two accounts, as both were afterwards (160 bytes).
#[derive(
    Clone, Copy, Debug, Eq, PartialEq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub(super) struct EventRecord {
    pub(super) timestamp: U64,
    /// Position of the transfer.
    pub(super) transfer: U32,
    /// Positions of the accounts.
    pub(super) debit_account: U32,
    pub(super) credit_account: U32,
    pub(super) debit_flags: U16,
    pub(super) credit_flags: U16,
    /// As in a change event.
    pub(super) kind: u8,
    pub(super) reserved: [u8; 7],
    pub(super) debit: Balances,
    pub(super) credit: Balances,
}

const _: () = assert!(size_of::<EventRecord>() == 160);

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

/// Positions by the fields that queries name; zero values are not indexed.
#[derive(Debug, Default)]
pub(super) struct FieldIndex {
    pub(super) user_data_128: Postings<u128>,
    pub(super) user_data_64: Postings<u64>,
    pub(super) user_data_32: Postings<u32>,
    pub(super) ledger: Postings<u32>,
    pub(super) code: Postings<u32>,
}

/// The fields of a record that queries name.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Fields {
    pub(super) user_data_128: u128,
    pub(super) user_data_64: u64,
    pub(super) user_data_32: u32,
    pub(super) ledger: u32,
    pub(super) code: u16,
}

impl FieldIndex {
    #[inline]
    pub(super) fn push(&mut self, fields: &Fields, position: u32) {
        if fields.user_data_128 != 0 {
            self.user_data_128.push(fields.user_data_128, position);
        }
        if fields.user_data_64 != 0 {
            self.user_data_64.push(fields.user_data_64, position);
        }
        if fields.user_data_32 != 0 {
            self.user_data_32.push(fields.user_data_32, position);
        }
        self.ledger.push(fields.ledger, position);
        self.code.push(u32::from(fields.code), position);
    }

    pub(super) fn pop(&mut self, fields: &Fields, position: u32) {
        if fields.user_data_128 != 0 {
            self.user_data_128.pop(fields.user_data_128, position);
        }
        if fields.user_data_64 != 0 {
            self.user_data_64.pop(fields.user_data_64, position);
        }
        if fields.user_data_32 != 0 {
            self.user_data_32.pop(fields.user_data_32, position);
        }
        self.ledger.pop(fields.ledger, position);
        self.code.pop(u32::from(fields.code), position);
    }

    fn memory(&self) -> u64 {
        self.user_data_128.memory()
            + self.user_data_64.memory()
            + self.user_data_32.memory()
            + self.ledger.memory()
            + self.code.memory()
    }
}

pub(super) fn account_fields(account: &Account) -> Fields {
    Fields {
        user_data_128: account.user_data_128.get(),
        user_data_64: account.user_data_64.get(),
        user_data_32: account.user_data_32.get(),
        ledger: account.ledger.get(),
        code: account.code.get(),
    }
}

pub(super) fn transfer_fields(transfer: &Transfer) -> Fields {
    Fields {
        user_data_128: transfer.user_data_128.get(),
        user_data_64: transfer.user_data_64.get(),
        user_data_32: transfer.user_data_32.get(),
        ledger: transfer.ledger.get(),
        code: transfer.code.get(),
    }
}

const ACCOUNTS: u8 = 1;
const TRANSFERS: u8 = 2;
const EVENTS: u8 = 3;
const PENDING: u8 = 4;
const FAILED: u8 = 5;

/// Bytes that one event can add at the most: a record of each table, an entry of each index, lists of
/// values of its own, and the doubling of what is full.
const EVENT_MEMORY_MAX: u64 = 1024;
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
    pub(super) account_index: FieldIndex,
    pub(super) transfer_index: FieldIndex,
    /// By account, the positions of its transfers.
    pub(super) account_transfers: Vec<Vec<u32>>,
    pub(super) account_transfers_capacity: usize,
    /// From the position of a transfer to that of its pending record.
    pub(super) pending_of: HashMap<u32, u32, FixedState>,
    /// (Time of expiry, time of creation, position of the pending record).
    pub(super) expiry: BTreeSet<(u64, u64, u32)>,
    /// Positions of events in the order of time, once an import came between others.
    pub(super) events_order: Option<Vec<u32>>,

    pub(super) undo: Vec<super::chain::Undo>,
    pub(super) undo_active: bool,
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
            account_index: FieldIndex::default(),
            transfer_index: FieldIndex::default(),
            account_transfers: Vec::new(),
            account_transfers_capacity: 0,
            pending_of: HashMap::with_hasher(FixedState),
            expiry: BTreeSet::new(),
            events_order: None,
            undo: Vec::new(),
            undo_active: false,
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
        let ids = self.account_ids.memory() + self.transfer_ids.memory() + self.failed_ids.memory();
        let lists = self.account_transfers_capacity * 4 + self.account_transfers.capacity() * 40;
        let order = self
            .events_order
            .as_ref()
            .map_or(0, |order| order.capacity() * 4);
        let expiry = self.expiry.len() * 48 + self.pending_of.allocation_size();
        tables
            + ids
            + self.account_index.memory()
            + self.transfer_index.memory()
            + to_u64(lists + order + expiry)
    }

    /// Whether the memory limit leaves room for a request of `events`, after `events_waiting` more
    /// that were admitted and not executed yet.
    #[must_use]
    pub fn admits(&self, operation: Operation, events: u64, events_waiting: u64) -> bool {
        assert!(operation.is_create());
        let growth = (events + events_waiting) * EVENT_MEMORY_MAX + MEMORY_RESERVE;
        self.memory_used() + growth <= self.memory_limit
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
                .insert(IdIndex::hash(account.id.get()), position);
            self.account_index.push(&account_fields(account), position);
        }
        self.account_transfers
            .resize_with(self.accounts.len(), Vec::new);
        for (position, transfer) in (0..).zip(self.transfers.iter()) {
            self.transfer_ids
                .insert(IdIndex::hash(transfer.id.get()), position);
            self.transfer_index
                .push(&transfer_fields(transfer), position);
            for id in [
                transfer.debit_account_id.get(),
                transfer.credit_account_id.get(),
            ] {
                let account = self.find_account(id).ok_or(RestoreError::Record {
                    table: TRANSFERS,
                    position: to_usize(position),
                })?;
                let list = &mut self.account_transfers[to_usize(account)];
                let capacity = list.capacity();
                list.push(position);
                self.account_transfers_capacity += list.capacity() - capacity;
            }
        }
        for (position, id) in (0..).zip(self.failed.iter()) {
            self.failed_ids.insert(IdIndex::hash(id.get()), position);
        }
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
            let _ = self.pending_of.insert(record.transfer.get(), position);
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
        let mut sorted = true;
        let mut last = 0;
        for (position, event) in self.events.iter().enumerate() {
            let fits = to_usize(event.transfer.get()) < transfers
                && to_usize(event.debit_account.get()) < accounts
                && to_usize(event.credit_account.get()) < accounts;
            if !fits {
                return Err(RestoreError::Record {
                    table: EVENTS,
                    position,
                });
            }
            sorted &= event.timestamp.get() > last;
            last = event.timestamp.get();
        }
        if !sorted {
            let count = u32::try_from(self.events.len()).expect("positions have 32 bits");
            let mut order: Vec<u32> = (0..count).collect();
            // An import may have the time of an expiry before it: it was put first then, too.
            order.sort_by_key(|position| {
                let event = self.events.get(*position);
                let expired = event.kind == ChangeEventKind::TwoPhaseExpired.code();
                (event.timestamp.get(), expired)
            });
            self.events_order = Some(order);
        }
        Ok(())
    }

    /// Position of the account with that id.
    #[inline]
    pub(super) fn find_account(&self, id: u128) -> Option<u32> {
        let accounts = &self.accounts;
        self.account_ids.find(IdIndex::hash(id), |position| {
            accounts.get(position).id.get() == id
        })
    }

    /// Position of the transfer with that id.
    #[inline]
    pub(super) fn find_transfer(&self, id: u128) -> Option<u32> {
        let transfers = &self.transfers;
        self.transfer_ids.find(IdIndex::hash(id), |position| {
            transfers.get(position).id.get() == id
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
