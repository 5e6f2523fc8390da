//! Indexes over accounts and transfers, for queries.

use crate::lsm::{List, Postings, Segments, ValueIndex};
use crate::wire::{Account, Transfer};
use std::ops::RangeInclusive;

/// Positions by the fields that queries name; zero values are not indexed.
#[derive(Debug, Default)]
pub(super) struct FieldIndex {
    pub(super) user_data_128: ValueIndex,
    pub(super) user_data_64: ValueIndex,
    pub(super) user_data_32: ValueIndex,
    pub(super) ledger: ValueIndex,
    pub(super) code: ValueIndex,
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
    fn of<'a>(&'a mut self, fields: &Fields) -> [(&'a mut ValueIndex, u128); 5] {
        [
            (&mut self.user_data_128, fields.user_data_128),
            (&mut self.user_data_64, fields.user_data_64.into()),
            (&mut self.user_data_32, fields.user_data_32.into()),
            (&mut self.ledger, fields.ledger.into()),
            (&mut self.code, fields.code.into()),
        ]
    }

    #[inline]
    pub(super) fn push(&mut self, fields: &Fields, position: u32) {
        for (index, value) in self.of(fields) {
            index.push(value, position);
        }
    }

    pub(super) fn pop(&mut self, fields: &Fields, position: u32) {
        for (index, value) in self.of(fields) {
            index.pop(value, position);
        }
    }

    /// The list of positions of each value that is asked for.
    pub(super) fn lists(&self, wanted: &Fields) -> impl Iterator<Item = (&ValueIndex, List)> {
        let indexes = [
            (&self.user_data_128, wanted.user_data_128),
            (&self.user_data_64, wanted.user_data_64.into()),
            (&self.user_data_32, wanted.user_data_32.into()),
            (&self.ledger, wanted.ledger.into()),
            (&self.code, wanted.code.into()),
        ];
        let asked = indexes.into_iter().filter(|(_, value)| *value != 0);
        asked.map(|(index, value)| (index, index.positions(value)))
    }

    pub(super) fn memory(&self) -> u64 {
        self.user_data_128.memory()
            + self.user_data_64.memory()
            + self.user_data_32.memory()
            + self.ledger.memory()
            + self.code.memory()
    }

    /// Bytes that so many more records take at most.
    pub(super) fn growth(&self, records: u64) -> u64 {
        self.user_data_128.growth(records)
            + self.user_data_64.growth(records)
            + self.user_data_32.growth(records)
            + self.ledger.growth(records)
            + self.code.growth(records)
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

/// By account, the positions of its transfers.
#[derive(Debug, Default)]
pub(super) struct AccountTransfers {
    lists: Segments<List>,
    postings: Postings,
}

impl AccountTransfers {
    /// An account was created.
    pub(super) fn account_push(&mut self) {
        let _ = self.lists.push(List::default());
    }

    /// The last account is taken back.
    pub(super) fn account_pop(&mut self) {
        let list = self.lists.pop();
        assert!(
            list.is_empty(),
            "transfers are taken back before their accounts"
        );
    }

    #[inline]
    pub(super) fn push(&mut self, account: u32, transfer: u32) {
        self.postings.push(self.lists.at_mut(account), transfer);
    }

    /// Takes the last push back.
    pub(super) fn pop(&mut self, account: u32, transfer: u32) {
        let popped = self.postings.pop(self.lists.at_mut(account));
        assert!(popped == transfer);
    }

    /// Visits the transfers of an account within bounds, until `visit` returns false.
    pub(super) fn walk(
        &self,
        account: u32,
        bounds: &RangeInclusive<u32>,
        reversed: bool,
        visit: impl FnMut(u32) -> bool,
    ) {
        let list = self.lists.at(account);
        self.postings.walk(list, bounds, reversed, visit);
    }

    pub(super) fn memory(&self) -> u64 {
        self.lists.memory() + self.postings.memory()
    }

    /// Bytes that so many more accounts or transfers take at most.
    pub(super) fn growth(&self, records: u64) -> u64 {
        self.lists.growth(records) + self.postings.growth(2 * records)
    }
}
