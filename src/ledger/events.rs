//! The history: what each transfer and each expiry left of the two accounts.
//!
//! Events are stored in the order in which they happened. That is the order of their timestamps,
//! unless an import came after an expiry: then `events_order` has the order of time.

use super::Ledger;
use super::state::{Balances, EventRecord};
use crate::stdx::to_usize;
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
        let in_order = self
            .events
            .last()
            .is_none_or(|last| last.timestamp.get() < timestamp);
        let position = self.events.push(record);
        if !in_order && self.events_order.is_none() {
            self.events_order = Some((0..position).collect());
        }
        if self.events_order.is_some() {
            let rank = self.event_rank(timestamp);
            let order = self.events_order.as_mut().expect("it was there just now");
            order.insert(to_usize(rank), position);
        }
    }

    /// Takes the last event back.
    pub(super) fn event_pop(&mut self) -> EventRecord {
        let record = *self.events.last().expect("the caller added one");
        if self.events_order.is_some() {
            let rank = self.event_rank(record.timestamp.get());
            let order = self.events_order.as_mut().expect("it was there just now");
            let position = order.remove(to_usize(rank));
            assert_eq!(to_usize(position), self.events.len() - 1);
        }
        self.events.pop()
    }

    /// The number of events before a time.
    pub(super) fn event_rank(&self, timestamp: u64) -> u32 {
        match &self.events_order {
            None => self
                .events
                .partition_point(|event| event.timestamp.get() < timestamp),
            Some(order) => {
                let rank = order.partition_point(|position| {
                    self.events.get(*position).timestamp.get() < timestamp
                });
                u32::try_from(rank).expect("positions have 32 bits")
            }
        }
    }

    /// The event of that rank in the order of time.
    pub(super) fn event_at(&self, rank: u32) -> Option<&EventRecord> {
        let position = match &self.events_order {
            None => rank,
            Some(order) => *order.get(to_usize(rank))?,
        };
        (to_usize(position) < self.events.len()).then(|| self.events.get(position))
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
