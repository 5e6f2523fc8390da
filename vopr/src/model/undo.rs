//! Every change of the model, and how a broken chain takes it back.

use super::layout::{Account, ChangeEvent, Transfer};
use super::{Cause, EventKey, Model, Status};

/// One change, with what it replaced.
#[derive(Clone, Copy, Debug)]
pub(super) enum Undo {
    Account(u64, Option<Account>),
    Transfer(u64),
    Status(u64, Option<Status>),
    ExpiryAdded((u64, u64)),
    ExpiryRemoved((u64, u64)),
    Event(EventKey),
}

impl Model {
    fn remember(&mut self, change: Undo) {
        if let Some(undo) = &mut self.undo {
            undo.push(change);
        }
    }

    /// Inserts or replaces an account.
    pub(super) fn put_account(&mut self, account: Account) {
        let before = self.accounts.insert(account.timestamp, account);
        if before.is_none() {
            assert_eq!(self.account_ids.insert(account.id, account.timestamp), None);
        }
        self.remember(Undo::Account(account.timestamp, before));
    }

    pub(super) fn add_transfer(&mut self, transfer: Transfer) {
        assert_eq!(self.transfers.insert(transfer.timestamp, transfer), None);
        assert_eq!(
            self.transfer_ids.insert(transfer.id, transfer.timestamp),
            None
        );
        self.remember(Undo::Transfer(transfer.timestamp));
    }

    pub(super) fn set_status(&mut self, timestamp: u64, status: Status) {
        let before = self.statuses.insert(timestamp, status);
        self.remember(Undo::Status(timestamp, before));
    }

    pub(super) fn add_expiry(&mut self, key: (u64, u64)) {
        assert!(self.expiry.insert(key));
        self.remember(Undo::ExpiryAdded(key));
    }

    pub(super) fn remove_expiry(&mut self, key: (u64, u64)) {
        assert!(self.expiry.remove(&key));
        self.remember(Undo::ExpiryRemoved(key));
    }

    /// Adds a change event: a transfer, or the expiry of one, and both accounts after it.
    pub(super) fn record(
        &mut self,
        timestamp: u64,
        transfer: &Transfer,
        debit: &Account,
        credit: &Account,
        cause: Cause,
    ) {
        let event = ChangeEvent {
            transfer_id: transfer.id,
            transfer_amount: transfer.amount,
            transfer_pending_id: transfer.pending_id,
            transfer_user_data_128: transfer.user_data_128,
            transfer_user_data_64: transfer.user_data_64,
            transfer_user_data_32: transfer.user_data_32,
            transfer_timeout: transfer.timeout,
            transfer_code: transfer.code,
            transfer_flags: transfer.flags,
            ledger: transfer.ledger,
            kind: cause as u8,
            reserved: [0; 39],
            debit_account_id: debit.id,
            debit_account_debits_pending: debit.debits_pending,
            debit_account_debits_posted: debit.debits_posted,
            debit_account_credits_pending: debit.credits_pending,
            debit_account_credits_posted: debit.credits_posted,
            debit_account_user_data_128: debit.user_data_128,
            debit_account_user_data_64: debit.user_data_64,
            debit_account_user_data_32: debit.user_data_32,
            debit_account_code: debit.code,
            debit_account_flags: debit.flags,
            credit_account_id: credit.id,
            credit_account_debits_pending: credit.debits_pending,
            credit_account_debits_posted: credit.debits_posted,
            credit_account_credits_pending: credit.credits_pending,
            credit_account_credits_posted: credit.credits_posted,
            credit_account_user_data_128: credit.user_data_128,
            credit_account_user_data_64: credit.user_data_64,
            credit_account_user_data_32: credit.user_data_32,
            credit_account_code: credit.code,
            credit_account_flags: credit.flags,
            timestamp,
            transfer_timestamp: transfer.timestamp,
            debit_account_timestamp: debit.timestamp,
            credit_account_timestamp: credit.timestamp,
        };
        let key = (timestamp, cause == Cause::Expired);
        assert_eq!(self.events.insert(key, event), None);
        self.remember(Undo::Event(key));
    }

    /// Takes back what happened since the chain began.
    pub(super) fn roll_back(&mut self) {
        let undo = self.undo.take().expect("a chain is open");
        for change in undo.into_iter().rev() {
            match change {
                Undo::Account(timestamp, Some(before)) => {
                    self.accounts.insert(timestamp, before);
                }
                Undo::Account(timestamp, None) => {
                    let account = self.accounts.remove(&timestamp).expect("it was created");
                    self.account_ids.remove(&account.id);
                }
                Undo::Transfer(timestamp) => {
                    let transfer = self.transfers.remove(&timestamp).expect("it was created");
                    self.transfer_ids.remove(&transfer.id);
                }
                Undo::Status(timestamp, Some(before)) => {
                    self.statuses.insert(timestamp, before);
                }
                Undo::Status(timestamp, None) => {
                    self.statuses.remove(&timestamp);
                }
                Undo::ExpiryAdded(key) => {
                    self.expiry.remove(&key);
                }
                Undo::ExpiryRemoved(key) => {
                    self.expiry.insert(key);
                }
                Undo::Event(key) => {
                    self.events.remove(&key);
                }
            }
        }
    }
}
