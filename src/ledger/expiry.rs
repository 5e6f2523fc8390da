//! Expiry of pending transfers.

use super::Ledger;
use super::records::PendingStatus;
use super::resolve::reopen;
use crate::constants::{NANOSECONDS, PULSE_EXPIRIES_MAX};
use crate::stdx::{to_u64, u64_to_usize};
use crate::wire::{ChangeEventKind, Transfer};

/// When a pending transfer expires, if ever.
pub(super) fn expires_at(transfer: &Transfer) -> Option<u64> {
    let timeout = u64::from(transfer.timeout.get());
    (timeout > 0).then(|| transfer.timestamp.get() + timeout * NANOSECONDS)
}

impl Ledger {
    /// When the next pending transfer expires; `u64::MAX` when none does.
    #[must_use]
    pub fn pulse_next(&self) -> u64 {
        self.expiry
            .first()
            .map_or(u64::MAX, |(expires, _, _)| *expires)
    }

    /// Whether a pending transfer has expired at that time.
    #[must_use]
    pub fn pulse_due(&self, timestamp: u64) -> bool {
        self.pulse_next() <= timestamp
    }

    /// Expires what has expired by `timestamp`, in the order of expiry and then of creation, so many
    /// at the most as fit a pulse; the last one at `timestamp`.
    pub fn pulse(&mut self, timestamp: u64) {
        let due: Vec<(u64, u64, u32)> = self
            .expiry
            .iter()
            .take(u64_to_usize(PULSE_EXPIRIES_MAX))
            .take_while(|(expires, _, _)| *expires <= timestamp)
            .copied()
            .collect();
        let first = timestamp + 1 - to_u64(due.len());
        for (event_timestamp, entry) in (first..).zip(due) {
            self.expire(event_timestamp, entry);
        }
    }

    fn expire(&mut self, event_timestamp: u64, entry: (u64, u64, u32)) {
        let removed = self.expiry.remove(&entry);
        assert!(removed);
        let record = self.pending.get_mut(entry.2);
        assert_eq!(record.status(), PendingStatus::Pending);
        record.set(PendingStatus::Expired);
        let position = record.transfer.get();
        let transfer = *self.transfers.get(position);
        let find = |id: u128| {
            self.find_account(id)
                .expect("a stored transfer has its accounts")
        };
        let debit_at = find(transfer.debit_account_id.get());
        let credit_at = find(transfer.credit_account_id.get());
        let amount = transfer.amount.get();
        let mut debit = *self.accounts.get(debit_at);
        let mut credit = *self.accounts.get(credit_at);
        debit.debits_pending = (debit.debits_pending.get() - amount).into();
        credit.credits_pending = (credit.credits_pending.get() - amount).into();
        reopen(&transfer, &mut debit.flags, &mut credit.flags);
        *self.accounts.get_mut(debit_at) = debit;
        *self.accounts.get_mut(credit_at) = credit;
        let kind = ChangeEventKind::TwoPhaseExpired;
        self.event_push(event_timestamp, position, debit_at, credit_at, kind);
    }
}
