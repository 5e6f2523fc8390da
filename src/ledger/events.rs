//! The history: what each transfer and each expiry left of the two accounts.
//!
//! Events are stored in the order in which they happened. An import may happen after an expiry and
//! have an earlier timestamp, so the order of time is that of two sequences, merged: the events of
//! transfers, and expiries.

use super::Ledger;
use super::records::{Balances, EventRecord};
use crate::wire::{ChangeEvent, ChangeEventKind};

impl Ledger {
    /// Records how the accounts are now.
    pub(super) fn event_push(
        &mut self,
        timestamp: u64,
        transfer: u32,
        debit_account: u32,
        credit_account: u32,
        kind: ChangeEventKind,
    ) {
        let debit = self.accounts.get(debit_account);
        let credit = self.accounts.get(credit_account);
        let record = EventRecord {
            timestamp: timestamp.into(),
            transfer: transfer.into(),
            debit_account: debit_account.into(),
            credit_account: credit_account.into(),
            debit_flags: debit.flags,
            credit_flags: credit.flags,
            kind: kind.code(),
            reserved: [0; 7],
            debit: Balances::of(debit),
            credit: Balances::of(credit),
        };
        let position = self.events.push(record);
        if kind == ChangeEventKind::TwoPhaseExpired {
            let _ = self.expiries.push(position);
        }
    }

    /// The event of a transfer: those of all transfers before it come first, and some expiries.
    pub(super) fn event_of(&self, transfer: u32) -> &EventRecord {
        let (mut low, mut high) = (0, self.expiries.len());
        while low < high {
            let middle = low + (high - low) / 2;
            if *self.expiries.at(middle) - middle <= transfer {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        let event = self.events.get(transfer + low);
        assert!(event.transfer.get() == transfer);
        event
    }

    /// Position in `expiries` of the first that is not before a time.
    fn expiry_rank(&self, timestamp: u64) -> u32 {
        let (mut low, mut high) = (0, self.expiries.len());
        while low < high {
            let middle = low + (high - low) / 2;
            let event = self.events.get(*self.expiries.at(middle));
            if event.timestamp.get() < timestamp {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }

    /// The events from a time on: transfers and expiries each in their order, merged by time.
    pub(super) fn events_from(&self, timestamp: u64) -> impl Iterator<Item = &EventRecord> {
        let first = self
            .transfers
            .partition_point(|transfer| transfer.timestamp.get() < timestamp);
        let count = u32::try_from(self.transfers.len()).expect("positions have 32 bits");
        let mut transfers = (first..count).map(|at| self.event_of(at)).peekable();
        let mut expiries = (self.expiry_rank(timestamp)..self.expiries.len())
            .map(|at| self.events.get(*self.expiries.at(at)))
            .peekable();
        std::iter::from_fn(move || match (transfers.peek(), expiries.peek()) {
            (Some(transfer), Some(expiry)) if expiry.timestamp.get() < transfer.timestamp.get() => {
                expiries.next()
            }
            (Some(_), _) => transfers.next(),
            (None, _) => expiries.next(),
        })
    }

    /// An event as clients see it.
    pub(super) fn change_event(&self, event: &EventRecord) -> ChangeEvent {
        let transfer = self.transfers.get(event.transfer.get());
        let debit = self.accounts.get(event.debit_account.get());
        let credit = self.accounts.get(event.credit_account.get());
        ChangeEvent {
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
            kind: event.kind,
            reserved: [0; 39],
            debit_account_id: debit.id,
            debit_account_debits_pending: event.debit.debits_pending,
            debit_account_debits_posted: event.debit.debits_posted,
            debit_account_credits_pending: event.debit.credits_pending,
            debit_account_credits_posted: event.debit.credits_posted,
            debit_account_user_data_128: debit.user_data_128,
            debit_account_user_data_64: debit.user_data_64,
            debit_account_user_data_32: debit.user_data_32,
            debit_account_code: debit.code,
            debit_account_flags: event.debit_flags,
            credit_account_id: credit.id,
            credit_account_debits_pending: event.credit.debits_pending,
            credit_account_debits_posted: event.credit.debits_posted,
            credit_account_credits_pending: event.credit.credits_pending,
            credit_account_credits_posted: event.credit.credits_posted,
            credit_account_user_data_128: credit.user_data_128,
            credit_account_user_data_64: credit.user_data_64,
            credit_account_user_data_32: credit.user_data_32,
            credit_account_code: credit.code,
            credit_account_flags: event.credit_flags,
            timestamp: event.timestamp,
            transfer_timestamp: transfer.timestamp,
            debit_account_timestamp: debit.timestamp,
            credit_account_timestamp: credit.timestamp,
        }
    }
}
