//! Indexes over accounts and transfers: what queries and checks of ids look in.
//!
//! All follow from the tables. An op's records are indexed when it has been executed; ids at once,
//! since the next event may repeat one.

use super::Ledger;
use super::scan::Asked;
use crate::grid::Grid;
use crate::io::Io;
use crate::lsm::{IdTree, IndexTree};
use crate::stdx::yield_once;
use crate::wire::{Account, Transfer};

/// The fields of a record that queries name; zero asks for nothing, and is not indexed.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Fields {
    pub(super) user_data_128: u128,
    pub(super) user_data_64: u64,
    pub(super) user_data_32: u32,
    pub(super) ledger: u32,
    pub(super) code: u16,
}

/// Trees over the fields that queries name.
const FIELDS: usize = 5;

/// Numbers of the trees in the data file; those of fields count on from the first.
pub(super) mod tree {
    pub(in crate::ledger) const ACCOUNT_FIELDS: u8 = 32;
    pub(in crate::ledger) const TRANSFER_FIELDS: u8 = 48;
    pub(in crate::ledger) const TRANSFER_SIDES: u8 = 56;
    pub(in crate::ledger) const TRANSFER_IDS: u8 = 64;
}

/// The key of a value in a tree: itself if it has 48 bits.
fn key(value: u128) -> u64 {
    const BITS: u32 = 48;
    match u64::try_from(value) {
        Ok(value) if value >> BITS == 0 => value,
        _ => crate::lsm::hash::mix(value) >> (u64::BITS - BITS),
    }
}

impl Fields {
    /// By tree, the key of each value.
    fn keys(&self) -> [Option<u64>; FIELDS] {
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

/// How long the tables are.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Lengths {
    pub(super) accounts: u64,
    pub(super) transfers: u64,
    pub(super) failed: u64,
}

/// All indexes but that of ids.
#[derive(Debug)]
pub(super) struct Indexes {
    pub(super) accounts: [IndexTree; FIELDS],
    pub(super) transfers: [IndexTree; FIELDS],
    /// By account, of either side, the transfers.
    pub(super) sides: IndexTree,
    /// What is indexed.
    pub(super) indexed: Lengths,
}

impl Indexes {
    pub(super) fn new() -> Self {
        let of = |first: u8| {
            std::array::from_fn(|field| {
                IndexTree::new(first + u8::try_from(field).expect("there are few"))
            })
        };
        Self {
            accounts: of(tree::ACCOUNT_FIELDS),
            transfers: of(tree::TRANSFER_FIELDS),
            sides: IndexTree::new(tree::TRANSFER_SIDES),
            indexed: Lengths::default(),
        }
    }

    /// All trees, in the order of their numbers.
    fn trees(&self) -> impl Iterator<Item = &IndexTree> {
        let fields = self.accounts.iter().chain(&self.transfers);
        fields.chain(std::iter::once(&self.sides))
    }

    pub(super) fn memory(&self) -> u64 {
        self.trees().map(IndexTree::memory).sum()
    }

    pub(super) fn block_count(&self) -> u64 {
        self.trees().map(IndexTree::block_count).sum()
    }

    /// The trees of account fields that are asked for.
    pub(super) fn of_accounts(&self, wanted: &Fields) -> Vec<Asked<'_>> {
        asked(&self.accounts, wanted).collect()
    }

    /// The same for transfers.
    pub(super) fn of_transfers(&self, wanted: &Fields) -> Vec<Asked<'_>> {
        asked(&self.transfers, wanted).collect()
    }

    /// The transfers of an account, and the trees of fields that are asked for.
    pub(super) fn of_account(&self, id: u128, wanted: &Fields) -> Vec<Asked<'_>> {
        let sides = Asked {
            tree: &self.sides,
            key: key(id),
            always: true,
        };
        let fields = asked(&self.transfers, wanted);
        std::iter::once(sides).chain(fields).collect()
    }

    pub(super) fn add_account(&mut self, position: u64, account: &Account) {
        for (tree, key) in self.accounts.iter_mut().zip(account_fields(account).keys()) {
            if let Some(key) = key {
                tree.push(key, position);
            }
        }
    }

    pub(super) fn add_transfer(&mut self, position: u64, transfer: &Transfer) {
        let keys = transfer_fields(transfer).keys();
        for (tree, key) in self.transfers.iter_mut().zip(keys) {
            if let Some(key) = key {
                tree.push(key, position);
            }
        }
        self.sides
            .push(key(transfer.debit_account_id.get()), position);
        self.sides
            .push(key(transfer.credit_account_id.get()), position);
    }
}

fn asked<'t>(
    trees: &'t [IndexTree; FIELDS],
    wanted: &Fields,
) -> impl Iterator<Item = Asked<'t>> + use<'t> {
    let pairs = trees.iter().zip(wanted.keys());
    pairs.filter_map(|(tree, key)| {
        Some(Asked {
            tree,
            key: key?,
            always: false,
        })
    })
}

/// The tree of ids.
pub(super) fn ids() -> IdTree {
    IdTree::new(tree::TRANSFER_IDS)
}

impl Ledger {
    /// What an op leaves to do: its records are indexed, merges go on, and blocks that have become
    /// full are written.
    pub async fn finish<I: Io>(&mut self, grid: &mut Grid<'_, I>) {
        self.index_records();
        yield_once().await;
        self.transfers.write_full(grid).await;
        self.events.write_full(grid).await;
        self.wide.write_full(grid).await;
        self.expiries.write_full(grid).await;
        self.failed.write_full(grid).await;
    }

    fn lengths(&self) -> Lengths {
        Lengths {
            accounts: self.accounts.len(),
            transfers: self.transfers.len(),
            failed: self.failed.len(),
        }
    }

    /// Indexes what the op added; all of it is in memory.
    pub(super) fn index_records(&mut self) {
        let (from, to) = (self.indexes.indexed, self.lengths());
        for position in from.accounts..to.accounts {
            self.indexes
                .add_account(position, self.accounts.get(position));
        }
        for position in from.transfers..to.transfers {
            self.indexes
                .add_transfer(position, self.transfers.get_recent(position));
        }
        self.indexes.indexed = to;
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
