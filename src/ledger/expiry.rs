//! Expiry of pending transfers.

use super::Ledger;
use super::records::{Balances, ExpiryRecord, PendingStatus};
use super::resolve::reopen;
use crate::constants::{NANOSECONDS, PULSE_EXPIRIES_MAX};
use crate::grid::Grid;
use crate::io::Io;
use crate::stdx::{to_u64, u64_to_usize};
use crate::wire::Transfer;

/// (Time of expiry, time of creation, position of the transfer).
pub(super) type Due = (u64, u64, u64);

/// When a pending transfer expires, if ever.
pub(super) fn expires_at(transfer: &Transfer) -> Option<u64> {
    let timeout = u64::from(transfer.timeout.get());
    (timeout > 0).then(|| transfer.timestamp.get() + timeout * NANOSECONDS)
}

impl Ledger {
    /// When the next pending transfer expires; `u64::MAX` when none does.
    #[must_use]
    pub fn pulse_next(&self) -> u64 {
        self.due
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
    pub async fn pulse<I: Io>(&mut self, grid: &mut Grid<'_, I>, timestamp: u64) {
        let due: Vec<Due> = self
            .due
            .iter()
            .take(u64_to_usize(PULSE_EXPIRIES_MAX))
            .take_while(|(expires, _, _)| *expires <= timestamp)
            .copied()
            .collect();
        self.fetched.clear();
        let positions = due.iter().map(|(_, _, transfer)| *transfer).collect();
        self.fetch_transfers(positions, grid).await;
        let first = timestamp + 1 - to_u64(due.len());
        for (event_timestamp, due) in (first..).zip(due) {
            self.expire(event_timestamp, due);
        }
    }

    fn expire(&mut self, event_timestamp: u64, due: Due) {
        let removed = self.due.remove(&due);
        assert!(removed);
        let position = due.2;
        assert_eq!(self.status(position), PendingStatus::Pending);
        self.status_set(position, PendingStatus::Expired);
        let transfer = *self.transfer(position);
        let find = |id: u128| {
            self.find_account(id)
                .expect("a stored transfer has its accounts")
        };
        let debit_at = find(transfer.debit_account_id.get());
        let credit_at = find(transfer.credit_account_id.get());
        let amount = transfer.amount.get();
        let mut debit = *self.accounts.get(debit_at.into());
        let mut credit = *self.accounts.get(credit_at.into());
        debit.debits_pending = (debit.debits_pending.get() - amount).into();
        credit.credits_pending = (credit.credits_pending.get() - amount).into();
        reopen(&transfer, &mut debit.flags, &mut credit.flags);
        *self.accounts.get_mut(debit_at.into()) = debit;
        *self.accounts.get_mut(credit_at.into()) = credit;
        let _ = self.expiries.push(&ExpiryRecord {
            timestamp: event_timestamp.into(),
            transfer: position.into(),
            debit_account: debit_at.into(),
            credit_account: credit_at.into(),
            debit_flags: debit.flags,
            credit_flags: credit.flags,
            reserved: [0; 4],
            debit: Balances::of(&debit),
            credit: Balances::of(&credit),
        });
        self.expiry_timestamp = event_timestamp;
    }
}
