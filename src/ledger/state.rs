//! What the ledger keeps: tables, and the indexes over them.

use super::account_table::{ACCOUNTS_MAX, AccountTable};
use super::catalog::table;
use super::chain::Undo;
use super::expiry::Due;
use super::fetch::{FAILED, Fetched, sides_of};
use super::index::Indexes;
use super::records::{EventRecord, ExpiryRecord, FailedRecord, PendingStatus, WideRecord};
use crate::constants::BLOCK_DATA_SIZE;
use crate::lsm::{LogTable, MutableTable};
use crate::stdx::to_u64;
use crate::wire::{ReplyEncoder, Transfer};
use std::collections::BTreeSet;
use storage_format::BlockReference;

/// Limits of a ledger.
#[derive(Clone, Copy, Debug)]
pub struct LedgerOptions {
    /// Bytes of memory that the state may take.
    pub memory_limit: u64,
    /// Bytes of them for accounts that were used lately; a cache that is too small for a batch grows.
    pub account_cache_size: u64,
}

/// Bytes that a pending transfer that expires takes in the queue at most: an entry in a node that is
/// half full, and its share of the nodes above.
const DUE_SIZE_MAX: u64 = 64;
/// Bytes kept free for buffers, for chunks that are begun, and for those that an op fills (at most 450 bytes an event).
const MEMORY_RESERVE: u64 = 8 << 20;
/// Events that wait for their turn at most, in all requests together.
const EVENTS_WAITING_MAX: u64 = 1 << 22;

/// Accounts and transfers.
#[derive(Debug)]
pub struct Ledger {
    memory_limit: u64,
    /// What the trees take at most for what they have in memory, and for merges; and the cache of
    /// accounts.
    memory_fixed: u64,
    pub(super) accounts: AccountTable,
    pub(super) transfers: LogTable<Transfer>,
    /// By position of the transfer.
    pub(super) events: LogTable<EventRecord>,
    pub(super) wide: LogTable<WideRecord>,
    pub(super) expiries: LogTable<ExpiryRecord>,
    /// Ids burnt by failures.
    pub(super) failed: LogTable<FailedRecord>,
    /// By position of the transfer, four to a byte; what is not there is zero.
    pub(super) statuses: MutableTable<u8>,
    /// Pending transfers that expire.
    pub(super) due: BTreeSet<Due>,
    /// As the last checkpoint wrote them.
    pub(super) due_blocks: Vec<BlockReference>,
    /// Timestamp of the last transfer, and of the last expiry.
    pub(super) transfer_timestamp: u64,
    pub(super) expiry_timestamp: u64,

    pub(super) indexes: Indexes,

    pub(super) fetched: Fetched,
    pub(super) undo: Undo,
    pub(super) encoder: ReplyEncoder,
}

impl Ledger {
    /// An empty ledger.
    #[must_use]
    pub fn new(options: LedgerOptions) -> Self {
        let accounts = AccountTable::new(options.account_cache_size);
        Self {
            memory_limit: options.memory_limit,
            memory_fixed: Indexes::memory_fixed() + accounts.cache.memory_max(),
            accounts,
            // What was pending is going to be resolved.
            transfers: LogTable::new(table::TRANSFERS, true),
            events: LogTable::new(table::EVENTS, false),
            wide: LogTable::new(table::WIDE, false),
            expiries: LogTable::new(table::EXPIRIES, false),
            failed: LogTable::new(table::FAILED, false),
            statuses: MutableTable::new(table::STATUSES),
            due: BTreeSet::new(),
            due_blocks: Vec::new(),
            transfer_timestamp: 0,
            expiry_timestamp: 0,
            indexes: Indexes::new(),
            fetched: Fetched::default(),
            undo: Undo::default(),
            encoder: super::encoder(),
        }
    }

    /// Bytes of memory that the state takes.
    #[must_use]
    pub fn memory_used(&self) -> u64 {
        let tables = self.accounts.created.memory()
            + self.accounts.heads.memory()
            + self.transfers.memory()
            + self.events.memory()
            + self.wide.memory()
            + self.expiries.memory()
            + self.failed.memory()
            + self.statuses.memory();
        let indexes = self.indexes.disk_memory() + self.memory_fixed;
        tables + indexes + to_u64(self.due.len()) * DUE_SIZE_MAX
    }

    /// How many more events there is room for, whatever they are, when so many bytes of memory are used.
    #[must_use]
    pub fn room(&self, memory_used: u64) -> u64 {
        let positions = ACCOUNTS_MAX - self.accounts.created.len();
        self.room_in_memory(memory_used).min(positions)
    }

    fn room_in_memory(&self, memory_used: u64) -> u64 {
        let used = memory_used + MEMORY_RESERVE;
        let fits = |events: u64| used.saturating_add(self.growth(events)) <= self.memory_limit;
        if fits(EVENTS_WAITING_MAX) {
            return EVENTS_WAITING_MAX;
        }
        let (mut low, mut high) = (0, EVENTS_WAITING_MAX);
        while low < high {
            let middle = (low + high).div_ceil(2);
            if fits(middle) {
                low = middle;
            } else {
                high = middle - 1;
            }
        }
        low
    }

    /// Bytes that so many more events take at most: each an account, or a pending transfer, with
    /// what stays of it in memory.
    fn growth(&self, events: u64) -> u64 {
        /// An account's head, a transfer's status, and what either has of fences and filters.
        const EVENT_SIZE_MAX: u64 = 24;
        events * (EVENT_SIZE_MAX + DUE_SIZE_MAX)
    }

    /// Blocks that the next checkpoint and the merges until then may write anew, while the old ones
    /// are still taken.
    #[must_use]
    pub fn blocks_rewritten(&self) -> u64 {
        // A pending transfer that expires leaves a record of 160 bytes; the queue has 24.
        let due = to_u64(self.due.len()) / to_u64(BLOCK_DATA_SIZE / 256) + 2;
        let mutable = self.accounts.heads.chunk_count() + self.statuses.chunk_count();
        mutable + due + self.indexes.block_count() + 6
    }

    /// The highest timestamp that an account, a transfer or an expiry has.
    #[must_use]
    pub fn timestamp_last(&self) -> u64 {
        self.accounts
            .timestamp
            .max(self.transfer_timestamp)
            .max(self.expiry_timestamp)
    }

    /// Slot of the account with that id, which was fetched.
    #[inline]
    pub(super) fn find_account(&self, id: u128) -> Option<u32> {
        self.accounts.cache.find(id)
    }

    /// Slots of the accounts of a stored transfer, which were fetched.
    pub(super) fn slots_of(&self, transfer: &Transfer) -> (u32, u32) {
        let [debit, credit] = sides_of(transfer).map(|id| {
            let slot = self.find_account(id);
            slot.expect("a stored transfer has its accounts")
        });
        (debit, credit)
    }

    /// What an id stands for: the position of a transfer, or a burnt id. It is in memory, or was
    /// fetched.
    #[inline]
    pub(super) fn find_id(&self, id: u128) -> Option<u64> {
        self.indexes.ids.find(id).or_else(|| self.fetched.id(id))
    }

    /// Position of the transfer with that id.
    #[inline]
    pub(super) fn find_transfer(&self, id: u128) -> Option<u64> {
        self.find_id(id).filter(|value| value & FAILED == 0)
    }

    /// What became of the transfer at a position.
    pub(super) fn status(&self, transfer: u64) -> PendingStatus {
        let byte = PendingStatus::byte(transfer);
        if byte >= self.statuses.len() {
            return PendingStatus::Pending;
        }
        PendingStatus::read(*self.statuses.get(byte), transfer)
    }

    pub(super) fn status_set(&mut self, transfer: u64, status: PendingStatus) {
        let byte = PendingStatus::byte(transfer);
        while self.statuses.len() <= byte {
            let _ = self.statuses.push(&0);
        }
        let byte = self.statuses.get_mut(byte);
        *byte = status.written(*byte, transfer);
    }
}
