//! Indexes over accounts and transfers, for queries.
//!
//! They follow the tables at some distance: what a batch creates is indexed after its replies have
//! left, while nothing else is to be done, and before the first query that needs it. A chain that is
//! rolled back was never indexed.

use super::Ledger;
use crate::lsm::{Hash, RecordTable, Tree};
use crate::stdx::to_u64;
use crate::wire::{Account, Transfer};

/// Records that one step adds to one tree.
const STEP: usize = 4096;
/// Records that may wait before a batch has to index them first.
const LAG_MAX: usize = 16 * 1024;

/// The fields of a record that queries name; zero asks for nothing, and is not indexed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Fields {
    pub(super) user_data_128: u128,
    pub(super) user_data_64: u64,
    pub(super) user_data_32: u32,
    pub(super) ledger: u32,
    pub(super) code: u16,
}

/// The key of a value in a tree: itself if it has 32 bits.
fn key(value: u128) -> u32 {
    u32::try_from(value).unwrap_or_else(|_| Hash::of(value).slot)
}

impl Fields {
    /// By tree, the key of each value.
    fn keys(&self) -> [Option<u32>; FIELDS] {
        let keep = |value: u128| (value != 0).then(|| key(value));
        [
            keep(self.user_data_128),
            keep(self.user_data_64.into()),
            keep(self.user_data_32.into()),
            keep(self.ledger.into()),
            keep(self.code.into()),
        ]
    }
}

/// Trees over the fields that queries name.
pub(super) const FIELDS: usize = 5;

/// Trees over the records of one table, each with the number of records that it knows.
#[derive(Debug)]
pub(super) struct Trees<const N: usize> {
    trees: [Tree; N],
    indexed: [usize; N],
}

impl<const N: usize> Default for Trees<N> {
    fn default() -> Self {
        Self {
            trees: std::array::from_fn(|_| Tree::default()),
            indexed: [0; N],
        }
    }
}

impl<const N: usize> Trees<N> {
    /// Records of a table of `len` that the slowest tree does not know.
    fn lag(&self, len: usize) -> usize {
        let slowest = self.indexed.iter().min().copied().unwrap_or(len);
        len - slowest
    }

    /// Brings the slowest tree a step on: `push` adds a record's entries to the tree with that
    /// number. False when there was nothing to do.
    fn step<T: crate::lsm::Record>(
        &mut self,
        table: &RecordTable<T>,
        push: impl Fn(&T, u32, usize, &mut Tree),
    ) -> bool {
        let slowest = (0..N).min_by_key(|tree| self.indexed[*tree]);
        let tree = slowest.expect("there are trees");
        let from = self.indexed[tree];
        let to = table.len().min(from + STEP);
        for position in from..to {
            let position = u32::try_from(position).expect("positions have 32 bits");
            push(table.get(position), position, tree, &mut self.trees[tree]);
        }
        self.indexed[tree] = to;
        from < to
    }

    fn memory(&self) -> u64 {
        self.trees.iter().map(Tree::memory).sum()
    }

    /// Bytes that a table of `len` records and so many more events take at most.
    fn growth(&self, len: usize, events: u64, entries: u64) -> u64 {
        let waiting = to_u64(self.lag(len)) + events;
        self.trees
            .iter()
            .map(|tree| tree.growth(waiting * entries))
            .sum()
    }
}

/// All indexes.
#[derive(Debug, Default)]
pub(super) struct Indexes {
    accounts: Trees<FIELDS>,
    transfers: Trees<FIELDS>,
    /// By account, of either side, the transfers.
    sides: Trees<1>,
}

impl Indexes {
    pub(super) fn memory(&self) -> u64 {
        self.accounts.memory() + self.transfers.memory() + self.sides.memory()
    }

    /// Trees of account fields with their keys, for those fields that are asked for.
    pub(super) fn of_accounts(&self, wanted: &Fields) -> impl Iterator<Item = (&Tree, u32)> {
        asked(&self.accounts, wanted)
    }

    /// The same for transfers.
    pub(super) fn of_transfers(&self, wanted: &Fields) -> impl Iterator<Item = (&Tree, u32)> {
        asked(&self.transfers, wanted)
    }

    /// The transfers of an account, and its key there.
    pub(super) fn of_account(&self, id: u128) -> (&Tree, u32) {
        (&self.sides.trees[0], key(id))
    }
}

fn asked<'a>(
    trees: &'a Trees<FIELDS>,
    wanted: &Fields,
) -> impl Iterator<Item = (&'a Tree, u32)> + use<'a> {
    let keys = wanted.keys();
    let pairs = trees.trees.iter().zip(keys);
    pairs.filter_map(|(tree, key)| Some((tree, key?)))
}

impl Ledger {
    /// Indexes some records; false when all are indexed already.
    pub fn index_step(&mut self) -> bool {
        let indexes = &mut self.indexes;
        indexes
            .transfers
            .step(&self.transfers, |transfer, at, tree, entries| {
                if let Some(key) = transfer_fields(transfer).keys()[tree] {
                    entries.push(key, at);
                }
            })
            || indexes
                .sides
                .step(&self.transfers, |transfer, at, _, entries| {
                    entries.push(key(transfer.debit_account_id.get()), at);
                    entries.push(key(transfer.credit_account_id.get()), at);
                })
            || indexes
                .accounts
                .step(&self.accounts, |account, at, tree, entries| {
                    if let Some(key) = account_fields(account).keys()[tree] {
                        entries.push(key, at);
                    }
                })
    }

    /// Indexes all records.
    pub(super) fn index_all(&mut self) {
        while self.index_step() {}
    }

    /// Indexes as much as a batch of creates must not leave behind.
    pub(super) fn index_enough(&mut self) {
        while self.indexes.transfers.lag(self.transfers.len()) > LAG_MAX
            || self.indexes.sides.lag(self.transfers.len()) > LAG_MAX
            || self.indexes.accounts.lag(self.accounts.len()) > LAG_MAX
        {
            let _ = self.index_step();
        }
    }

    /// Bytes that so many more events, and what waits, take in the indexes at most.
    pub(super) fn indexes_growth(&self, events: u64) -> u64 {
        let transfers = self.transfers.len();
        self.indexes.accounts.growth(self.accounts.len(), events, 1)
            + self.indexes.transfers.growth(transfers, events, 1)
            + self.indexes.sides.growth(transfers, events, 2)
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
