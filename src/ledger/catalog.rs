//! The tables and trees of a data file, by number: names, sizes, and what holds of their records.
//!
//! The ledger and the driver write by it, and whoever inspects a file reads by it. Numbers are never
//! used again.

use super::account_table::Head;
use super::records::{DueRecord, EventRecord, ExpiryRecord, FailedRecord, WideRecord};
use crate::constants::BLOCK_DATA_SIZE;
use crate::lsm::{Ranked, Record};
use crate::stdx::{to_u64, u64_to_usize};
use crate::wire::{Account, Transfer};
use storage_format::SECTOR_SIZE;

/// Numbers of the tables.
pub mod table {
    /// Accounts, as they were created.
    pub const ACCOUNTS: u8 = 1;
    /// Transfers.
    pub const TRANSFERS: u8 = 2;
    /// What transfers left of their accounts.
    pub const EVENTS: u8 = 3;
    /// Balances that do not fit an event.
    pub const WIDE: u8 = 4;
    /// What expiries left of their accounts.
    pub const EXPIRIES: u8 = 5;
    /// Ids burnt by failures.
    pub const FAILED: u8 = 6;
    /// What became of pending transfers.
    pub const STATUSES: u8 = 7;
    /// Pending transfers that expire.
    pub const DUE: u8 = 8;
    /// Where the balances of accounts are.
    pub const ACCOUNT_HEADS: u8 = 9;
    /// Client sessions; they are the driver's.
    pub const SESSIONS: u8 = 255;
}

/// Numbers of the trees; those of fields count on from the first, in the order of [`FIELDS`].
pub mod tree {
    /// By each field of an account, its position.
    pub const ACCOUNT_FIELDS: u8 = 32;
    /// By each field of a transfer, its position.
    pub const TRANSFER_FIELDS: u8 = 48;
    /// By the id of an account of either side, the positions of transfers.
    pub const TRANSFER_SIDES: u8 = 56;
    /// By id, the position of a transfer, or of a burnt id.
    pub const TRANSFER_IDS: u8 = 64;
    /// By id, the position of an account.
    pub const ACCOUNT_IDS: u8 = 65;
}

/// Fields of accounts and of transfers that have trees.
pub const FIELDS: usize = 5;

/// Bytes of a record of the sessions' table.
pub const SESSION_SIZE: usize = 288;

/// How a table is written.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Growth {
    /// Records are appended and never change.
    Appended,
    /// Records change; a checkpoint writes the blocks that differ.
    Changed,
    /// A checkpoint writes all of it anew.
    Anew,
}

/// A table.
#[derive(Clone, Copy, Debug)]
pub struct TableInfo {
    /// Its number.
    pub number: u8,
    /// Its name.
    pub name: &'static str,
    /// Bytes of a record.
    pub record_size: usize,
    /// How it is written.
    pub growth: Growth,
    /// What never decreases from a record to the next, if anything does not.
    pub rank: Option<fn(&[u8]) -> u64>,
}

const fn info(number: u8, name: &'static str, record_size: usize, growth: Growth) -> TableInfo {
    TableInfo {
        number,
        name,
        record_size,
        growth,
        rank: None,
    }
}

const fn appended<T: Record + Ranked>(number: u8, name: &'static str) -> TableInfo {
    TableInfo {
        rank: Some(rank::<T>),
        ..info(number, name, size_of::<T>(), Growth::Appended)
    }
}

fn rank<T: Record + Ranked>(bytes: &[u8]) -> u64 {
    T::read_from_bytes(bytes)
        .expect("the size of a record")
        .rank()
}

/// All tables.
pub const TABLES: [TableInfo; 10] = [
    appended::<Account>(table::ACCOUNTS, "accounts"),
    appended::<Transfer>(table::TRANSFERS, "transfers"),
    appended::<EventRecord>(table::EVENTS, "events"),
    appended::<WideRecord>(table::WIDE, "wide_balances"),
    appended::<ExpiryRecord>(table::EXPIRIES, "expiries"),
    appended::<FailedRecord>(table::FAILED, "failed_ids"),
    info(table::STATUSES, "statuses", 1, Growth::Changed),
    info(table::DUE, "due", size_of::<DueRecord>(), Growth::Anew),
    info(
        table::ACCOUNT_HEADS,
        "account_heads",
        size_of::<Head>(),
        Growth::Changed,
    ),
    info(table::SESSIONS, "sessions", SESSION_SIZE, Growth::Anew),
];

impl TableInfo {
    /// The table of a number.
    #[must_use]
    pub fn of(number: u8) -> Option<&'static Self> {
        TABLES.iter().find(|table| table.number == number)
    }

    /// Records of a page. Sessions alone lie one after the other as if there were no pages.
    const fn per_page(&self) -> usize {
        SECTOR_SIZE / self.record_size
    }

    const fn is_paged(&self) -> bool {
        self.number != table::SESSIONS
    }

    /// Records of a full block.
    #[must_use]
    pub const fn capacity(&self) -> usize {
        if self.is_paged() {
            BLOCK_DATA_SIZE / SECTOR_SIZE * self.per_page()
        } else {
            BLOCK_DATA_SIZE / self.record_size
        }
    }

    /// Where among the data bytes of a block a record begins.
    #[must_use]
    pub const fn offset(&self, index: usize) -> usize {
        if self.is_paged() {
            index / self.per_page() * SECTOR_SIZE + index % self.per_page() * self.record_size
        } else {
            index * self.record_size
        }
    }

    /// Data bytes of a block of so many records.
    #[must_use]
    pub const fn size(&self, count: usize) -> usize {
        match count.checked_sub(1) {
            Some(last) => self.offset(last) + self.record_size,
            None => 0,
        }
    }

    /// The page that the record begins, if it is the first of one.
    #[must_use]
    pub const fn page_begun(&self, index: usize) -> Option<usize> {
        if self.is_paged() && index.is_multiple_of(self.per_page()) {
            Some(index / self.per_page())
        } else {
            None
        }
    }
}

/// What a tree leads to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum TreeKind {
    /// From keys to positions: `IndexEntry`.
    Positions,
    /// From ids to values: `IdEntry`.
    Ids,
}

/// A tree.
#[derive(Clone, Copy, Debug)]
pub struct TreeInfo {
    /// Its number.
    pub number: u8,
    /// Its name.
    pub name: &'static str,
    /// What it leads to.
    pub kind: TreeKind,
}

const fn positions(number: u8, name: &'static str) -> TreeInfo {
    TreeInfo {
        number,
        name,
        kind: TreeKind::Positions,
    }
}

/// All trees.
pub const TREES: [TreeInfo; 2 * FIELDS + 3] = [
    positions(tree::ACCOUNT_FIELDS, "account_user_data_128"),
    positions(tree::ACCOUNT_FIELDS + 1, "account_user_data_64"),
    positions(tree::ACCOUNT_FIELDS + 2, "account_user_data_32"),
    positions(tree::ACCOUNT_FIELDS + 3, "account_ledger"),
    positions(tree::ACCOUNT_FIELDS + 4, "account_code"),
    positions(tree::TRANSFER_FIELDS, "transfer_user_data_128"),
    positions(tree::TRANSFER_FIELDS + 1, "transfer_user_data_64"),
    positions(tree::TRANSFER_FIELDS + 2, "transfer_user_data_32"),
    positions(tree::TRANSFER_FIELDS + 3, "transfer_ledger"),
    positions(tree::TRANSFER_FIELDS + 4, "transfer_code"),
    positions(tree::TRANSFER_SIDES, "transfer_accounts"),
    TreeInfo {
        number: tree::TRANSFER_IDS,
        name: "transfer_ids",
        kind: TreeKind::Ids,
    },
    TreeInfo {
        number: tree::ACCOUNT_IDS,
        name: "account_ids",
        kind: TreeKind::Ids,
    },
];

impl TreeInfo {
    /// The tree of a number.
    #[must_use]
    pub fn of(number: u8) -> Option<&'static Self> {
        TREES.iter().find(|tree| tree.number == number)
    }
}

/// The name of the table or the tree of a number; the manifest has the number 0.
#[must_use]
pub fn name(number: u8) -> &'static str {
    let table = TableInfo::of(number).map(|table| table.name);
    let tree = || TreeInfo::of(number).map(|tree| tree.name);
    match number {
        0 => "manifest",
        _ => table.or_else(tree).unwrap_or("unknown"),
    }
}

/// Records that a block of a manifest's record has, if it may have so many.
#[must_use]
pub fn count_in(table: &TableInfo, count: u64) -> Option<usize> {
    (1..=to_u64(table.capacity()))
        .contains(&count)
        .then(|| u64_to_usize(count))
}

#[cfg(test)]
mod tests {
    use super::{TABLES, TREES, TableInfo, name, table};
    use crate::lsm::Chunk;

    #[test]
    fn numbers_are_unique_and_have_names() {
        let tables = TABLES.iter().map(|table| (table.number, table.name));
        let trees = TREES.iter().map(|tree| (tree.number, tree.name));
        let mut all: Vec<_> = tables.chain(trees).collect();
        assert!(all.iter().all(|(number, of)| name(*number) == *of));
        let count = all.len();
        all.sort_unstable();
        all.dedup_by_key(|(number, _)| *number);
        assert_eq!(all.len(), count);
        assert_eq!((name(0), name(99)), ("manifest", "unknown"));
    }

    #[test]
    fn records_lie_where_chunks_have_them() {
        let events = TableInfo::of(table::EVENTS).unwrap();
        assert_eq!(events.capacity(), Chunk::<[u8; 90]>::CAPACITY);
        let mut chunk = Chunk::<[u8; 90]>::new();
        for count in 1..=events.capacity().min(100) {
            chunk.push(&[7; 90]);
            assert_eq!(events.size(count), chunk.bytes().len());
        }
        assert_eq!(
            (events.page_begun(0), events.page_begun(44)),
            (Some(0), None)
        );
    }
}
